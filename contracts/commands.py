"""Every wish, one tagged union for each family. A wish may be refused, and it refuses unknown fields.

Ids of what a command makes are derived from the command's id, so a repeated command makes the same thing.
"""

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from contracts.ids import CommandId, Digest, ImageId, JobId, RunId
from contracts.recipe import Recipe
from contracts.subjects import Priority

FILES_AT_ONCE = 32
"""So many files make one import command, and one commit."""
WORDS_AT_ONCE = 48 * 1024
"""So many bytes of captions and tags go into one import command, unless one file alone has more."""

Name = Annotated[str, Meta(min_length=1, max_length=100)]
Words = Annotated[str, Meta(max_length=2000)]
Tag = Annotated[str, Meta(min_length=1, max_length=200)]
Tags = Annotated[tuple[Tag, ...], Meta(max_length=1000)]
Text = Annotated[str, Meta(max_length=20_000)]
Trigger = Annotated[str, Meta(max_length=100)]
Probability = Annotated[float, Meta(ge=0, le=1)]


class Origin(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where a wish comes from; stamped at the edge. `fingerprint` is the hash of route and body."""

    command: CommandId
    actor: str
    at: datetime
    fingerprint: str = ""
    correlation: str = ""
    causation: str = ""
    traceparent: str | None = None


class Wish(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    tag=True,
    tag_field="type",
):
    """Something asked; imperative."""


# --- data sets and their images


class CreateDataset(Wish, frozen=True):
    name: Name
    description: Words = ""


class RenameDataset(Wish, frozen=True):
    dataset: str
    name: Name


class RemoveDataset(Wish, frozen=True):
    dataset: str


class StagedFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A file the gateway has received into `staging/<token>`, with the words that came beside it."""

    token: Annotated[str, Meta(pattern="^[0-9A-Za-z_-]{1,64}$")]
    name: Annotated[str, Meta(max_length=1000)]
    digest: Digest
    size: int
    caption: Text | None = None
    tags: Tags = ()


class ImportImages(Wish, frozen=True):
    """Bring files into a data set. Each is taken, known already, or refused by itself; one bad file stops no other."""

    dataset: str
    files: Annotated[tuple[StagedFile, ...], Meta(min_length=1, max_length=FILES_AT_ONCE)]


class RemoveImage(Wish, frozen=True):
    image: ImageId


class EraseImage(Wish, frozen=True):
    """Have its bytes and words destroyed wherever they are. It cannot be taken back; also for an image removed before.

    Refused (in-use) while a job waits or trains on a version that holds it.
    """

    image: ImageId


class EraseDataset(Wish, frozen=True):
    """The same for all images a data set ever had, and the names of its refused files. `dataset`: name or id."""

    dataset: str


class ReplaceTags(Wish, frozen=True):
    """The whole list of tags as somebody wants it; becomes a delta against the version they saw.

    `seen` is the ETag's sequence from If-Match; none = against what is there now.
    """

    image: ImageId
    tags: Tags
    seen: int | None = None


class EditTags(Wish, frozen=True):
    """Add and remove tags; edits of different tags never conflict."""

    image: ImageId
    add: Tags = ()
    remove: Tags = ()


class SetCaption(Wish, frozen=True):
    """Write the caption, or take it back (none): then it is joined from the tags."""

    image: ImageId
    caption: Text | None
    seen: int | None = None


class SetThresholds(Wish, frozen=True):
    dataset: str
    general: Probability
    character: Probability


class FreezeVersion(Wish, frozen=True):
    """Freeze what is there now. The same content with the same trigger is the same version, not another."""

    dataset: str
    trigger: Trigger = ""


DatasetWish = (
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


class RequestTagging(Wish, frozen=True):
    """Have a model look at all images of a data set, or only those that no run of it has seen."""

    dataset: str
    model: Name = "demo"
    only_new: bool = False
    priority: Priority = "normal"


class CancelTagging(Wish, frozen=True):
    run: RunId
    reason: Words = ""


TaggingWish = RequestTagging | CancelTagging

# --- presets


class SavePreset(Wish, frozen=True):
    """Keep a recipe under a name: the parent's (or the plain one) with some fields changed, given as dotted paths."""

    name: Name
    changes: dict[str, object] = {}
    parent: str | None = None
    description: Words = ""


class RetirePreset(Wish, frozen=True):
    name: Name


PresetWish = SavePreset | RetirePreset

# --- jobs


class CreateJob(Wish, frozen=True):
    """Ask for a training: a data set (frozen now, or a version frozen before) and a recipe.

    The recipe is the preset's (or `recipe`, or the plain one) with `changes` on top, given as dotted paths.
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
    description: Words = ""
    labels: Annotated[tuple[Name, ...], Meta(max_length=32)] = ()
    start: bool = False


class EditJob(Wish, frozen=True):
    """Change words about a job, or its priority. Its status is not among what can be edited."""

    job: JobId
    name: Name | None = None
    description: Words | None = None
    labels: Annotated[tuple[Name, ...], Meta(max_length=32)] | None = None
    priority: Priority | None = None


class StartJob(Wish, frozen=True):
    job: JobId


class CancelJob(Wish, frozen=True):
    job: JobId
    reason: Words = ""


class RemoveJob(Wish, frozen=True):
    job: JobId


JobWish = CreateJob | EditJob | StartJob | CancelJob | RemoveJob

# --- what travels


class DatasetCommand(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    origin: Origin
    wish: DatasetWish


class TaggingCommand(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    origin: Origin
    wish: TaggingWish


class PresetCommand(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    origin: Origin
    wish: PresetWish


class JobCommand(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    origin: Origin
    wish: JobWish


Command = DatasetCommand | TaggingCommand | PresetCommand | JobCommand
FAMILIES: dict[type[Command], str] = {
    DatasetCommand: "dataset",
    TaggingCommand: "tagging",
    PresetCommand: "preset",
    JobCommand: "job",
}


class ImportedFile(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of one file of an import: added, known already (`existing`), or refused with a reason.

    `name` is private text: filled in from the command whenever that is answered, never stored with the answer.
    """

    name: str = ""
    outcome: Literal["added", "existing", "refused"]
    image: ImageId
    ordinal: int | None = None
    reason: str | None = None
    detail: str | None = None


class Receipt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a command answers. Reads with `min_seq` = `sequence` see the change; `changed` false = it was so already.

    The sequence is not stored with the answer (it is the commit's own), but given again when the command is repeated.
    """

    id: str
    sequence: int = 0
    changed: bool = True
    status: str | None = None
    name: str | None = None
    version: int | None = None
    files: tuple[ImportedFile, ...] = ()
