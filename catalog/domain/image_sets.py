"""Sets of images of events: as bitmaps of ordinals, and which of them lie in blobs. Pure.

A set of an event that was read from the log may lie in a blob; before anything uses it, `with_bitmaps` adds the bitmap.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence

import msgspec
from pyroaring import BitMap

from contracts.aggregates import REGISTRY, AnyEvent
from contracts.commits import RecordedCommit
from contracts.errors import LogDamaged
from contracts.events.image_sets import ImageSet, ImageSetEvent
from contracts.ids import Digest

SET_EVENTS: tuple[type[ImageSetEvent], ...] = tuple(
    event for kind in REGISTRY.kinds for event in kind.event_types if issubclass(event, ImageSetEvent)
)
"""The types of events that have a set of images."""
MAX_SET_BYTES = 8 * 1024
"""Maximum size of a bitmap in an event; a larger one lies in a blob."""
MAX_COMMIT_SET_BYTES = 64 * 1024
"""Maximum size of all bitmaps in the events of a commit; where they are larger together, all lie in blobs."""


def image_set(ordinals: Iterable[int]) -> ImageSet:
    """The set as it is in an event."""
    images = BitMap(ordinals)
    images.run_optimize()
    return ImageSet(count=len(images), bitmap=bytes(images.serialize()))


EMPTY = image_set(())
"""Of no images."""


def bitmap_of(images: ImageSet) -> BitMap:
    """The ordinals of a set of an event. LogDamaged: it is none, or lies in a blob that nobody has read."""
    try:
        return BitMap.deserialize(images.bitmap)
    except (ValueError, IndexError) as error:
        unread = f" (blob {images.blob})" if images.blob else ""
        raise LogDamaged(f"an event has a set of images that cannot be read{unread}") from error


def with_blobs(events: Sequence[AnyEvent]) -> tuple[list[AnyEvent], dict[Digest, bytes]]:
    """The events of a commit as they are recorded, and the blobs that they name, which must be stored before."""
    sizes = [len(event.images.bitmap) for event in events if isinstance(event, ImageSetEvent)]
    limit = 0 if sum(sizes) > MAX_COMMIT_SET_BYTES else MAX_SET_BYTES
    blobs: dict[Digest, bytes] = {}
    recorded: list[AnyEvent] = []
    for event in events:
        if isinstance(event, ImageSetEvent) and len(event.images.bitmap) > limit:
            digest = Digest(hashlib.sha256(event.images.bitmap).hexdigest())
            blobs[digest] = event.images.bitmap
            images = ImageSet(count=event.images.count, blob=digest)
            recorded.append(msgspec.structs.replace(event, images=images))
        else:
            recorded.append(event)
    return recorded, blobs


def unread_blobs(recorded: RecordedCommit) -> set[Digest]:
    """The blobs with sets of images that a commit names and whose bitmaps it lacks."""
    sets = (event.images for event in recorded.commit.events if isinstance(event, ImageSetEvent))
    return {images.blob for images in sets if images.blob is not None and not images.bitmap}


def with_bitmaps(recorded: RecordedCommit, bitmap: Callable[[Digest], bytes]) -> RecordedCommit:
    """The commit with the bitmaps of all its sets of images; `bitmap`: the content of a blob."""
    if not unread_blobs(recorded):
        return recorded
    events = tuple(_with_bitmap(event, bitmap) for event in recorded.commit.events)
    return msgspec.structs.replace(recorded, commit=msgspec.structs.replace(recorded.commit, events=events))


def _with_bitmap(event: AnyEvent, bitmap: Callable[[Digest], bytes]) -> AnyEvent:
    if not isinstance(event, ImageSetEvent) or event.images.blob is None or event.images.bitmap:
        return event
    images = msgspec.structs.replace(event.images, bitmap=bitmap(event.images.blob))
    return msgspec.structs.replace(event, images=images)
