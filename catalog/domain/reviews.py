"""The rules of reviewing: which images change their state. Pure: sets in, events out."""

from pyroaring import BitMap

from catalog.domain.image_sets import image_set
from contracts.events.base import Event
from contracts.events.datasets import ImagesReviewed


def review(selected: BitMap, reviewed: BitMap, *, as_reviewed: bool) -> list[Event]:
    """The event about those of the selected images that change; none if all are in that state."""
    changed = selected - reviewed if as_reviewed else selected & reviewed
    return [ImagesReviewed(images=image_set(changed), reviewed=as_reviewed)] if changed else []
