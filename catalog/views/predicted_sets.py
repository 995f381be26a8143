"""What other predictions change of the sets of tags: which images have a tag at all, and which have it from a model.

Apart from `tag_sets`, because nearly all tags of a data set change then: as few operations for each as there can be.
"""

from collections import defaultdict
from collections.abc import Sequence

from pyroaring import BitMap

from catalog.database import Connection
from catalog.views.bitmaps import serialize
from catalog.views.tag_sets import COUNTS, DECIDED, LOAD, NONE, TagChanges, live_images, rows_of

Passing = tuple[int, BitMap, BitMap | None]
"""A tag, the images that predictions of it pass for, and those that they no longer pass for; None: all others."""
Stored = dict[str, BitMap]
"""The sets of a tag, by kind."""


def find_changes(connection: Connection, dataset_id: str, some: Sequence[Passing]) -> TagChanges:
    """What is to be written of these tags; nothing of a removed data set, which has no tags any more."""
    found, live, tags = TagChanges(), live_images(connection, dataset_id), [tag for tag, _, _ in some]
    if live is None:
        return found
    stored, counts = _load(connection, dataset_id, tags), dict(rows_of(connection, COUNTS, dataset_id, tags))
    for tag, passing, others in some:
        sets = stored[tag]
        predicted = sets.get("predicted", NONE)
        gained = passing - predicted
        lost = predicted - passing if others is None else predicted & others
        if not gained and not lost:
            continue
        predicted = (predicted | gained) - lost
        _store(found, dataset_id, tag, "predicted", predicted)
        tagged = sets.get("tagged", NONE)
        for decided in filter(None, map(sets.get, DECIDED)):
            gained, lost = gained - decided, lost - decided
        if gained or lost:
            tagged = (tagged | gained) - lost
            _store(found, dataset_id, tag, "tagged", tagged)
            found.by_source["any"].append((gained, lost))
            found.by_source["model"].append((gained, lost))
        if predicted or tagged or not sets.keys() <= {"predicted", "tagged"}:
            found.set_count(dataset_id, tag, counts.get(tag), tagged.intersection_cardinality(live))
        else:
            found.unused.append((dataset_id, tag))
    return found


def _load(connection: Connection, dataset_id: str, tags: Sequence[int]) -> defaultdict[int, Stored]:
    found: defaultdict[int, Stored] = defaultdict(dict)
    before, images = b"", NONE
    for tag, kind, serialized in rows_of(connection, LOAD, dataset_id, tags):
        if serialized != before:  # often all sets of a tag are the same
            before, images = serialized, BitMap.deserialize(serialized)
        found[tag][kind] = images
    return found


def _store(found: TagChanges, dataset_id: str, tag: int, kind: str, images: BitMap) -> None:
    """An empty set has no row."""
    if images:
        found.saved.append((dataset_id, tag, kind, serialize(images)))
    else:
        found.deleted.append((dataset_id, tag, kind))
