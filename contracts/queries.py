"""Every question, and the view it returns. Asked of the catalog over the bus, answered from its read model.

Each question takes `min_seq`: the answer stands at least at that sequence of the log, or the error is Behind.
Lists are keyset pages: `cursor` is what the last page called `next`, opaque; none = from the start.
"""

from datetime import datetime
from typing import Annotated, Generic, TypeVar, get_args

import msgspec
from msgspec import Meta

from contracts.audit import AuditHead, AuditReport, ReplayReport
from contracts.events import Artifact, Category
from contracts.ids import CommandId, DatasetId, Digest, ImageId, JobId, RunId, VersionId, WorkerId
from contracts.jobs import Status
from contracts.recipe import Recipe
from contracts.subjects import Kind, Priority

T = TypeVar("T")
Limit = Annotated[int, Meta(ge=1, le=500)]


class Query(msgspec.Struct, Generic[T], frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A question whose answer is a T."""

    min_seq: int = 0


class QueryAt(Query[T], Generic[T], frozen=True, kw_only=True):
    """A question about now, or about the past: as of a sequence of the log, or as of a time. Not both.

    Rejected: the log has not come so far yet. NotFound: it was not there yet.
    """

    at_seq: Annotated[int, Meta(ge=1)] | None = None
    at_time: datetime | None = None


class View(msgspec.Struct, frozen=True, kw_only=True):
    """Rows as somebody sees them. `etag` is the sequence of the last fact that touched the thing."""


class Page(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """A piece of a list. `total` counts the whole list; `next` is the cursor of the piece after this one."""

    items: tuple[T, ...]
    total: int
    next: str | None = None


# --- data sets and images


class VersionView(View, frozen=True):
    version: int
    version_id: VersionId
    dataset_id: DatasetId
    dataset: str
    images: int
    manifest: Digest
    trigger: str
    as_of: int
    created_at: datetime
    etag: int
    erased: int = 0
    """So many of its images were erased since: no new job can train on it."""


class DatasetView(View, frozen=True):
    """`tagged` counts images with a tag, `captioned` those with a written caption, `refused` files not taken."""

    id: DatasetId
    name: str
    description: str
    images: int
    tagged: int
    captioned: int
    refused: int
    general_threshold: float
    character_threshold: float
    latest_version: int | None
    cover: ImageId | None
    created_at: datetime
    changed_at: datetime
    etag: int


class TagView(View, frozen=True, omit_defaults=True):
    """A tag that holds, and why: decided by a person or an import, or seen by a model above the threshold."""

    tag: str
    source: str
    category: Category = "general"
    probability: float | None = None
    run: RunId | None = None
    actor: str | None = None
    sequence: int = 0


class ImageView(View, frozen=True):
    """`caption` is what the trainer would read now: the written one (of `caption_source`), else the tags joined."""

    id: ImageId
    dataset_id: DatasetId
    dataset: str
    ordinal: int
    name: str
    format: str
    width: int
    height: int
    size: int
    animated: bool
    picture: Digest
    source: Digest
    thumbnail: Digest
    tags: tuple[TagView, ...]
    rejected: tuple[str, ...]
    suggestions: tuple[TagView, ...]
    rating: str | None
    caption: str
    caption_source: str
    created_at: datetime
    etag: int
    erased: bool = False
    """It is how it was then; what was private of it is gone, for it was erased since."""


class RefusalView(View, frozen=True):
    name: str
    reason: str
    detail: str
    size: int
    at: datetime
    sequence: int


class TagCount(View, frozen=True):
    tag: str
    images: int


class ListDatasets(Query[Page[DatasetView]], frozen=True):
    cursor: str | None = None
    limit: Limit = 100


class GetDataset(QueryAt[DatasetView], frozen=True):
    """`dataset` is an id, or the name it has now."""

    dataset: str


class ListImages(Query[Page[ImageView]], frozen=True):
    """In the order they came in. `dataset` none = of all data sets; `tag` = only those that have it."""

    dataset: str | None = None
    tag: str | None = None
    cursor: str | None = None
    limit: Limit = 100


class GetImage(QueryAt[ImageView], frozen=True):
    image: ImageId


class SawView(View, frozen=True):
    """A job that trained on what was erased. Its LoRA stays; who wants it gone as well finds it by this."""

    job: JobId
    name: str
    status: Status
    version: int
    steps: int
    artifacts: tuple[Artifact, ...]


class ErasureView(View, frozen=True):
    """What was erased, when, and who had seen it.

    `images` counts those erased, `left` says in a sentence each where something of them still lies: a backup that is
    not here, a disk that cannot be written. They are tried again until nothing is left.
    """

    id: str
    dataset_id: DatasetId
    images: int
    erased_at: datetime
    loras: tuple[SawView, ...]
    left: tuple[str, ...]
    etag: int


class GetErasure(Query[ErasureView], frozen=True):
    """`thing` is the id of an image, or of a data set that was erased as a whole."""

    thing: str


class ErasedImage(msgspec.Struct, frozen=True, kw_only=True):
    """An erased image, by what copies of it are found: the digest of its picture. `cursor`: the place after it."""

    image: ImageId
    picture: Digest
    cursor: str


class ListErased(Query[Page[ErasedImage]], frozen=True):
    """All erased images, in the order they were erased: for those who keep copies of pictures."""

    cursor: str | None = None
    limit: Limit = 500


class ListRefusals(Query[Page[RefusalView]], frozen=True):
    dataset: str
    cursor: str | None = None
    limit: Limit = 100


class ListTags(Query[Page[TagCount]], frozen=True):
    """Most used first. `prefix` narrows by how the tag starts."""

    dataset: str | None = None
    prefix: str = ""
    cursor: str | None = None
    limit: Limit = 100


class ListVersions(Query[Page[VersionView]], frozen=True):
    dataset: str
    cursor: str | None = None
    limit: Limit = 100


class GetVersion(Query[VersionView], frozen=True):
    dataset: str
    version: int


class ManifestEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a frozen version, its caption in plain text: `written` by somebody, else joined from tags."""

    ordinal: int
    image: ImageId
    picture: Digest
    caption: str
    width: int
    height: int
    written: bool = False


class ReadManifest(Query[Page[ManifestEntry]], frozen=True):
    """What a job trains on, for those who may read captions."""

    version_id: VersionId
    cursor: str | None = None
    limit: Limit = 500


# --- tagging


class TaggingView(View, frozen=True):
    """`done` and `total` in images. `position` among the waiting (1 = next), none when it does not wait."""

    id: RunId
    dataset_id: DatasetId
    dataset: str
    model: str
    status: Status
    phase: str
    priority: Priority
    done: int
    total: int
    unreadable: int
    model_digest: Digest | None
    tags_digest: Digest | None
    preprocessing: str | None
    provider: str | None
    attempts: int
    worker: WorkerId | None
    error: str | None
    position: int | None
    actor: str
    created_at: datetime
    ended_at: datetime | None
    etag: int


class ListTagging(Query[Page[TaggingView]], frozen=True):
    dataset: str | None = None
    cursor: str | None = None
    limit: Limit = 100


class GetTagging(Query[TaggingView], frozen=True):
    run: RunId


class TaggingImage(msgspec.Struct, frozen=True, kw_only=True):
    ordinal: int
    picture: Digest


class ReadTaggingWork(Query[Page[TaggingImage]], frozen=True):
    """The images of a run, in the order of their ordinals."""

    run: RunId
    cursor: str | None = None
    limit: Limit = 500


# --- presets


class PresetView(View, frozen=True):
    name: str
    description: str
    parent: str | None
    category: str
    recipe: Recipe
    builtin: bool
    created_at: datetime | None
    etag: int


class ListPresets(Query[Page[PresetView]], frozen=True):
    cursor: str | None = None
    limit: Limit = 100


class GetPreset(Query[PresetView], frozen=True):
    name: str


# --- jobs


class CheckpointView(View, frozen=True):
    step: int
    attempt: int
    checkpoint: Digest
    size: int
    at: datetime


class SampleView(View, frozen=True):
    step: int
    index: int
    prompt: str
    seed: int
    picture: Digest
    at: datetime


class AttemptView(View, frozen=True):
    """`ended` says how: succeeded, failed, cancelled, interrupted, crashed; none while it is open."""

    attempt: int
    worker: WorkerId
    resumes: int
    started_at: datetime
    ended: str | None
    reason: str | None


class JobView(View, frozen=True):
    """`phase` refines `status`: draft, queued, running, cancelling and so on. `step` is the last one kept for sure.

    `position` among the waiting of its class (1 = next), none when it does not wait.
    """

    id: JobId
    name: str
    description: str
    labels: tuple[str, ...]
    mode: str
    status: Status
    phase: str
    priority: Priority
    preset: str | None
    dataset_id: DatasetId
    dataset: str
    version: int
    version_id: VersionId
    images: int
    trigger: str
    recipe: Recipe
    step: int
    steps: int | None
    device: str | None
    precision: str | None
    attempts: tuple[AttemptView, ...]
    artifacts: tuple[Artifact, ...]
    checkpoints: int
    samples: int
    position: int | None
    error_code: str | None
    error: str | None
    actor: str
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    etag: int


class ListJobs(Query[Page[JobView]], frozen=True):
    """Newest first."""

    status: Status | None = None
    dataset: str | None = None
    cursor: str | None = None
    limit: Limit = 100


class GetJob(QueryAt[JobView], frozen=True):
    job: JobId


class ListCheckpoints(Query[Page[CheckpointView]], frozen=True):
    job: JobId
    cursor: str | None = None
    limit: Limit = 500


class ListSamples(Query[Page[SampleView]], frozen=True):
    job: JobId
    cursor: str | None = None
    limit: Limit = 500


# --- the log


class EventView(View, frozen=True):
    """One fact with its commit around it: what, where, when, who, why. `data` is the fact as stored, still sealed."""

    sequence: int
    index: int
    type: str
    kind: str
    thing: str
    version: int
    time: datetime
    recorded: datetime
    actor: str
    command: CommandId
    correlation: str
    causation: str
    data: msgspec.Raw


class ListEvents(Query[Page[EventView]], frozen=True):
    """Facts after a sequence, oldest first. `total` is the sequence of the log's head as archived.

    `type` and `actor` may end with `*`: what begins so. `since` (with it) and `until` (without it) are times at which
    the log recorded a commit.
    """

    after: int = 0
    kind: Kind | None = None
    thing: str | None = None
    type: str | None = None
    actor: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    limit: Limit = 500


class Happening(View, frozen=True):
    """One fact in the story of something: who did it, what, when and why.

    `words` tell it to people. `change` is the fact cut down to what the story is about, in plain text; private text
    whose key is gone is null. `time` is when it was asked for, `recorded` when the log took it in.
    """

    sequence: int
    index: int
    type: str
    kind: str
    thing: str
    time: datetime
    recorded: datetime
    actor: str
    command: CommandId
    correlation: str
    causation: str
    words: str
    change: dict[str, object]


class History(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of a story, oldest first. A search is bounded: it may have few items, even none, and yet a `next`."""

    items: tuple[Happening, ...]
    next: str | None = None


class ListJobHistory(Query[History], frozen=True):
    job: JobId
    cursor: str | None = None
    limit: Limit = 100


class ListImageHistory(Query[History], frozen=True):
    """All that decided what one image is: its coming, tags, captions, predictions, thresholds, its end."""

    image: ImageId
    cursor: str | None = None
    limit: Limit = 100


class ListDatasetHistory(Query[History], frozen=True):
    """Of the data set and its tagging runs; `tag` = only what decided where this tag holds."""

    dataset: str
    tag: str | None = None
    cursor: str | None = None
    limit: Limit = 100


class LogView(View, frozen=True):
    """The log as the catalog sees it: its id, how far the read model has come, what the archive ends with."""

    log_id: str
    applied: int
    archived: int
    head: Digest
    verified: bool


class GetLog(Query[LogView], frozen=True):
    pass


class GetAuditHead(Query[AuditHead], frozen=True):
    """Where the log ends, signed."""


class VerifyLog(Query[AuditReport], frozen=True):
    """Compute all hashes again and lay the log beside its archive; `head`: one that was exported before."""

    head: AuditHead | None = None


class StartReplay(Query[ReplayReport], frozen=True):
    """Make every read model anew beside the live one and compare. Conflict: that is being done already."""


class GetReplay(Query[ReplayReport], frozen=True):
    """The replay under way, or what came of the last one."""


QUERIES: tuple[type[Query], ...] = (  # type: ignore[type-arg]  # each has its own answer type
    ListDatasets,
    GetDataset,
    ListImages,
    GetImage,
    GetErasure,
    ListErased,
    ListRefusals,
    ListTags,
    ListVersions,
    GetVersion,
    ReadManifest,
    ListTagging,
    GetTagging,
    ReadTaggingWork,
    ListPresets,
    GetPreset,
    ListJobs,
    GetJob,
    ListCheckpoints,
    ListSamples,
    ListEvents,
    ListJobHistory,
    ListImageHistory,
    ListDatasetHistory,
    GetLog,
    StartReplay,
    GetReplay,
    GetAuditHead,
    VerifyLog,
)


def name_of(query: type[Query[T]]) -> str:
    """The last token of its subject: `GetJob` → `get_job`."""
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in query.__name__).lstrip("_")


def answer_of(query: type[Query[T]]) -> type[T]:
    """The type of its answer: `GetJob` is a `Query[JobView]`."""
    (answer,) = get_args(query.__orig_bases__[0])  # type: ignore[attr-defined]  # every generic subclass has it
    return answer  # type: ignore[no-any-return]
