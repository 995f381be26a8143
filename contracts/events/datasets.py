"""Events of data sets: images, tags, captions, thresholds, versions."""

from contracts.definitions import union_in
from contracts.events.base import Category, Event, ReadAs, Sealed, Source, TextKind
from contracts.events.image_sets import ImageSetEvent, OneImageEvent
from contracts.ids import Digest, ImageId, RunId, VersionId
from contracts.tag_style import DEFAULT_STYLE, TagStyle
from contracts.wording import by_source, count, enumerated, listed, tag_list


class DatasetCreated(Event, frozen=True, tag="dataset.created"):
    name: str
    description: str = ""

    def describe(self) -> str:
        return f"Created data set {self.name!r}"


class DatasetRenamed(Event, frozen=True, tag="dataset.renamed"):
    name: str

    def describe(self) -> str:
        return f"Renamed the data set to {self.name!r}"


class DatasetRemoved(Event, frozen=True, tag="dataset.removed"):
    """No longer listed. Versions, jobs and LoRAs made from it stay."""

    def describe(self) -> str:
        return "Removed the data set"


class ImageAdded(OneImageEvent, frozen=True, tag="dataset.image_added"):
    """An image was imported. `ordinal` is dense within its data set and never reused.

    `source` = bytes as received; `picture` = sRGB, 8 bits, without metadata but for an orientation (the same blob where
    the source already is); `cut` = what was cut from a JPEG to make its picture: then there is no blob `source`, and
    picture and cut give its bytes (`contracts.jpeg_cut.rebuild`);
    `pixels` = digest of the canonical pixels, for finding duplicates; `dhash` = 64-bit difference hash in hex;
    `width` and `height` of the picture in pixels; `size` of the source in bytes.
    """

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
    cut: Digest | None = None

    def describe(self) -> str:
        return f"Added image {self.ordinal} ({self.format}, {self.width} x {self.height})"


class ImageRefused(Event, frozen=True, tag="dataset.image_refused"):
    """A file was skipped: `reason` is a stable code, `detail` a sentence without private text."""

    image_id: ImageId
    name: Sealed
    reason: str
    detail: str
    size: int

    def describe(self) -> str:
        return f"Skipped a file: {self.detail or self.reason}"


class ImagesRemoved(ImageSetEvent, frozen=True, tag="dataset.images_removed"):
    """These images are in no later version; their history and the versions that contain them stay."""

    def describe(self) -> str:
        return f"Removed {self.describe_images()}"


class ImageErased(OneImageEvent, frozen=True, tag="dataset.image_erased"):
    """An image's bytes and texts are destroyed everywhere; versions that contain it keep its ordinal and digest.

    The event is appended first. The deletion follows, and is resumed after every start until nothing is left.
    """

    image_id: ImageId

    def describe(self) -> str:
        return f"Permanently erased image {self.ordinal}"


class DatasetErased(Event, frozen=True, tag="dataset.erased"):
    """All images of the data set and the names of its skipped files are erased, and it is no longer listed."""

    def describe(self) -> str:
        return "Permanently erased the data set"


class TagsEdited(ImageSetEvent, frozen=True, tag="dataset.tags_edited"):
    """Decisions, the same for each of `images`. The latest decision on a tag holds, whatever models say.

    An asserted tag applies, a rejected one does not; a withdrawn decision leaves the tag to the models again.
    """

    asserted: tuple[str, ...] = ()
    rejected: tuple[str, ...] = ()
    withdrawn: tuple[str, ...] = ()
    source: Source = "person"

    def describe(self) -> str:
        images = self.describe_images()
        if self.asserted and not (self.rejected or self.withdrawn):
            return by_source(self.source, f"added {tag_list(self.asserted)} to {images}")
        parts = [
            *([f"added {tag_list(self.asserted)}"] if self.asserted else []),
            *([f"rejected {tag_list(self.rejected)}"] if self.rejected else []),
            *([f"withdrew the decision about {tag_list(self.withdrawn)}"] if self.withdrawn else []),
        ]
        if not parts:
            return by_source(self.source, f"left the tags of {images} unchanged")
        return by_source(self.source, f"{enumerated(parts)} on {images}")


class TagsOrdered(OneImageEvent, frozen=True, tag="dataset.tags_ordered"):
    """The order of one image's tags in captions: these first. Those not named follow in the default order."""

    tags: tuple[str, ...] = ()

    def describe(self) -> str:
        if not self.tags:
            return f"Reset the order of the tags of image {self.ordinal}"
        return f"Ordered the tags of image {self.ordinal}: {listed(self.tags)}"


class CaptionSet(OneImageEvent, frozen=True, tag="dataset.caption_set"):
    """A written caption; none = joined from the tags."""

    caption: Sealed | None
    source: Source = "person"

    def describe(self) -> str:
        if self.caption is None:
            return f"Cleared the caption of image {self.ordinal}"
        return by_source(self.source, f"set the caption of image {self.ordinal}")


