"""The index that filters and sort orders are computed from, over the tables of the other views.

Sets come from the bitmaps of `tag_sets` and `sets`, numbers from columns of rows as arrays.
"""

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from itertools import islice
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from catalog.database import Connection
from catalog.domain.selection import Column, Numbers, evaluate, to_array
from catalog.rows import fetch_value, json_array
from catalog.views import edits, predictions, sets, tag_names, tag_sets
from catalog.views.images import SELECT_IMAGE, bulk_etags
from contracts.errors import NotFound, Rejected
from contracts.filter_text import canonical
from contracts.filters import AddedSince, AllImages, Matching, Selection, TagSource, TextField, TheseImages
from contracts.ids import ImageId
from contracts.wording import count

NUMBERS = "SELECT ordinal, {column} FROM image WHERE dataset_id = ?"
CHANGED = f"SELECT ordinal, etag FROM ({SELECT_IMAGE}) WHERE dataset_id = ?"  # noqa: S608 - constants
ADDED = "SELECT ordinal, created_at FROM image WHERE dataset_id = ?"
ADDED_AFTER = "SELECT ordinal FROM image WHERE dataset_id = ? AND added_sequence > ?"
AMONG = " AND ordinal IN (SELECT value FROM json_each(?))"
DHASH = "SELECT dhash FROM image WHERE id = ?"
Integer = TypeVar("Integer", np.int64, np.uint64)

ORDINALS = """
SELECT id, ordinal FROM image WHERE dataset_id = ? AND removed_sequence = 0
    AND id IN (SELECT value FROM json_each(?))
"""

FEW = 2_000
"""Up to so many images are looked up one by one; for more the whole table is read."""
SLICE = 20_000
"""Images whose decisions are in memory at once."""
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
        return self._of_tag(tag, "tagged")

    def with_tags(self) -> BitMap:
        return tag_sets.with_tags(tag_sets.load_digits(self._connection, self._dataset_id))

    def rejected(self, tag: str) -> BitMap:
        return self._of_tag(tag, "rejected")

    def from_source(self, source: TagSource, tag: str | None) -> BitMap:
        """Of a person's and imported tags, the decisions of all images that may have one are read."""
        if source == "model":
            return tag_sets.from_models(self._connection, self._dataset_id, tag)
        candidates = self.with_tags() if tag is None else self._of_tag(tag, "asserted")
        named = None if tag is None else tag_names.ids_of(self._connection, [tag]).get(tag)
        return BitMap(self._decided_by(source, named, candidates & self.universe()))

    def captioned(self) -> BitMap:
        return sets.load(self._connection, self._dataset_id, "captioned")

    def reviewed(self) -> BitMap:
        return sets.load(self._connection, self._dataset_id, "reviewed")

    def column(self, name: Column, images: BitMap) -> Numbers:
        match name:
            case "tags":
                return tag_sets.counts(tag_sets.load_digits(self._connection, self._dataset_id), images)
            case "changed":
                return self._etags(images)
            case "dhash":
                return self._column(NUMBERS.format(column="dhash"), images, lambda text: int(text, 16), np.uint64)
            case _:
                return self._column(NUMBERS.format(column=_COLUMNS[name]), images, int, np.int64)

    def confidence(self, tag: str, images: BitMap) -> NDArray[np.float64]:
        return predictions.confidences(self._connection, self._dataset_id, tag, images)

    def containing(self, text: str, field: TextField, images: BitMap) -> BitMap:
        if self._texts is None:
            raise RuntimeError("this index was made without texts")
        return self._texts.search(text, field, images)

    def added_since(self, moment: AddedSince) -> BitMap:
        if moment.time is None:
            after = (self._dataset_id, moment.sequence or 0)
            return BitMap(ordinal for (ordinal,) in self._connection.execute(ADDED_AFTER, after))
        rows = self._connection.execute(ADDED, (self._dataset_id,))
        return BitMap(ordinal for ordinal, at in rows if datetime.fromisoformat(at) >= moment.time)

    def dhash_of(self, image: ImageId) -> int:
        found = fetch_value(self._connection, DHASH, (image,))
        if found is None:
            raise NotFound(f"there is no image {image!r}")
        return int(found, 16)

    def _of_tag(self, tag: str, kind: str) -> BitMap:
        return tag_sets.of_tag(self._connection, self._dataset_id, tag, kind).get(self._dataset_id, BitMap())

    def _decided_by(self, source: TagSource, tag: int | None, images: BitMap) -> Iterator[int]:
        """Those of these images where the latest decision that asserts the tag, or any tag, is of this source."""
        ordinals = iter(images)
        while some := list(islice(ordinals, SLICE)):
            for ordinal, held in edits.edits_of(self._connection, self._dataset_id, some).items():
                if any(one.source == source and (tag in one.asserted if tag else one.asserted) for one in held):
                    yield ordinal

    def _etags(self, images: BitMap) -> NDArray[np.int64]:
        found = self._column(CHANGED, images, int, np.int64)
        for sequence, changed in bulk_etags(self._connection, self._dataset_id):
            among = np.isin(to_array(images), to_array(changed), assume_unique=True)
            found[among] = np.maximum(found[among], sequence)
        return found

    def _column(
        self, query: str, images: BitMap, number: Callable[[Any], int], dtype: type[Integer]
    ) -> NDArray[Integer]:
        """The second column of a query as a number of each image, by ascending ordinal; 0 where there is no row."""
        found = np.zeros(images.max() + 1 if images else 0, dtype=dtype)
        rows = self._rows(query, images)
        values = np.fromiter((number(value) for _, value in rows), dtype, len(rows))
        found[np.fromiter((ordinal for ordinal, _ in rows), np.int64, len(rows))] = values
        return found[to_array(images)]

    def _rows(self, query: str, images: BitMap) -> list[tuple[int, Any]]:
        """The rows of a query (ordinal, value) about these images, perhaps with others before the last of them."""
        if len(images) <= FEW:
            return self._connection.execute(query + AMONG, (self._dataset_id, json_array(images))).fetchall()
        return self._connection.execute(query + " AND ordinal <= ?", (self._dataset_id, images.max())).fetchall()


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
