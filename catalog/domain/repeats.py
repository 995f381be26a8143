"""The rules of repeats: which images change theirs. Pure: numbers in, events out."""

from collections.abc import Iterable

from catalog.domain.image_sets import image_set
from contracts.events.base import Event
from contracts.events.datasets import RepeatsSet


def set_repeats(current: Iterable[tuple[int, int]], repeats: int) -> list[Event]:
    """The event about those of the selected images that change; none if all have these repeats.

    `current`: ordinal and repeats of each selected image.
    """
    changed = [ordinal for ordinal, before in current if before != repeats]
    return [RepeatsSet(images=image_set(changed), repeats=repeats)] if changed else []
