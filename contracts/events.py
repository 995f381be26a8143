"""Every fact. They are the disk format: tags are written out, nothing is renamed or retyped, new fields have defaults.

A fact says what happened to one thing; its commit says when, by whom and why. Facts skip unknown fields (old and new
code share one log). `Sealed` fields hold private text under the key of one image (`contracts.sealed`). `Ordinals`
fields hold sets of images of a data set as a serialised Roaring bitmap (https://roaringbitmap.org, portable format).
"""

from datetime import datetime
from typing import Literal

import msgspec

from contracts.ids import CommandId, DatasetId, Digest, ImageId, VersionId, WorkerId
from contracts.recipe import Recipe
from contracts.subjects import Kind, Priority

Sealed = bytes
Ordinals = bytes
Category = Literal["general", "character", "rating"]
Source = Literal["person", "import"]

SCHEMA = 1
"""Version of the facts in a commit written now; older ones pass through upcasters first."""
COMMIT_BYTES = 200 * 1024
"""A commit larger than this is refused when built: bulk belongs in blobs and bitmaps."""


class Fact(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type"):
    """Something that happened; past tense; immutable."""


# --- the log itself


class LogCreated(Fact, frozen=True, tag="log.created"):
    """The first commit of a log. A cursor of another `log_id` is not understood here."""

    log_id: str
    format: int


LogFact = LogCreated

# --- data sets


class DatasetCreated(Fact, frozen=True, tag="dataset.created"):
    name: str
    description: str = ""


class DatasetRenamed(Fact, frozen=True, tag="dataset.renamed"):
    name: str


class DatasetRemoved(Fact, frozen=True, tag="dataset.removed"):
    """Not listed any more; versions, jobs and LoRAs made from it stay."""


class ImageAdded(Fact, frozen=True, tag="dataset.image_added"):
    """A picture came in. `ordinal` is dense in its data set and never used again.

    `source` = bytes as received; `picture` = upright, sRGB, 8 bits (the same blob where the source is that already);
    `pixels` = digest of the canonical pixels, for finding twins; `dhash` = 64-bit difference hash in hex;
    `width` and `height` of the picture in pixels; `size` of the source in bytes.
    """

    ordinal: int
    image_id: ImageId
    source: Digest
    picture: Digest
    thumbnail: Digest
    pixels: Digest
    dhash: str
    format: str
    width: int
    height: int
    size: int
    name: Sealed
    animated: bool = False


class ImageRefused(Fact, frozen=True, tag="dataset.image_refused"):
    """A file was not taken, and why: `reason` is a stable code, `detail` a sentence without private text."""

    image_id: ImageId
    name: Sealed
    reason: str
    detail: str
    size: int


class ImagesRemoved(Fact, frozen=True, tag="dataset.images_removed"):
    """They are in no later version; their history and the versions that hold them stay."""

    images: Ordinals


class TagsEdited(Fact, frozen=True, tag="dataset.tags_edited"):
    """Decisions, the same for each of `images`: asserted tags hold, rejected ones do not, whatever a model says."""

    images: Ordinals
    asserted: tuple[str, ...] = ()
    rejected: tuple[str, ...] = ()
    source: Source = "person"


class CaptionSet(Fact, frozen=True, tag="dataset.caption_set"):
    """A written caption; none = joined from the tags again."""

    ordinal: int
    caption: Sealed | None
    source: Source = "person"


class ThresholdsSet(Fact, frozen=True, tag="dataset.thresholds_set"):
    """Predictions above these probabilities are tags of the image, unless a person decided otherwise."""

    general: float
    character: float


class VersionFrozen(Fact, frozen=True, tag="dataset.version_frozen"):
    """What a job trains on, for ever: `manifest` is a blob of one line an image (ordinal, picture, sealed caption).

    `as_of` is the sequence of the log it was computed at: folding everything up to there makes the same manifest.
    """

    version: int
    version_id: VersionId
    as_of: int
    images: int
    manifest: Digest
    trigger: str = ""


DatasetFact = (
    DatasetCreated
    | DatasetRenamed
    | DatasetRemoved
    | ImageAdded
    | ImageRefused
    | ImagesRemoved
    | TagsEdited
    | CaptionSet
    | ThresholdsSet
    | VersionFrozen
)

# --- presets


class PresetSaved(Fact, frozen=True, tag="preset.saved"):
    """The whole recipe as it stands; `parent` is the preset it was made from."""

    name: str
    recipe: Recipe
    parent: str | None = None
    description: str = ""


class PresetRetired(Fact, frozen=True, tag="preset.retired"):
    """Not offered any more; jobs carry their resolved recipe and do not notice."""


PresetFact = PresetSaved | PresetRetired

# --- work: what jobs and tagging runs have in common. `attempt` is the sequence of the attempt's own start.


class Queued(Fact, frozen=True):
    """It may be taken by a worker. The sequence of this fact is its dispatch number; only the newest counts."""

    priority: Priority


class AttemptStarted(Fact, frozen=True):
    """One worker's try begins, at `resumes` steps (images) already kept. Its sequence names the attempt."""

    worker: WorkerId
    boot: str
    resumes: int


class Interrupted(Fact, frozen=True):
    """A worker stopped politely; the next one goes on. Never counted against the work."""

    attempt: int
    step: int
    reason: str


class AttemptFailed(Fact, frozen=True):
    """A worker's child died or hung. Another attempt follows, unless this was one too many."""

    attempt: int
    step: int
    reason: str


class CancelRequested(Fact, frozen=True):
    """Somebody wants it stopped; a worker that holds it obeys."""

    reason: str = ""


class Cancelled(Fact, frozen=True):
    """It ended because somebody asked; `attempt` is 0 when no worker held it."""

    attempt: int = 0
    step: int = 0


class Failed(Fact, frozen=True):
    """It ended without a result. `code` is stable, `reason` a sentence that says what to do."""

    attempt: int
    code: str
    reason: str


# --- jobs


class JobCreated(Fact, frozen=True, tag="job.created"):
    """What was asked. Nothing of it ever changes but name, description, labels and priority."""

    name: str
    mode: Literal["single", "batch", "variations", "quick-start"]
    dataset_id: DatasetId
    dataset: str
    version: int
    version_id: VersionId
    manifest: Digest
    images: int
    recipe: Recipe
    preset: str | None = None
    trigger: str = ""
    priority: Priority = "normal"
    description: str = ""
    labels: tuple[str, ...] = ()
    group: str | None = None


class JobEdited(Fact, frozen=True, tag="job.edited"):
    """Words about the job; none = as before."""

    name: str | None = None
    description: str | None = None
    labels: tuple[str, ...] | None = None


class JobPrioritised(Fact, frozen=True, tag="job.prioritised"):
    priority: Priority


class JobRemoved(Fact, frozen=True, tag="job.removed"):
    """Not listed any more; its adapter and its history stay."""


class JobQueued(Queued, frozen=True, tag="job.queued"):
    pass


class JobAttemptStarted(AttemptStarted, frozen=True, tag="job.attempt_started"):
    pass


class JobPlanned(Fact, frozen=True, tag="job.planned"):
    """What the attempt will do, worked out before its first step, and on what it runs."""

    attempt: int
    steps: int
    epochs: int
    device: str
    precision: str
    base: Digest
    """Digest over the base's weight files."""
    software: dict[str, str] = {}


class JobCheckpointed(Fact, frozen=True, tag="job.checkpointed"):
    """Adapter, optimizer and place in the data after `step`, whole, in one blob."""

    attempt: int
    step: int
    checkpoint: Digest
    size: int


class JobSampled(Fact, frozen=True, tag="job.sampled"):
    """A picture rendered after `step`. Its prompt is the recipe's, or the caption of manifest entry `index`."""

    attempt: int
    step: int
    index: int
    picture: Digest
    seed: int


class Artifact(msgspec.Struct, frozen=True, kw_only=True):
    """A finished file: `format` is `kohya` or `diffusers`; `tensors` the sha256 of the data after the header."""

    name: str
    format: str
    digest: Digest
    size: int
    tensors: Digest


class JobSucceeded(Fact, frozen=True, tag="job.succeeded"):
    attempt: int
    step: int
    artifacts: tuple[Artifact, ...]


class JobInterrupted(Interrupted, frozen=True, tag="job.interrupted"):
    pass


class JobAttemptFailed(AttemptFailed, frozen=True, tag="job.attempt_failed"):
    pass


class JobCancelRequested(CancelRequested, frozen=True, tag="job.cancel_requested"):
    pass


class JobCancelled(Cancelled, frozen=True, tag="job.cancelled"):
    pass


class JobFailed(Failed, frozen=True, tag="job.failed"):
    pass


JobFact = (
    JobCreated
    | JobEdited
    | JobPrioritised
    | JobRemoved
    | JobQueued
    | JobAttemptStarted
    | JobPlanned
    | JobCheckpointed
    | JobSampled
    | JobSucceeded
    | JobInterrupted
    | JobAttemptFailed
    | JobCancelRequested
    | JobCancelled
    | JobFailed
)

# --- tagging runs


class TaggingRequested(Fact, frozen=True, tag="tagging.requested"):
    """One pass of one model over chosen images of a data set. `model` is a name the tagger resolves."""

    dataset_id: DatasetId
    dataset: str
    model: str
    images: Ordinals
    count: int
    priority: Priority = "normal"


class TaggingModelLoaded(Fact, frozen=True, tag="tagging.model_loaded"):
    """Which files, exactly, made the predictions of this attempt, and on what they ran."""

    attempt: int
    model: Digest
    tags: Digest
    preprocessing: str
    provider: str


class Prediction(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One tag a model saw, with its probability (0 to 1, four digits)."""

    tag: str
    probability: float
    category: Category = "general"


class ImagePredictions(msgspec.Struct, frozen=True, kw_only=True):
    """All predictions above the floor for one image. An empty list is an answer too."""

    ordinal: int
    predictions: tuple[Prediction, ...]
    unreadable: str | None = None


class TaggingPredicted(Fact, frozen=True, tag="tagging.predicted"):
    attempt: int
    images: tuple[ImagePredictions, ...]


class TaggingSucceeded(Fact, frozen=True, tag="tagging.succeeded"):
    attempt: int
    images: int
    unreadable: int = 0


class TaggingQueued(Queued, frozen=True, tag="tagging.queued"):
    pass


class TaggingAttemptStarted(AttemptStarted, frozen=True, tag="tagging.attempt_started"):
    pass


class TaggingInterrupted(Interrupted, frozen=True, tag="tagging.interrupted"):
    pass


class TaggingAttemptFailed(AttemptFailed, frozen=True, tag="tagging.attempt_failed"):
    pass


class TaggingCancelRequested(CancelRequested, frozen=True, tag="tagging.cancel_requested"):
    pass


class TaggingCancelled(Cancelled, frozen=True, tag="tagging.cancelled"):
    pass


class TaggingFailed(Failed, frozen=True, tag="tagging.failed"):
    pass


TaggingFact = (
    TaggingRequested
    | TaggingModelLoaded
    | TaggingPredicted
    | TaggingSucceeded
    | TaggingQueued
    | TaggingAttemptStarted
    | TaggingInterrupted
    | TaggingAttemptFailed
    | TaggingCancelRequested
    | TaggingCancelled
    | TaggingFailed
)

AnyFact = LogFact | DatasetFact | PresetFact | JobFact | TaggingFact

FACTS_OF: dict[Kind, object] = {
    "log": LogFact,
    "dataset": DatasetFact,
    "preset": PresetFact,
    "job": JobFact,
    "tagging": TaggingFact,
}

# --- the envelope


class Commit(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one wish changed in one thing: one message of the log.

    `id` is `<command id>/<kind>.<thing id>/<n>`; `version` counts the thing's facts up to and with this commit's last;
    `fingerprint` is the hash of the request that asked (same key, other request → refused); `previous` is the sha256 of
    the body of the thing's previous commit, so that the history of each thing is a chain; `answer` is what the command
    answered, to be given again when it is repeated. `traceparent`: W3C Trace Context.
    """

    id: str
    kind: Kind
    thing: str
    version: int
    at: datetime
    actor: str
    command: CommandId
    facts: tuple[AnyFact, ...]
    fingerprint: str = ""
    correlation: str = ""
    causation: str = ""
    traceparent: str | None = None
    schema: int = SCHEMA
    previous: str = ""
    answer: msgspec.Raw = msgspec.Raw(b"null")


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """A commit with its place in the log. `body` is the message as stored, which hashes are made over."""

    sequence: int
    recorded: datetime
    commit: Commit
    body: bytes


def commit_id(command: CommandId, kind: Kind, thing: str, number: int = 0) -> str:
    """Message ids are deduplicated per stream, so they name the thing as well as the command."""
    return f"{command}/{kind}.{thing}/{number}"
