"""The index that filters and sort orders are computed from, over the tables of the other views.

Sets come from the bitmaps of `tags` and `sets`. Numbers, predictions and the sources of decisions are read row by row,
as far as the candidates need them.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import islice
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from catalog.database import MAX_SEQUENCE, Connection
from catalog.domain.selection import Column, Numbers, evaluate, to_array
from catalog.rows import fetch_value
from catalog.views import decisions, predictions, sets
from catalog.views.images import SELECT_IMAGE
from catalog.views.sets import json_array
from contracts.errors import NotFound, Rejected
from contracts.filter_text import canonical
from contracts.filters import AddedSince, AllImages, Matching, Selection, TagSource, TextField, TheseImages
from contracts.ids import ImageId
from contracts.wording import count

TAG = "SELECT tagged, decided FROM tag WHERE dataset_id = ? AND tag = ?"
TAGS = "SELECT tagged, decided FROM tag WHERE dataset_id = ?"
NUMBERS = "SELECT ordinal, {column} FROM image WHERE dataset_id = ?"
CHANGED = f"SELECT ordinal, etag FROM ({SELECT_IMAGE}) WHERE dataset_id = ?"  # noqa: S608 - constants
ADDED = "SELECT ordinal, added_sequence, created_at FROM image WHERE dataset_id = ?"
AMONG = " AND ordinal IN (SELECT value FROM json_each(?))"
DHASH = "SELECT dhash FROM image WHERE id = ?"
DECISIONS_ON_TAG = """
SELECT ordinal, source, instr(rejected, :tag) = 0 AS asserted FROM decision
WHERE dataset_id = :dataset AND (instr(asserted, :tag) OR instr(rejected, :tag))
ORDER BY ordinal, sequence, event_index
"""
PREDICTED = """
SELECT DISTINCT ordinal FROM prediction WHERE dataset_id = ? AND instr(predictions, ?) ORDER BY ordinal
"""
ORDINALS = """
SELECT id, ordinal FROM image WHERE dataset_id = ? AND removed_sequence = 0
    AND id IN (SELECT value FROM json_each(?))
