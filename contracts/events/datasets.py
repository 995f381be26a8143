"""Facts of data sets: images, tags, captions, thresholds, versions."""

from contracts.events.facts import Fact, Ordinals, Sealed, Source
from contracts.ids import Digest, ImageId, VersionId


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


class ImageErased(Fact, frozen=True, tag="dataset.image_erased"):
    """Its bytes and its words are gone for good, wherever they were; versions that name it keep ordinal and digest.

    Said first: what it says is then made so, and again after every start, until nothing is left.
    """

    ordinal: int
    image_id: ImageId


class DatasetErased(Fact, frozen=True, tag="dataset.erased"):
    """The same of all its images, and of the names of files that were refused. It is not listed any more."""


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
    | ImageErased
    | DatasetErased
    | TagsEdited
    | CaptionSet
    | ThresholdsSet
    | VersionFrozen
)
