"""Request bodies, and response bodies that are not a view of the catalog. Unknown request fields are refused."""

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from contracts.audit import AuditHead
from contracts.commands import Description, ImportedFile, Name, Probability, Tags, Text, Trigger
from contracts.errors import Rejected
from contracts.ids import ImageId, JobId, WorkerId
from contracts.queries import AffectedLoraView, EventView, LogView
from contracts.recipe import Recipe
from contracts.subjects import Priority
from contracts.telemetry import Presence

Labels = Annotated[tuple[Name, ...], Meta(max_length=32)]
RESERVED_NAMES = frozenset({"health", "categories", "generate-config", "prepare"})
"""Names that are part of a route (`/presets/health`)."""


def refuse_reserved_name(name: str) -> str:
    """The same name; Rejected when it is part of a route."""
    if name.lower() in RESERVED_NAMES:
        raise Rejected(f"{name!r} is a reserved name; choose another", reserved=sorted(RESERVED_NAMES))
    return name


class _Body(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request body."""


class DatasetBody(_Body, frozen=True):
    name: Name
    description: Description = ""


class DatasetPatch(_Body, frozen=True):
    name: Name


class ThresholdsBody(_Body, frozen=True):
    """Minimum probabilities at which predictions become tags, unless a person decided otherwise."""

    general: Probability
    character: Probability


class VersionBody(_Body, frozen=True):
    trigger: Trigger = ""


class TagsBody(_Body, frozen=True):
    """The complete new list of tags."""

    tags: Tags


class TagsPatch(_Body, frozen=True):
    add: Tags = ()
    remove: Tags = ()


class CaptionBody(_Body, frozen=True):
    caption: Text


class TaggingBody(_Body, frozen=True):
    """`only_new`: only images that no run of this model has processed."""

    dataset: str
    model: Name = "demo"
    only_new: bool = False
    priority: Priority = "normal"


class PresetBody(_Body, frozen=True):
    """The parent's recipe with some fields changed, given as dotted paths (`optimizer.lr`) or nested objects."""

    changes: dict[str, object] = {}
    parent: str | None = None
    description: Description = ""


class ConfigBody(_Body, frozen=True):
    dataset: str
    preset: str
    changes: dict[str, object] = {}


class JobBody(_Body, frozen=True):
    """A training: a data set (frozen now, or an existing version) and a recipe.

    The recipe is the preset's, or `recipe`, or the default one, with `changes` applied to it.
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
    description: Description = ""
    labels: Labels = ()
    auto_start: bool = False


class TrainingBody(JobBody, frozen=True):
    """The same as for a job, but `auto_start` is true by default."""

    auto_start: bool = True


class JobPatch(_Body, frozen=True):
    """Name, description, labels and priority; omitted fields stay. The status changes only by start and cancel."""

    name: Name | None = None
    description: Description | None = None
    labels: Labels | None = None
    priority: Priority | None = None


class VerifyBody(_Body, frozen=True):
    """`head`: an exported audit head; history up to it must not have been rewritten since."""

    head: AuditHead | None = None


class SessionBody(_Body, frozen=True):
    key: Annotated[str, Meta(max_length=1000)]


# --- responses


class UploadResult(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of each file, in the order of the form; files that were too large come last."""

    items: tuple[ImportedFile, ...]
    sequence: int


class SamplePrompt(msgspec.Struct, frozen=True, kw_only=True):
    image: ImageId
    prompt: str


class ErasureResult(msgspec.Struct, frozen=True, kw_only=True):
    """What was erased for good. `loras` were trained on it and stay; `pending`: where traces of it still are."""

    id: str
    sequence: int
    changed: bool
    images: int
    erased_at: datetime
    loras: tuple[AffectedLoraView, ...]
    pending: tuple[str, ...]


class EventItem(EventView, frozen=True, kw_only=True):
    """An event with the metadata of its commit; `cursor` is the position after it, for `after`."""

    cursor: str


class Events(msgspec.Struct, frozen=True, kw_only=True):
    """Events, oldest first. `next` is the cursor of the next page (null on the last), `head` that of the log's end."""

    items: tuple[EventItem, ...]
    next: str | None
    head: str


class ImageTags(msgspec.Struct, frozen=True, kw_only=True):
    """`tags` as the trainer reads them; `details` give the source of each."""

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
    """A job's progress in brief. `seq` is the ETag of the job."""

    id: JobId
    status: str
    phase: str
    step: int
    steps: int | None
    loss: float | None
    eta: float | None
    position: int | None
    seq: int


class LossCurve(msgspec.Struct, frozen=True, kw_only=True):
    """A loss curve as columns of equal length: steps, losses, learning rates."""

    job_id: JobId
    steps: tuple[int, ...]
    losses: tuple[float, ...]
    rates: tuple[float, ...]


class TaggerModel(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    workers: tuple[WorkerId, ...]


class PresetCategory(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    presets: tuple[str, ...]


class PresetParameters(msgspec.Struct, frozen=True, kw_only=True):
    """The preset's values, and the JSON Schema of their allowed values."""

    name: str
    values: Recipe
    json_schema: dict[str, object] = msgspec.field(name="schema")


class ResolvedConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What a job would train: the current data set and the resolved recipe. Nothing is stored."""

    dataset: str
    images: int
    preset: str
    recipe: Recipe


class TrainingMode(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    description: str
    endpoint: str


class TrainingStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The number of jobs in each status, and the connected trainers."""

    jobs: dict[str, int]
    workers: tuple[Presence, ...]


class SystemStatus(msgspec.Struct, frozen=True, kw_only=True):
    workers: tuple[Presence, ...]
    log: LogView
    counts: dict[str, int]
    absent_since: dict[str, datetime]
    """For each service without a connected worker: since when."""


class ServiceHealth(msgspec.Struct, frozen=True, kw_only=True):
    status: Literal["healthy", "unhealthy"]
    service: str
    detail: str = ""


class HealthStatus(msgspec.Struct, frozen=True, kw_only=True):
    """`healthy`: all services are running; `degraded`: no trainer or no tagger; `unhealthy`: requests will fail."""

    status: Literal["healthy", "degraded", "unhealthy"]
    version: str
    services: tuple[ServiceHealth, ...]


class HealthCheck(msgspec.Struct, frozen=True, kw_only=True):
    ok: bool
    detail: str


class Readiness(msgspec.Struct, frozen=True, kw_only=True):
    ready: bool
    checks: dict[str, HealthCheck]


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


class VersionCreated(msgspec.Struct, frozen=True, kw_only=True):
    """`changed` is false if this content with this trigger was frozen before, as this version."""

    id: str
    version: int
    changed: bool
    sequence: int
