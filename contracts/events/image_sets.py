"""The base class of events about sets of images of a data set."""

from contracts.events.base import Event, Ordinals
from contracts.wording import image_count


class ImageSetEvent(Event, frozen=True, kw_only=True):
    """An event about a set of images of a data set: a serialized bitmap of their ordinals."""

    images: Ordinals

    def describe_images(self) -> str:
        return image_count(self.images)
