"""Every command, one tagged union for each kind of aggregate. A command may be rejected; unknown fields are errors.

Ids of what a command creates are derived from the command's id, so a repeated command creates nothing twice.
"""

from datetime import datetime
from typing import Annotated, Generic, Literal, TypeVar, get_args

import msgspec
from msgspec import Meta

from contracts.ids import CommandId, Digest, ImageId, JobId, RunId
from contracts.recipe import Recipe
from contracts.subjects import Priority, Status

MAX_FILES_PER_IMPORT = 32
"""Maximum files in one import command, and so in one commit."""
MAX_TEXT_BYTES_PER_IMPORT = 48 * 1024
"""Maximum bytes of captions and tags in one import command; a single file may exceed it."""

Name = Annotated[str, Meta(min_length=1, max_length=100)]
Description = Annotated[str, Meta(max_length=2000)]
Tag = Annotated[str, Meta(min_length=1, max_length=200)]
Tags = Annotated[tuple[Tag, ...], Meta(max_length=1000)]
Text = Annotated[str, Meta(max_length=20_000)]
Trigger = Annotated[str, Meta(max_length=100)]
Probability = Annotated[float, Meta(ge=0, le=1)]


class CommandMetadata(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Who sent a command, when and why; stamped at the edge. `fingerprint` is the hash of route and body."""

    command_id: CommandId
    actor: str
    at: datetime
    fingerprint: str = ""
    correlation_id: str = ""
    causation_id: str = ""
    traceparent: str | None = None


class ImportedFile(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The outcome of one imported file: added, already present (`existing`), or refused with a reason.

    `name` is private text: filled in from the command for each reply, never stored with the result.
    """

    name: str = ""
    outcome: Literal["added", "existing", "refused"]
    image: ImageId
    ordinal: int | None = None
    reason: str | None = None
    detail: str | None = None


class CommandResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The result of a command; each command names its own kind of result.

    `id` is the object the command was about. A read with `min_seq` = `sequence` includes the change. `changed` is false
    if nothing had to be done. The sequence is not stored with the result (it is the commit's own), but filled in again
    when the command is repeated.
    """

    id: str
    sequence: int = 0
    changed: bool = True


class DatasetResult(CommandResult, frozen=True, tag="dataset", tag_field="type"):
    name: str


class ImageResult(CommandResult, frozen=True, tag="image", tag_field="type"):
    pass


class ImportResult(CommandResult, frozen=True, tag="import", tag_field="type"):
    """`name` of the data set, and the outcome of each file."""

    name: str
    files: tuple[ImportedFile, ...] = ()


class VersionResult(CommandResult, frozen=True, tag="version", tag_field="type"):
    """`name` of the data set, and the number of the version."""

    name: str
    version: int


class TaggingRunResult(CommandResult, frozen=True, tag="tagging", tag_field="type"):
    """`name` of the data set where a run was requested."""

    status: Status
    name: str | None = None


class PresetResult(CommandResult, frozen=True, tag="preset", tag_field="type"):
    name: str


class JobResult(CommandResult, frozen=True, tag="job", tag_field="type"):
    """`name` of the job and `version` of the data set where the job was created."""

    status: Status
    name: str | None = None
    version: int | None = None


AnyCommandResult = (
    DatasetResult | ImageResult | ImportResult | VersionResult | TaggingRunResult | PresetResult | JobResult
)
R = TypeVar("R", bound=CommandResult)


class Command(
    msgspec.Struct,
    Generic[R],
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    tag=True,
    tag_field="type",
):
    """Base class of commands whose result is an R; their names are imperative."""


# --- data sets and their images


class CreateDataset(Command[DatasetResult], frozen=True):
    name: Name
    description: Description = ""


class RenameDataset(Command[DatasetResult], frozen=True):
    dataset: str
    name: Name


class RemoveDataset(Command[DatasetResult], frozen=True):
    dataset: str


class StagedFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A file the gateway received into `staging/<token>`, with the caption and tags that came with it."""

    token: Annotated[str, Meta(pattern="^[0-9A-Za-z_-]{1,64}$")]
    name: Annotated[str, Meta(max_length=1000)]
    digest: Digest
    size: int
    caption: Text | None = None
    tags: Tags = ()


class ImportImages(Command[ImportResult], frozen=True):
    """Import files into a data set. Each is added, already present, or refused by itself; a bad file stops no other."""

    dataset: str
    files: Annotated[tuple[StagedFile, ...], Meta(min_length=1, max_length=MAX_FILES_PER_IMPORT)]


class RemoveImage(Command[ImageResult], frozen=True):
    image: ImageId


class EraseImage(Command[ImageResult], frozen=True):
    """Destroy an image's bytes and texts wherever they are. Irreversible; also works on an image removed before.

    Rejected (in-use) while a job waits for or trains on a version that contains it.
    """

    image: ImageId


class EraseDataset(Command[DatasetResult], frozen=True):
    """Erase all images a data set ever had, and the names of its skipped files. `dataset`: name or id."""

    dataset: str


class ReplaceTags(Command[ImageResult], frozen=True):
    """Replace the whole list of tags; becomes a delta against the version the client saw.

    `seen` is the sequence in the If-Match ETag; none = against the current tags.
    """

    image: ImageId
    tags: Tags
    seen: int | None = None


class EditTags(Command[ImageResult], frozen=True):
    """Add and remove single tags; edits of different tags never conflict."""

    image: ImageId
    add: Tags = ()
    remove: Tags = ()


class SetCaption(Command[ImageResult], frozen=True):
    """Write the caption, or remove it (none): the caption is then joined from the tags."""

    image: ImageId
    caption: Text | None
    seen: int | None = None


class SetThresholds(Command[DatasetResult], frozen=True):
    dataset: str
    general: Probability
    character: Probability


class FreezeVersion(Command[VersionResult], frozen=True):
    """Freeze the current content as a version. Unchanged content with the same trigger reuses the existing version."""

    dataset: str
    trigger: Trigger = ""


DatasetCommand = (
    CreateDataset
    | RenameDataset
    | RemoveDataset
    | ImportImages
    | RemoveImage
    | EraseImage
    | EraseDataset
    | ReplaceTags
    | EditTags
    | SetCaption
    | SetThresholds
    | FreezeVersion
)

# --- tagging runs


class RequestTagging(Command[TaggingRunResult], frozen=True):
    """Run a tagger model over all images of a data set, or only those that no run of this model has covered."""

    dataset: str
    model: Name = "demo"
    only_new: bool = False
    priority: Priority = "normal"


class CancelTagging(Command[TaggingRunResult], frozen=True):
    run: RunId
    reason: Description = ""


TaggingCommand = RequestTagging | CancelTagging

# --- presets


class SavePreset(Command[PresetResult], frozen=True):
    """Save a recipe under a name: the parent's (or the default) with `changes` applied, given as dotted paths."""

    name: Name
    changes: dict[str, object] = {}
    parent: str | None = None
    description: Description = ""


class RetirePreset(Command[PresetResult], frozen=True):
    name: Name


PresetCommand = SavePreset | RetirePreset

# --- jobs


class CreateJob(Command[JobResult], frozen=True):
    """Create a training job from a data set (frozen now, or an earlier version) and a recipe.

    The recipe is the preset's (or `recipe`, or the default) with `changes` on top, given as dotted paths.
    """

    dataset: str
    version: int | None = None
    preset: str | None = None
    recipe: Recipe | None = None
    changes: dict[str, object] = {}
    name: Annotated[str, Meta(max_length=100)] = ""
    trigger: Trigger = ""
    mode: Literal["single", "batch", "variations", "quick-start"] = "single"
    priority: Priority = "normal"
    description: Description = ""
    labels: Annotated[tuple[Name, ...], Meta(max_length=32)] = ()
    start: bool = False


class EditJob(Command[JobResult], frozen=True):
    """Change a job's name, description, labels or priority. The status cannot be edited."""

    job: JobId
    name: Name | None = None
    description: Description | None = None
    labels: Annotated[tuple[Name, ...], Meta(max_length=32)] | None = None
    priority: Priority | None = None


class StartJob(Command[JobResult], frozen=True):
    job: JobId


class CancelJob(Command[JobResult], frozen=True):
    job: JobId
    reason: Description = ""


class RemoveJob(Command[JobResult], frozen=True):
    job: JobId


JobCommand = CreateJob | EditJob | StartJob | CancelJob | RemoveJob

# --- envelopes: what is sent over the bus


class DatasetEnvelope(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    metadata: CommandMetadata
    command: DatasetCommand


class TaggingEnvelope(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    metadata: CommandMetadata
    command: TaggingCommand


class PresetEnvelope(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    metadata: CommandMetadata
    command: PresetCommand


class JobEnvelope(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    metadata: CommandMetadata
    command: JobCommand


CommandEnvelope = DatasetEnvelope | TaggingEnvelope | PresetEnvelope | JobEnvelope
COMMAND_FAMILIES: dict[type[CommandEnvelope], str] = {
    DatasetEnvelope: "dataset",
    TaggingEnvelope: "tagging",
    PresetEnvelope: "preset",
    JobEnvelope: "job",
}


def result_type_of(command: type[Command[R]]) -> type[R]:
    """The type of a command's result: JobResult for `StartJob(Command[JobResult])`."""
    (result_type,) = get_args(command.__orig_bases__[0])  # type: ignore[attr-defined]  # every generic subclass has it
    return result_type  # type: ignore[no-any-return]
