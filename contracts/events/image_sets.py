"""Sets of images in events, and the base class of the events that have one."""

import msgspec

from contracts.events.base import Event
from contracts.ids import Digest
from contracts.wording import count


class ImageSet(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """`count` images of a data set: a Roaring bitmap of their ordinals, or the digest of the blob that holds it.

    In the log a set has one of the two; what the catalog reads there has the bitmap as well.
    """

    count: int
    bitmap: bytes = b""
    blob: Digest | None = None


class OneImageEvent(Event, frozen=True):
    """An event about one image of a data set, by its number there; the first field, as it stands in the log."""

    ordinal: int


class ImageSetEvent(Event, frozen=True, kw_only=True):
    """An event about a set of images of a data set."""

    images: ImageSet

    def describe_images(self) -> str:
        return count(self.images.count, "image")
