"""The index that filters and sort orders are computed from, over the tables of the other views.

Sets come from the bitmaps of `tag_sets` and `sets`, numbers from `columns`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from catalog.database import Connection
from catalog.domain.selection import Column, Numbers, evaluate, to_array, to_set
from catalog.rows import EPOCH, MICROSECOND, fetch_value, json_array
from catalog.views import columns, prediction_parts, sets, tag_digits, tag_sets
from catalog.views.prediction_parts import ReadPart
from contracts.errors import NotFound, Rejected
from contracts.filter_text import canonical
from contracts.filters import AddedSince, AllImages, Matching, Selection, TagSource, TextField, TheseImages
from contracts.ids import ImageId
from contracts.wording import count

DHASH = "SELECT dhash FROM image WHERE id = ?"
NAME_SEQUENCE = "SELECT name_sequence FROM dataset WHERE id = ?"
ORDINALS = """
SELECT id, ordinal FROM image WHERE dataset_id = ? AND removed_sequence = 0
    AND id IN (SELECT value FROM json_each(?))
"""

MAX_NAMED = 10


class TextSearch(Protocol):
    """The plain names and captions of a data set."""

    def search(self, text: str, field: TextField, images: BitMap) -> BitMap: ...


@dataclass(frozen=True)
class InMemory:
    """What is not looked up in tables. `texts`: needed where names or captions are searched."""

    texts: TextSearch | None = None
    read_part: ReadPart = prediction_parts.read_current


class DatasetIndex:
    """The `ImageIndex` of one data set on one snapshot."""

    def __init__(self, connection: Connection, dataset_id: str, memory: InMemory = InMemory()) -> None:
        self._connection, self._dataset_id, self._memory = connection, dataset_id, memory

    def universe(self) -> BitMap:
        return sets.load(self._connection, self._dataset_id, "live")

    def tagged(self, tag: str) -> BitMap:
        return self._of_tag(tag, "tagged")

    def with_tags(self) -> BitMap:
        return tag_digits.with_tags(tag_digits.load_digits(self._connection, self._dataset_id))

    def rejected(self, tag: str) -> BitMap:
        return self._of_tag(tag, "rejected")

    def from_source(self, source: TagSource, tag: str | None) -> BitMap:
        return tag_sets.from_source(self._connection, self._dataset_id, source, tag)

    def captioned(self) -> BitMap:
        return sets.load(self._connection, self._dataset_id, "captioned")

    def reviewed(self) -> BitMap:
        return sets.load(self._connection, self._dataset_id, "reviewed")

    def column(self, name: Column, images: BitMap) -> Numbers:
        match name:
            case "tags":
                return tag_digits.counts(tag_digits.load_digits(self._connection, self._dataset_id), images)
            case "changed":  # a new name of the data set is a change of each image
                named = int(fetch_value(self._connection, NAME_SEQUENCE, (self._dataset_id,)) or 0)
                return np.maximum(columns.load(self._connection, self._dataset_id, name, images), named)
            case "dhash":
                return columns.load(self._connection, self._dataset_id, name, images).view(np.uint64)
            case _:
                return columns.load(self._connection, self._dataset_id, name, images)

    def confidence(self, tag: str, images: BitMap) -> NDArray[np.float64]:
        return prediction_parts.confidences(self._connection, self._dataset_id, tag, images, self._memory.read_part)

    def containing(self, text: str, field: TextField, images: BitMap) -> BitMap:
        if self._memory.texts is None:
            raise RuntimeError("this index was made without texts")
        return self._memory.texts.search(text, field, images)

    def added_since(self, moment: AddedSince) -> BitMap:
        images = self.universe()
        if moment.time is None:
            later = columns.load(self._connection, self._dataset_id, "added", images) > (moment.sequence or 0)
        else:
            at = (moment.time - EPOCH) // MICROSECOND
            later = columns.load(self._connection, self._dataset_id, "added_at", images) >= at
        return to_set(to_array(images)[later])

    def dhash_of(self, image: ImageId) -> int:
        found = fetch_value(self._connection, DHASH, (image,))
        if found is None:
            raise NotFound(f"there is no image {image!r}")
        return int(found, 16)

    def _of_tag(self, tag: str, kind: str) -> BitMap:
        return tag_sets.of_tag(self._connection, self._dataset_id, tag, kind).get(self._dataset_id, BitMap())


def select(connection: Connection, dataset_id: str, selection: Selection, memory: InMemory = InMemory()) -> BitMap:
    """The live images of a selection. contracts.errors.Rejected: some of those named are not in the data set.

    NotFound: the filter names an image that does not exist. `memory`: with texts if the filter searches these.
    """
    index = DatasetIndex(connection, dataset_id, memory)
    match selection:
        case AllImages():
            return index.universe()
        case Matching(filter=filter_):
            return evaluate(canonical(filter_), index)
        case TheseImages(ids=ids):
            found = _ordinals_of(connection, dataset_id, ids)
            missing = [image for image in ids if image not in found]
            if missing:
                raise Rejected(
                    f"the selection names {count(len(missing), 'image')} that the data set does not have, "
                    f"the first is {missing[0]!r}",
                    images=missing[:MAX_NAMED],
                )
            return BitMap(found.values())


def _ordinals_of(connection: Connection, dataset_id: str, images: Iterable[ImageId]) -> dict[ImageId, int]:
    """The ordinals of those of these images that are live in the data set."""
    rows = connection.execute(ORDINALS, (dataset_id, json_array(images)))
    return {row["id"]: row["ordinal"] for row in rows}
