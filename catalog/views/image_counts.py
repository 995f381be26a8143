"""The numbers of images of a data set: all of them, those with tags, those with a caption."""

import msgspec

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
        cover=images.first_image(connection, dataset_id),
    )