class TextReceived(OneImageEvent, frozen=True, tag="dataset.text_received"):
    """The text that came with the file of an image, as received; what it says are other events of the commit.

    A later import of the same picture is compared with it, so that only what the file changed since is applied.
    """

    text: Sealed
    read_as: TextKind

    def describe(self) -> str:
        return f"Read the text beside the file of image {self.ordinal} as {_READ_AS[self.read_as]}"


_READ_AS = {"tags": "tags", "caption": "a caption"}


class ThresholdsSet(Event, frozen=True, tag="dataset.thresholds_set"):
    """Predictions above these probabilities become tags of the image, unless a person decided otherwise.

    `tags` have thresholds of their own, whatever their category. Replaces all thresholds before.
    """

    categories: dict[Category, float]
    tags: dict[str, float] = {}

    def describe(self) -> str:
        thresholds = (*self.categories.items(), *self.tags.items())
        above = ", ".join(f"{name} above {value:g}" for name, value in thresholds)
        return f"Set the auto-tag thresholds: {above or 'none'}"


class RulesSet(Event, frozen=True, tag="dataset.rules_set"):
    """`deny`: tags that predictions never add, whatever their probability. Replaces all rules before."""

    deny: tuple[str, ...] = ()

    def describe(self) -> str:
        return f"Denied models the {tag_list(self.deny)}" if self.deny else "Removed the tagging rules"


class TextSettingsSet(Event, frozen=True, tag="dataset.text_settings_set"):
    """How the training texts of the data set are written (`contracts.training_text`), those of later versions too.

    `trigger`: where a version or a job has none of its own. `style`: of tags. `read_as`: what texts beside pictures are
    in imports that do not say so. Replaces all text settings before.
    """

    trigger: str = ""
    template: int = 1
    style: TagStyle = DEFAULT_STYLE
    read_as: ReadAs = "auto"

    def describe(self) -> str:
        trigger = f"the trigger {self.trigger!r}" if self.trigger else "no trigger"
        style = self.style
        written = [
            f"words separated by {style.words}",
            *(["parentheses escaped"] if style.escape else []),
            *([f"{style.separator!r} between tags"] if style.separator != DEFAULT_STYLE.separator else []),
            *([f"imported texts read as {self.read_as}"] if self.read_as != "auto" else []),
        ]
        return f"Set the writing of training texts: {trigger}, template {self.template}, {', '.join(written)}"


class CommitsUndone(ImageSetEvent, frozen=True, tag="dataset.commits_undone"):
    """What these commits of the data set decided no longer counts, nor what these tagging runs predicted.

    `commits` by sequence. What was decided since stays: the latest decision among the commits that still count holds.
    Undoing an undo makes its commits count again. `images`: those that the commits are about. `summary`: what was
    undone, as a sentence.
    """

    commits: tuple[int, ...] = ()
    runs: tuple[RunId, ...] = ()
    summary: str = ""

    def describe(self) -> str:
        return f"Undid: {self.summary}" if self.summary else f"Undid {count(len(self.commits), 'commit')}"


class ImagesReviewed(ImageSetEvent, frozen=True, tag="dataset.images_reviewed"):
    """A person has looked at these images and is done with them, or (`reviewed` false) wants to look again."""

    reviewed: bool = True

    def describe(self) -> str:
        return f"Marked {self.describe_images()} as {'reviewed' if self.reviewed else 'not reviewed'}"


class RepeatsSet(ImageSetEvent, frozen=True, tag="dataset.repeats_set"):
    """How often these images are seen in an epoch, as kohya's `num_repeats`; 1 where it was never set."""

    repeats: int

    def describe(self) -> str:
        return f"Set the repeats of {self.describe_images()} to {self.repeats}"


class MaskSet(OneImageEvent, frozen=True, tag="dataset.mask_set"):
    """The mask of an image, or none: a PNG of one channel of 8 bits, upright and of the picture's size.

    White marks what is to be trained, black what is not (OneTrainer's convention).
    """

    mask: Digest | None

    def describe(self) -> str:
        return f"{'Removed' if self.mask is None else 'Set'} the mask of image {self.ordinal}"


class VersionFrozen(Event, frozen=True, tag="dataset.version_frozen"):
    """The immutable content a job trains on: `manifest` is a blob that lists `pages`, blobs with one line per image.

    `as_of` is the sequence of the log it was computed at: folding everything up to there yields the same manifest,
    without the images erased between there and this event. `captions_lost`: images that go with their tags, because the
    keys of their captions were given up.
    """

    version: int
    version_id: VersionId
    as_of: int
    images: int
    manifest: Digest
    pages: tuple[Digest, ...]
    trigger: str = ""
    captions_lost: int = 0

    def describe(self) -> str:
        lost = f", {self.captions_lost} of them without a lost caption" if self.captions_lost else ""
        return f"Froze version {self.version} with {count(self.images, 'image')}{lost}"


DatasetEvent = union_in(__name__, Event)
