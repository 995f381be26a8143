"""The rules of images: tags, captions, removal and erasure. Pure: rows in, events out."""

from collections.abc import Sequence
from dataclasses import dataclass

from catalog.domain.datasets import refuse_if_in_use
from catalog.domain.image_sets import image_set
from contracts.commands.datasets import EditTags, EraseImage, OrderTags, RemoveImage, ReplaceTags, SetCaption
from contracts.errors import Rejected, StaleVersion
from contracts.events.base import Event, Sealed
from contracts.events.datasets import CaptionSet, ImageErased, ImagesRemoved, TagsEdited, TagsOrdered
from contracts.sealed import CAPTION, seal
from contracts.tags import canonicalize, diff


@dataclass(frozen=True, kw_only=True)
class ImageState:
    """What commands on an image are decided from; what the command at hand does not need is left at its default.

    `added` and `etag` are the sequences of its addition and its last change, `caption_changed` that of its caption.
    """

    ordinal: int = 0
    erased: bool = False
    added: int = 0
    etag: int = 0
    base: Sequence[str] = ()
    """The tags that the client saw."""
    asserted: frozenset[str] = frozenset()
    rejected: frozenset[str] = frozenset()
    predicted: frozenset[str] = frozenset()
    """The tags that models claim, whatever was decided."""
    order: Sequence[str] = ()
    caption: Sealed | None = None
    caption_changed: int = 0
    key: bytes = b""
    """Seals its texts."""
    active_jobs: Sequence[str] = ()


ImageChange = RemoveImage | EraseImage | ReplaceTags | EditTags | OrderTags | SetCaption


def decide(image: ImageState, command: ImageChange) -> list[Event]:
    """The events that a command causes in the data set of an image; none if nothing changes."""
    match command:
        case RemoveImage():
            return [ImagesRemoved(images=image_set([image.ordinal]))]
        case EraseImage(image=image_id):
            if image.erased:
                return []
            refuse_if_in_use(image.active_jobs)
            return [ImageErased(ordinal=image.ordinal, image_id=image_id)]
        case ReplaceTags(tags=tags, seen=seen):
            check_if_match(image, seen)
            # Three-way merge: what the client changed in the tags it saw, applied to the current ones.
            edit = diff(image.base, [canonicalize(tag) for tag in tags])
            remove = [tag for tag in edit.remove if tag in image.predicted]
            return edit_tags(image, add=edit.add, remove=remove, withdraw=[t for t in edit.remove if t not in remove])
        case EditTags(add=add, remove=remove, withdraw=withdraw):
            return edit_tags(image, add=add, remove=remove, withdraw=withdraw)
        case OrderTags(tags=tags, seen=seen):
            check_if_match(image, seen)
            ordered = tuple(dict.fromkeys(canonicalize(tag) for tag in tags))
            return [] if ordered == tuple(image.order) else [TagsOrdered(ordinal=image.ordinal, tags=ordered)]
        case SetCaption(caption=caption, seen=seen):
            check_if_match(image, seen)
            return _set_caption(image, caption, seen)


def check_if_match(image: ImageState, seen: int | None) -> None:
    """StaleVersion unless the If-Match sequence lies between the image's addition and its current ETag."""
    if seen is not None and not image.added <= seen <= image.etag:
        raise StaleVersion("the image never had that version", current=image.etag)


def edit_tags(
    image: ImageState, *, add: Sequence[str] = (), remove: Sequence[str] = (), withdraw: Sequence[str] = ()
) -> list[Event]:
    """The event with the new decisions, none if all were made before. Rejected: a tag is in two of the lists."""
    to_add, to_remove, to_withdraw = (list(map(canonicalize, tags)) for tags in (add, remove, withdraw))
    twice = set(to_add) & set(to_remove) | set(to_withdraw) & {*to_add, *to_remove}
    if twice:
        raise Rejected(f"one edit cannot both add and remove {', '.join(sorted(twice))}")
    edited = TagsEdited(
        images=image_set([image.ordinal]),
        asserted=tuple(tag for tag in dict.fromkeys(to_add) if tag not in image.asserted),
        rejected=tuple(tag for tag in dict.fromkeys(to_remove) if tag not in image.rejected),
        withdrawn=tuple(tag for tag in dict.fromkeys(to_withdraw) if tag in image.asserted | image.rejected),
    )
    return [edited] if edited.asserted or edited.rejected or edited.withdrawn else []


def _set_caption(image: ImageState, text: str | None, seen: int | None) -> list[Event]:
    """Captions do not merge: StaleVersion if the caption changed after the client saw it.

    Only the caption counts: tags that changed since are no conflict.
    """
    caption = None if text is None else seal(image.key, text, CAPTION)
    if caption == image.caption:
        return []
    if seen is not None and image.caption_changed > seen:
        raise StaleVersion("somebody else has changed the caption since you saw it", current=image.caption_changed)
    return [CaptionSet(ordinal=image.ordinal, caption=caption)]