"""

FEW = 2_000
"""Up to so many images are looked up one by one; for more the whole table is read."""
SLICE = 1_000
MAX_NAMED = 10
_COLUMNS = {"width": "width", "height": "height", "bytes": "size", "added": "added_sequence"}


class TextSearch(Protocol):
    """The plain names and captions of a data set."""

    def search(self, text: str, field: TextField, images: BitMap) -> BitMap: ...


class DatasetIndex:
    """The `ImageIndex` of one data set on one snapshot. `texts`: needed where names or captions are searched."""

    def __init__(self, connection: Connection, dataset_id: str, texts: TextSearch | None = None) -> None:
        self._connection, self._dataset_id, self._texts = connection, dataset_id, texts

    def universe(self) -> BitMap:
        return sets.load(self._connection, self._dataset_id, "live")

    def tagged(self, tag: str) -> BitMap:
        return self._tag(tag)[0]

    def with_tags(self) -> BitMap:
        return sets.load(self._connection, self._dataset_id, "tagged")

    def rejected(self, tag: str) -> BitMap:
        """Those with a decision on the tag that do not have it."""
        tagged, decided = self._tag(tag)
        return decided - tagged

    def from_source(self, source: TagSource, tag: str | None) -> BitMap:
        if source == "model":
            rows = self._tags() if tag is None else iter([self._tag(tag)])
            return BitMap.union(BitMap(), *(tagged - decided for tagged, decided in rows))
        if tag is not None:
            latest = self._latest_decisions(tag)
            asserted = BitMap([at for at, found in latest.items() if found == source])
            return asserted & self.tagged(tag)
        return BitMap(self._with_any_tag_from(source))

    def captioned(self) -> BitMap:
        return sets.load(self._connection, self._dataset_id, "captioned")

    def reviewed(self) -> BitMap:
        return sets.load(self._connection, self._dataset_id, "reviewed")

    def column(self, name: Column, images: BitMap) -> Numbers:
        match name:
            case "tags":
                return self._tag_counts(images)
            case "changed":
                return self._integers(CHANGED, images)
            case "dhash":
                hashes = np.zeros(images.max() + 1 if images else 0, dtype=np.uint64)
                for ordinal, text in self._rows(NUMBERS.format(column="dhash"), images):
                    hashes[ordinal] = int(text, 16)
                return hashes[to_array(images)]
            case _:
                return self._integers(NUMBERS.format(column=_COLUMNS[name]), images)

    def confidence(self, tag: str, images: BitMap) -> NDArray[np.float64]:
        quoted = b'"tag":' + msgspec.json.encode(tag)
        rows = self._connection.execute(PREDICTED, (self._dataset_id, quoted))
        ordinals = iter(BitMap([ordinal for (ordinal,) in rows]) & images)
        found: dict[int, float] = {}
        while some := list(islice(ordinals, SLICE)):
            current = predictions.load_current(self._connection, self._dataset_id, json_array(some), MAX_SEQUENCE)
            for ordinal, models in current.items():
                given = (one.probability for model in models for one in model.predictions if one.tag == tag)
                found[ordinal] = max(given, default=0.0)
        return np.fromiter((found.get(at, 0.0) for at in images), dtype=np.float64, count=len(images))

    def containing(self, text: str, field: TextField, images: BitMap) -> BitMap:
        if self._texts is None:
            raise RuntimeError("this index was made without texts")
        return self._texts.search(text, field, images)

    def added_since(self, moment: AddedSince) -> BitMap:
        rows = self._connection.execute(ADDED, (self._dataset_id,))
        if moment.time is None:
            return BitMap([ordinal for ordinal, sequence, _ in rows if sequence > (moment.sequence or 0)])
        return BitMap([ordinal for ordinal, _, at in rows if datetime.fromisoformat(at) >= moment.time])

    def dhash_of(self, image: ImageId) -> int:
        found = fetch_value(self._connection, DHASH, (image,))
        if found is None:
            raise NotFound(f"there is no image {image!r}")
        return int(found, 16)

    def _tag(self, tag: str) -> tuple[BitMap, BitMap]:
        """The images that have the tag, and those with a decision on it."""
        row = self._connection.execute(TAG, (self._dataset_id, tag)).fetchone()
        return (BitMap(), BitMap()) if row is None else (BitMap.deserialize(row[0]), BitMap.deserialize(row[1]))

    def _tags(self) -> Iterator[tuple[BitMap, BitMap]]:
        for tagged, decided in self._connection.execute(TAGS, (self._dataset_id,)):
            yield BitMap.deserialize(tagged), BitMap.deserialize(decided)

    def _latest_decisions(self, tag: str) -> dict[int, str]:
        """The source of the latest decision on the tag, of the images where it is asserted."""
        parameters = {"dataset": self._dataset_id, "tag": msgspec.json.encode(tag)}
        latest = {row["ordinal"]: row for row in self._connection.execute(DECISIONS_ON_TAG, parameters)}
        return {ordinal: row["source"] for ordinal, row in latest.items() if row["asserted"]}

    def _with_any_tag_from(self, source: TagSource) -> Iterator[int]:
        ordinals = iter(self.with_tags())
        while some := list(islice(ordinals, SLICE)):
            for ordinal, found in decisions.effective_tags(self._connection, self._dataset_id, some).items():
                if any(tag.source == source for tag in found.tags):
                    yield ordinal

    def _tag_counts(self, images: BitMap) -> NDArray[np.int64]:
        counts = np.zeros(images.max() + 1 if images else 0, dtype=np.int64)
        for tagged, _ in self._tags():
            counts[to_array(tagged & images)] += 1
        return counts[to_array(images)]

    def _integers(self, query: str, images: BitMap) -> NDArray[np.int64]:
        """The second column of a query, in the order of ordinals."""
        by_ordinal = np.zeros(images.max() + 1 if images else 0, dtype=np.int64)
        for ordinal, value in self._rows(query, images):
            by_ordinal[ordinal] = value
        return by_ordinal[to_array(images)]

    def _rows(self, query: str, images: BitMap) -> Iterator[tuple[int, Any]]:
        """The rows of a query (ordinal, value) that are about these images."""
        if len(images) <= FEW:
            yield from self._connection.execute(query + AMONG, (self._dataset_id, json_array(images)))
        else:
            rows = self._connection.execute(query, (self._dataset_id,))
            yield from (row for row in rows if row[0] in images)


def select(connection: Connection, dataset_id: str, selection: Selection, texts: TextSearch | None = None) -> BitMap:
    """The live images of a selection. contracts.errors.Rejected: some of those named are not in the data set.

    NotFound: the filter names an image that does not exist. `texts`: needed if the filter searches names or captions.
    """
    index = DatasetIndex(connection, dataset_id, texts)
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
