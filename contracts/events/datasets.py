"""Events of data sets: images, tags, captions, thresholds, versions."""

from contracts.definitions import union_in
from contracts.events.base import Event, Ordinals, Sealed, Source
from contracts.ids import Digest, ImageId, VersionId
from contracts.wording import by_source, count, image_count, tag_list


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


class ImageAdded(Event, frozen=True, tag="dataset.image_added"):
    """An image was imported. `ordinal` is dense within its data set and never reused.

    `source` = bytes as received; `picture` = upright, sRGB, 8 bits (the same blob where the source already is);
    `pixels` = digest of the canonical pixels, for finding duplicates; `dhash` = 64-bit difference hash in hex;
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


class ImagesRemoved(Event, frozen=True, tag="dataset.images_removed"):
    """These images are in no later version; their history and the versions that contain them stay."""

    images: Ordinals

    def describe(self) -> str:
        return f"Removed {image_count(self.images)}"


class ImageErased(Event, frozen=True, tag="dataset.image_erased"):
    """An image's bytes and texts are destroyed everywhere; versions that contain it keep its ordinal and digest.

    The event is appended first. The deletion follows, and is resumed after every start until nothing is left.
    """

    ordinal: int
    image_id: ImageId

    def describe(self) -> str:
        return f"Permanently erased image {self.ordinal}"


class DatasetErased(Event, frozen=True, tag="dataset.erased"):
    """All images of the data set and the names of its skipped files are erased, and it is no longer listed."""

    def describe(self) -> str:
        return "Permanently erased the data set"


class TagsEdited(Event, frozen=True, tag="dataset.tags_edited"):
    """Decisions, the same for each of `images`: asserted tags apply, rejected ones do not, whatever models say."""

    images: Ordinals
    asserted: tuple[str, ...] = ()
    rejected: tuple[str, ...] = ()
    source: Source = "person"

    def describe(self) -> str:
        images, added, rejected = image_count(self.images), tag_list(self.asserted), tag_list(self.rejected)
        match added, rejected:
            case "", "":
                return by_source(self.source, f"left the tags of {images} unchanged")
            case added, "":
                return by_source(self.source, f"added {added} to {images}")
            case "", rejected:
                return by_source(self.source, f"rejected {rejected} on {images}")
            case _:
                return by_source(self.source, f"added {added} and rejected {rejected} on {images}")


class CaptionSet(Event, frozen=True, tag="dataset.caption_set"):
    """A written caption; none = joined from the tags."""

    ordinal: int
    caption: Sealed | None
    source: Source = "person"

    def describe(self) -> str:
        if self.caption is None:
            return f"Cleared the caption of image {self.ordinal}"
        return by_source(self.source, f"set the caption of image {self.ordinal}")


class ThresholdsSet(Event, frozen=True, tag="dataset.thresholds_set"):
    """Predictions above these probabilities become tags of the image, unless a person decided otherwise."""

    general: float
    character: float

    def describe(self) -> str:
        return f"Set the auto-tag thresholds: general above {self.general:g}, character above {self.character:g}"


class VersionFrozen(Event, frozen=True, tag="dataset.version_frozen"):
    """The immutable content a job trains on: `manifest` is a blob that lists `pages`, blobs with one line per image.

    `as_of` is the sequence of the log it was computed at: folding everything up to there yields the same manifest,
    without the images erased between there and this event.
    """

    version: int
    version_id: VersionId
    as_of: int
    images: int
    manifest: Digest
    pages: tuple[Digest, ...]
    trigger: str = ""

    def describe(self) -> str:
        return f"Froze version {self.version} with {count(self.images, 'image')}"


DatasetEvent = union_in(__name__, Event)
