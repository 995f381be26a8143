"""The numbers of images of a data set: all of them, those with tags, those with a caption."""

import msgspec
from pyroaring import BitMap

from catalog.database import Connection
from catalog.views import images, sets, tag_digits
from contracts.ids import ImageId


class ImageCounts(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers of images of a data set, and the first of them."""

    images: int
    tagged: int
    captioned: int
    cover: ImageId | None


def count_images(connection: Connection, dataset_id: str) -> ImageCounts:
    live = sets.load(connection, dataset_id, "live")
    return ImageCounts(
        images=len(live),
        tagged=len(tag_digits.with_tags(tag_digits.load_digits(connection, dataset_id)) & live),
        captioned=len(sets.load(connection, dataset_id, "captioned") & live),
        cover=cover(connection, dataset_id, live),
    )


def cover(connection: Connection, dataset_id: str, among: BitMap) -> ImageId | None:
    """The first of these images."""
    return next(iter(images.ids_by_ordinal(connection, dataset_id, among[:1]).values()), None)
