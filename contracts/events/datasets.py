"""Events of data sets: images, tags, captions, thresholds, versions."""

from contracts.events.base import Event, Ordinals, Sealed, Source
from contracts.ids import Digest, ImageId, VersionId


class DatasetCreated(Event, frozen=True, tag="dataset.created"):
    name: str
    description: str = ""


class DatasetRenamed(Event, frozen=True, tag="dataset.renamed"):
    name: str


class DatasetRemoved(Event, frozen=True, tag="dataset.removed"):
    """No longer listed. Versions, jobs and LoRAs made from it stay."""


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


class ImageRefused(Event, frozen=True, tag="dataset.image_refused"):
    """A file was skipped: `reason` is a stable code, `detail` a sentence without private text."""

    image_id: ImageId
    name: Sealed
    reason: str
    detail: str
    size: int


class ImagesRemoved(Event, frozen=True, tag="dataset.images_removed"):
    """These images are in no later version; their history and the versions that contain them stay."""

    images: Ordinals


class ImageErased(Event, frozen=True, tag="dataset.image_erased"):
    """An image's bytes and texts are destroyed everywhere; versions that contain it keep its ordinal and digest.

    The event is appended first. The deletion follows, and is resumed after every start until nothing is left.
    """

    ordinal: int
    image_id: ImageId


class DatasetErased(Event, frozen=True, tag="dataset.erased"):
    """All images of the data set and the names of its skipped files are erased, and it is no longer listed."""


class TagsEdited(Event, frozen=True, tag="dataset.tags_edited"):
    """Decisions, the same for each of `images`: asserted tags apply, rejected ones do not, whatever models say."""

    images: Ordinals
    asserted: tuple[str, ...] = ()
    rejected: tuple[str, ...] = ()
    source: Source = "person"


class CaptionSet(Event, frozen=True, tag="dataset.caption_set"):
    """A written caption; none = joined from the tags."""

    ordinal: int
    caption: Sealed | None
    source: Source = "person"


class ThresholdsSet(Event, frozen=True, tag="dataset.thresholds_set"):
    """Predictions above these probabilities become tags of the image, unless a person decided otherwise."""

    general: float
    character: float


class VersionFrozen(Event, frozen=True, tag="dataset.version_frozen"):
    """The immutable content a job trains on; `manifest` is a blob, one line an image (ordinal, picture, caption).

    `as_of` is the sequence of the log it was computed at: folding everything up to there yields the same manifest.
    """

    version: int
    version_id: VersionId
    as_of: int
    images: int
    manifest: Digest
    trigger: str = ""


DatasetEvent = (
    DatasetCreated
    | DatasetRenamed
    | DatasetRemoved
    | ImageAdded
    | ImageRefused
    | ImagesRemoved
    | ImageErased
    | DatasetErased
    | TagsEdited
    | CaptionSet
    | ThresholdsSet
    | VersionFrozen
)
