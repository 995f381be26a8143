"""What clients send, and the answers that are not a view of the catalog. Unknown fields are refused."""

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from contracts.audit import AuditHead
from contracts.commands import ImportedFile, Name, Probability, Tags, Text, Trigger, Words
from contracts.errors import Rejected
from contracts.ids import ImageId, JobId, WorkerId
from contracts.queries import EventView, LogView, SawView
from contracts.recipe import Recipe
from contracts.subjects import Priority
from contracts.telemetry import Presence

Labels = Annotated[tuple[Name, ...], Meta(max_length=32)]
RESERVED = frozenset({"health", "categories", "generate-config", "prepare"})
"""Names that are addresses of ours (`/presets/health`)."""


def unreserved(name: str) -> str:
    """The name, or Rejected when an address of ours has it."""
    if name.lower() in RESERVED:
        raise Rejected(f"{name!r} is a reserved name; take another", reserved=sorted(RESERVED))
    return name


class _Body(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request."""


class DatasetBody(_Body, frozen=True):
    name: Name
    description: Words = ""


class DatasetPatch(_Body, frozen=True):
    name: Name


class ThresholdsBody(_Body, frozen=True):
    """Predictions at least so probable become tags, unless a person decided otherwise."""

    general: Probability
    character: Probability


class VersionBody(_Body, frozen=True):
    trigger: Trigger = ""


class TagsBody(_Body, frozen=True):
    """The whole list of tags as it should be."""

    tags: Tags


class TagsPatch(_Body, frozen=True):
    add: Tags = ()
    remove: Tags = ()


class CaptionBody(_Body, frozen=True):
    caption: Text


class TaggingBody(_Body, frozen=True):
    """`only_new`: only images that no run of this model has seen."""

    dataset: str
    model: Name = "demo"
    only_new: bool = False
    priority: Priority = "normal"


class PresetBody(_Body, frozen=True):
    """The parent's recipe with some fields changed, given as dotted paths (`optimizer.lr`) or nested objects."""

    changes: dict[str, object] = {}
    parent: str | None = None
    description: Words = ""


class ConfigBody(_Body, frozen=True):
    dataset: str
    preset: str
    changes: dict[str, object] = {}


class JobBody(_Body, frozen=True):
    """A training: a data set (frozen now, or a version frozen before) and a recipe.

    The recipe is the preset's, or `recipe`, or the plain one, with `changes` on top.
    """

    dataset: str
    version: Annotated[int, Meta(ge=1)] | None = None
    preset: str | None = None
    recipe: Recipe | None = None
    changes: dict[str, object] = {}
    mode: Literal["single"] = "single"
    name: Annotated[str, Meta(max_length=100)] = ""
    trigger: Trigger = ""
    priority: Priority = "normal"
    description: Words = ""
    labels: Labels = ()
    auto_start: bool = False


class TrainingBody(JobBody, frozen=True):
    """The same as for a job, but it starts unless told otherwise."""

    auto_start: bool = True


class JobPatch(_Body, frozen=True):
    """Words about the job and its priority; what is left out stays. Its status changes by start and cancel only."""

    name: Name | None = None
    description: Words | None = None
    labels: Labels | None = None
    priority: Priority | None = None


class VerifyBody(_Body, frozen=True):
    """`head`: one that was exported before; nothing up to it may have been rewritten since."""

    head: AuditHead | None = None


class SessionBody(_Body, frozen=True):
    key: Annotated[str, Meta(max_length=1000)]


# --- answers


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """What became of each file, in the order they were sent; those too large to be received come last."""

    items: tuple[ImportedFile, ...]
    sequence: int


class SamplePrompt(msgspec.Struct, frozen=True, kw_only=True):
    image: ImageId
    prompt: str


class Erased(msgspec.Struct, frozen=True, kw_only=True):
    """What was erased for good. `loras` had seen it and stay; `left` says where something of it is not gone yet."""

    id: str
    sequence: int
    changed: bool
    images: int
    erased_at: datetime
    loras: tuple[SawView, ...]
    left: tuple[str, ...]


class EventItem(EventView, frozen=True, kw_only=True):
    """A fact with its commit around it; `cursor` is the place after it, for `after`."""

    cursor: str


class Events(msgspec.Struct, frozen=True, kw_only=True):
    """Facts, oldest first. `next` is where the list goes on (null at its end), `head` the newest place of the log."""

    items: tuple[EventItem, ...]
    next: str | None
    head: str


class ImageTags(msgspec.Struct, frozen=True, kw_only=True):
    """`tags` as the trainer reads them; `details` say where each comes from."""

    image: ImageId
    tags: tuple[str, ...]
    details: tuple[dict[str, object], ...]
    rejected: tuple[str, ...]
    suggestions: tuple[dict[str, object], ...]


class ImageCaption(msgspec.Struct, frozen=True, kw_only=True):
    image: ImageId
    caption: str
    source: str


class JobStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The little that a progress bar needs. `seq` is the ETag of the job."""

    id: JobId
    status: str
    phase: str
    step: int
    steps: int | None
    loss: float | None
    eta: float | None
    position: int | None
    seq: int


class Losses(msgspec.Struct, frozen=True, kw_only=True):
    """A loss curve in columns of one length: the step, its loss, its learning rate."""

    job_id: JobId
    steps: tuple[int, ...]
    losses: tuple[float, ...]
    rates: tuple[float, ...]


class TaggerModel(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    workers: tuple[WorkerId, ...]


class Category(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    presets: tuple[str, ...]


class Parameters(msgspec.Struct, frozen=True, kw_only=True):
    """The preset's values, and the JSON Schema that says what each may be."""

    name: str
    values: Recipe
    json_schema: dict[str, object] = msgspec.field(name="schema")


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """What a job with these would train: the data set as it is now and the resolved recipe. Nothing is kept."""

    dataset: str
    images: int
    preset: str
    recipe: Recipe


class Mode(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    description: str
    endpoint: str


class TrainingStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How many jobs are in each status, and who could work on them."""

    jobs: dict[str, int]
    workers: tuple[Presence, ...]


class Status(msgspec.Struct, frozen=True, kw_only=True):
    workers: tuple[Presence, ...]
    log: LogView
    counts: dict[str, int]
    since: dict[str, datetime]
    """Since when no worker of a service has been here."""


class ServiceHealth(msgspec.Struct, frozen=True, kw_only=True):
    status: Literal["healthy", "unhealthy"]
    service: str
    detail: str = ""


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """`healthy`: all services are here; `degraded`: no trainer or no tagger; `unhealthy`: nothing can be asked."""

    status: Literal["healthy", "degraded", "unhealthy"]
    version: str
    services: tuple[ServiceHealth, ...]


class Check(msgspec.Struct, frozen=True, kw_only=True):
    ok: bool
    detail: str


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    ready: bool
    checks: dict[str, Check]


class Alive(msgspec.Struct, frozen=True, kw_only=True):
    status: Literal["alive"] = "alive"


class Version(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    version: str
    api: str


class Welcome(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    version: str
    docs: str
    openapi: str
    links: dict[str, str]


class Session(msgspec.Struct, frozen=True, kw_only=True):
    actor: str


class MadeVersion(msgspec.Struct, frozen=True, kw_only=True):
    """`changed` false: this content with this trigger had been frozen already, as this version."""

    id: str
    version: int
    changed: bool
    sequence: int
