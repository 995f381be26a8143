"""Commands on data sets and their images."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from contracts.commands.base import (
    Command,
    CommandResult,
    Description,
    Name,
    Probability,
    Repeats,
    Tag,
    Tags,
    Text,
    Trigger,
)
from contracts.definitions import union_in
from contracts.events.base import ReadAs
from contracts.filters import Selection
from contracts.ids import Digest, ImageId, RunId
from contracts.tag_style import DEFAULT_STYLE, TagStyle

MAX_FILES_PER_IMPORT = 32
"""Maximum files in one import command, and so in one commit."""
MAX_KEPT = 100
"""Maximum commits that the result of an undo lists."""
MAX_EDITED_TAGS = 100
"""Maximum tags in each list of an edit of many images."""
MAX_TEXT_BYTES_PER_IMPORT = 48 * 1024
"""Maximum bytes of captions and tags in one import command; a single file may exceed it."""
MAX_TEXTS_PER_IMPORT = 200
"""Maximum texts of images that are there already in one command, and so in one commit."""


EditedTags = Annotated[tuple[Tag, ...], Meta(max_length=MAX_EDITED_TAGS)]


class ImportedFile(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The outcome of one imported file: added, already present (`existing`), or refused with a reason.

    `name` is private text: filled in from the command for each reply, never stored with the result. `text`: what the
    text that came with it was read as. `conflicts`: what of it was not applied, as a person had decided otherwise.
    `mask`: whether the mask that came with it was taken; `detail` says why not.
    """

    name: str = ""
    outcome: Literal["added", "existing", "refused"]
    image: ImageId
    ordinal: int | None = None
    reason: str | None = None
    detail: str | None = None
    text: Literal["tags", "caption", "empty"] | None = None
    conflicts: tuple[str, ...] = ()
    mask: Literal["taken", "refused"] | None = None


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


class EditManyResult(CommandResult, frozen=True, tag="edit_many", tag_field="type"):
    """`name` of the data set, the number of images with a decision that changed, and of those selected."""

    name: str
    images: int
    selected: int


class TextCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers of images whose texts were to be read another way.

    Of the `selected` ones: `tags` and `captions`, whose text is that now; `changed`, for which that is new; `kept`,
    where a person decided something else, which stands. Left as they are: those `without_text`, `without_key` (the text
    cannot be read any more) and `too_long` (text and reading together do not fit in the log).
    """

    selected: int = 0
    tags: int = 0
    captions: int = 0
    changed: int = 0
    kept: int = 0
    without_text: int = 0
    without_key: int = 0
    too_long: int = 0

    def __add__(self, other: "TextCounts") -> "TextCounts":
        pairs = zip(msgspec.structs.astuple(self), msgspec.structs.astuple(other), strict=True)
        return TextCounts(**dict(zip(self.__struct_fields__, map(sum, pairs), strict=True)))


class ReadTextsResult(CommandResult, frozen=True, tag="read_texts", tag_field="type"):
    """`name` of the data set. `next`: where the next command goes on, none if all images of the selection were read."""

    name: str
    counts: TextCounts = TextCounts()
    next: int | None = None


class ReviewResult(CommandResult, frozen=True, tag="review", tag_field="type"):
    """`name` of the data set, and the number of images whose state changed."""

    name: str
    images: int


class RepeatsResult(CommandResult, frozen=True, tag="repeats", tag_field="type"):
    """`name` of the data set, and the number of images whose repeats changed."""

    name: str
    images: int


class UndoResult(CommandResult, frozen=True, tag="undo", tag_field="type"):
    """`name` of the data set, the commits that were undone, and what they did, as a part of a sentence.

    `kept`: later commits that decided about the same tags of the same images: they still hold (the first MAX_KEPT).
    """

    name: str
    commits: tuple[int, ...] = ()
    summary: str = ""
    kept: tuple[int, ...] = ()


class CreateDataset(Command[DatasetResult], frozen=True):
    name: Name
    description: Description = ""


class RenameDataset(Command[DatasetResult], frozen=True):
    dataset: str
    name: Name


class RemoveDataset(Command[DatasetResult], frozen=True):
    dataset: str


class StagedMask(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The mask of a picture, a file that the gateway received into `staging/<token>`."""

    token: Annotated[str, Meta(pattern="^[0-9A-Za-z_-]{1,64}$")]
    digest: Digest
    size: int


