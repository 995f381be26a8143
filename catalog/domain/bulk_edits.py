"""The rules of edits of many images: whose decisions change. Pure: sets in, events out."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pyroaring import BitMap

from catalog.domain.edits import Choice
from catalog.domain.image_sets import image_set
from contracts.errors import Conflict, Rejected
from contracts.events.base import Event
from contracts.events.datasets import TagsEdited
from contracts.wording import count


@dataclass(frozen=True)
class Decided:
    """The images with a decision about a tag that holds, whoever made it."""

    asserted: BitMap = field(default_factory=BitMap)
    rejected: BitMap = field(default_factory=BitMap)


@dataclass(frozen=True)
class TagChange:
    """The images for which a decision about a tag is new."""

    tag: str
    choice: Choice
    images: BitMap


def refuse_if_changed(*, as_of: int | None, now: int, changed: int) -> None:
    """`changed`: images of the data set that changed after `as_of`. Conflict: some did."""
    if as_of is not None and as_of > now:
        raise Rejected(f"the log ends at {now}; it has not reached {as_of} yet", head=now)
    if changed:
        raise Conflict(f"{count(changed, 'image')} changed since the preview; preview the edit again", current=now)


def tag_changes(selected: BitMap, requested: Mapping[str, Choice], decided: Mapping[str, Decided]) -> list[TagChange]:
    """What is decided anew about each tag; a tag that models give is decided like one that an image lacks.

    Rejected: no tag is named.
    """
    if not requested:
        raise Rejected("an edit names at least one tag")
    return [
        TagChange(tag, choice, _changing(selected, choice, decided.get(tag, Decided())))
        for tag, choice in requested.items()
    ]


def _changing(selected: BitMap, choice: Choice, decided: Decided) -> BitMap:
    match choice:
        case "asserted":
            return selected - decided.asserted
        case "rejected":
            return selected - decided.rejected
        case "withdrawn":
            return selected & (decided.asserted | decided.rejected)


def images_of(changes: Iterable[TagChange]) -> BitMap:
    """The images with a new decision about any tag."""
    return BitMap.union(BitMap(), *(change.images for change in changes))


def edit_events(changes: Sequence[TagChange]) -> list[Event]:
    """One event for each set of images: tags that are decided about the same images are in the same."""
    by_images: list[tuple[BitMap, list[TagChange]]] = []
    for change in (change for change in changes if change.images):
        same = next((some for images, some in by_images if images == change.images), None)
        if same is None:
            by_images.append((change.images, [change]))
        else:
            same.append(change)
    return [
        TagsEdited(
            images=image_set(images),
            asserted=tuple(change.tag for change in some if change.choice == "asserted"),
            rejected=tuple(change.tag for change in some if change.choice == "rejected"),
            withdrawn=tuple(change.tag for change in some if change.choice == "withdrawn"),
        )
        for images, some in by_images
    ]