class StagedFile(StagedMask, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A file the gateway received into `staging/<token>`, with the caption and tags that came with it.

    `text`: a text whose kind is not known, as it stands beside the file. `repeats`: how often the image is seen in an
    epoch.
    """

    name: Annotated[str, Meta(max_length=1000)]
    caption: Text | None = None
    tags: Tags = ()
    text: Text | None = None
    repeats: Repeats | None = None
    mask: StagedMask | None = None


class ImportImages(Command[ImportResult], frozen=True):
    """Import files into a data set. Each is added, already present, or refused by itself; a bad file stops no other.

    `read_as`: what the texts of the files are; none: as the text settings say.
    """

    dataset: str
    files: Annotated[tuple[StagedFile, ...], Meta(min_length=1, max_length=MAX_FILES_PER_IMPORT)]
    read_as: ReadAs | None = None


class ImportTexts(Command[ImportResult], frozen=True):
    """Import the texts that files beside images have now, as `ImportImages` does for a picture that is there already.

    `texts` by image; `read_as` none: as the text settings say. TooLarge: they exceed MAX_TEXT_BYTES_PER_IMPORT
    together.
    """

    dataset: str
    texts: Annotated[dict[ImageId, Text], Meta(min_length=1, max_length=MAX_TEXTS_PER_IMPORT)]
    read_as: ReadAs | None = None


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
    """Add and remove single tags; edits of different tags never conflict.

    A removed tag is rejected: no model adds it again. Withdrawing leaves a tag to the models.
    """

    image: ImageId
    add: Tags = ()
    remove: Tags = ()
    withdraw: Tags = ()


class EditMany(Command[EditManyResult], frozen=True):
    """Add, remove and withdraw tags of many images as `EditTags` does of one, in one commit.

    `as_of`: the sequence that a preview answered. Conflict: an image of the data set has changed since.
    """

    dataset: str
    selection: Selection
    add: EditedTags = ()
    remove: EditedTags = ()
    withdraw: EditedTags = ()
    as_of: Annotated[int, Meta(ge=0, le=2**53)] | None = None


class OrderTags(Command[ImageResult], frozen=True):
    """Set the order of an image's tags: these first, the others after them. None: the default order again."""

    image: ImageId
    tags: Tags = ()
    seen: int | None = None


class SetCaption(Command[ImageResult], frozen=True):
    """Write the caption, or remove it (none): the caption is then joined from the tags."""

    image: ImageId
    caption: Text | None
    seen: int | None = None


class SetThresholds(Command[DatasetResult], frozen=True):
    """Predictions above these probabilities become tags; `tags` have thresholds of their own."""

    dataset: str
    categories: dict[Literal["general", "character"], Probability]
    tags: Annotated[dict[Tag, Probability], Meta(max_length=1000)] = {}


class SetRules(Command[DatasetResult], frozen=True):
    """`deny`: tags that models never add to images of this data set."""

    dataset: str
    deny: Tags = ()


class SetTextSettings(Command[DatasetResult], frozen=True):
    """How training texts are written: replaces all text settings.

    `trigger`: of versions and jobs that have none of their own. `template`: the order of trigger, caption and tags, as
    in `contracts.training_text`. `read_as`: what texts are in imports that do not say so; what was imported before is
    not read again. Rejected: there is no such template, or a pattern of the style's `keep` is none.
    """

    dataset: str
    trigger: Trigger = ""
    template: int = 1
    style: TagStyle = DEFAULT_STYLE
    read_as: ReadAs = "auto"


class Undo(Command[UndoResult], frozen=True):
    """Make a commit of a data set, or all predictions of a tagging run on it, count no longer.

    A commit that imported images stands for its whole import. An undo can be undone itself.
    """

    dataset: str
    commit: int | None = None
    run: RunId | None = None


class ReadTexts(Command[ReadTextsResult], frozen=True):
    """Read the texts that came with images another way, as many as one commit has room for.

    What the earlier reading gave and nobody decided about since is withdrawn, what the new one says is asserted.
    `after`: images after this ordinal, in their order.
    """

    dataset: str
    selection: Selection
    read_as: ReadAs
    after: Annotated[int, Meta(ge=-1, le=2**32)] = -1


class FreezeVersion(Command[VersionResult], frozen=True):
    """Freeze the current content as a version. Unchanged content with the same trigger reuses the existing version.

    `trigger`: none = that of the data set, empty = no trigger.
    """

    dataset: str
    trigger: Trigger | None = None


class ReviewImages(Command[ReviewResult], frozen=True):
    """Mark images as reviewed, or as not reviewed. `dataset`: name or id."""

    dataset: str
    selection: Selection
    reviewed: bool = True


class SetRepeats(Command[RepeatsResult], frozen=True):
    """Set how often images are seen in an epoch. `dataset`: name or id."""

    dataset: str
    selection: Selection
    repeats: Repeats


DatasetCommand = union_in(__name__, Command)
