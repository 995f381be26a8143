"""Lists of images, filtered and sorted, of one data set or of all."""

import asyncio
import hashlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pyroaring import BitMap

from catalog.database import MAX_SEQUENCE, Connection
from catalog.domain.ordering import MAX_CURSOR_CHARACTERS, NameKeys, Position, page
from catalog.domain.selection import Numbers, evaluate, to_array
from catalog.lookup import require_dataset
from catalog.query_handlers.context import QueryContext
from catalog.query_handlers.paging import build_page, decode_cursor
from catalog.query_handlers.results import TaggedImage, image_view, with_tags
from catalog.views import datasets, images, tags
from catalog.views.index import DatasetIndex
from contracts.errors import Invalid
from contracts.filter_text import canonical, render_sort
from contracts.filters import And, Filter, HasTag, uses_text
from contracts.ids import DatasetId
from contracts.queries.base import Page
from contracts.queries.datasets import ImageView, ListImages
from contracts.sorting import Sort, SortBy, SortByConfidence
from contracts.tags import canonicalize

AFTER_ALL_ORDINALS = 2**32

Key = tuple[Any, str, int]
"""The position of an image in a list: number or natural name, then data set, then ordinal."""


@dataclass(frozen=True)
class _List:
    """What is listed. `single`: of one data set, where the order of import is that of the ordinals."""

    filter: Filter | None
    sort: Sort
    after: Key | None
    limit: int
    single: bool

    @property
    def by_name(self) -> bool:
        return isinstance(self.sort, SortBy) and self.sort.key == "name"

    @property
    def id(self) -> str:
        """Says of a cursor which sort order it belongs to."""
        return hashlib.sha256(f"{render_sort(self.sort)} {self.single}".encode()).hexdigest()[:8]


async def list_images(context: QueryContext, query: ListImages) -> Page[ImageView]:
    """Without filter and sort order in import order, read from its index; others from sets and numbers."""
    if query.filter is not None or query.sort is not None:
        return await _list_selected(context, query)
    after = decode_cursor(query.cursor, (0, -1))
    tag = None if query.tag is None else canonicalize(query.tag)

    def read(connection: Connection) -> tuple[list[TaggedImage], int]:
        dataset_id = None if query.dataset is None else require_dataset(connection, query.dataset).id
        rows = tags.page(connection, dataset_id, tag, after, query.limit + 1)
        return with_tags(connection, rows), tags.count_images(connection, dataset_id, tag)

    found, total = await context.read(query, read)
    keys, absent = await context.keys_of(image[0].id for image in found)

    def key(image: TaggedImage) -> tuple[int, int]:
        return image[0].added_sequence, image[0].ordinal

    return build_page(query, found, lambda image: image_view(image, keys, absent), key, total)


async def _list_selected(context: QueryContext, query: ListImages) -> Page[ImageView]:
    """A page of the images that the filter selects, sorted."""
    listed = _list_of(query)
    await context.wait_for(query)
    found: list[tuple[Key, TaggedImage]] = []
    total = 0
    for dataset_id in await context.store.read(lambda connection: _datasets(connection, query)):
        some, count = await _read_dataset(context, dataset_id, listed)
        found, total = found + some, total + count
    found.sort(key=lambda item: item[0], reverse=listed.sort.descending)
    del found[listed.limit :]
    keys, absent = await context.keys_of(image[0].id for _, image in found)

    def cursor(item: tuple[Key, TaggedImage]) -> tuple[str, Any, str, int]:
        key, dataset_id, ordinal = item[0]
        return listed.id, key[:MAX_CURSOR_CHARACTERS] if listed.by_name else key, dataset_id, ordinal

    return build_page(query, found, lambda item: image_view(item[1], keys, absent), cursor, total)


def _list_of(query: ListImages) -> _List:
    """Invalid: the cursor is one of another sort order. Rejected: a text cannot be a tag."""
    terms = [] if query.tag is None else [HasTag(query.tag)]
    filters: list[Filter] = [canonical(one) for one in (*terms, query.filter) if one is not None]
    sort = query.sort or SortBy()
    if isinstance(sort, SortByConfidence):
        sort = SortByConfidence(tag=canonicalize(sort.tag), descending=sort.descending)
    filter_ = And(tuple(filters)) if len(filters) > 1 else next(iter(filters), None)
    listed = _List(filter_, sort, None, query.limit + 1, query.dataset is not None)
    if query.cursor is None:
        return listed
    start: tuple[Any, ...] = ("", "" if listed.by_name else 0.0, "", 0)
    of_list, key, dataset_id, ordinal = decode_cursor(query.cursor, start)
    if of_list != listed.id:
        raise Invalid("the cursor is not one of this list")
    return replace(listed, after=(key, dataset_id, ordinal))


def _datasets(connection: Connection, query: ListImages) -> list[DatasetId]:
    if query.dataset is not None:
        return [require_dataset(connection, query.dataset).id]
    return [row.id for row in datasets.page(connection, 0, MAX_SEQUENCE)]


async def _read_dataset(
    context: QueryContext, dataset_id: DatasetId, listed: _List
) -> tuple[list[tuple[Key, TaggedImage]], int]:
    """The first images of a data set after the cursor, and how many the filter selects in it."""
    needs_texts = listed.by_name or (listed.filter is not None and uses_text(listed.filter))
    texts = await context.texts.of(dataset_id) if needs_texts else None
    names = await asyncio.to_thread(texts.name_keys) if texts is not None and listed.by_name else None

    def read(connection: Connection) -> tuple[list[tuple[Key, TaggedImage]], int]:
        index = DatasetIndex(connection, dataset_id, texts)
        selected = index.universe() if listed.filter is None else evaluate(listed.filter, index)
        numbers = _numbers(index, selected, listed) if names is None else names.numbers(selected)
        after = None if listed.after is None else _position(listed.after, dataset_id, names)
        found = page(selected, numbers, after, limit=listed.limit, descending=listed.sort.descending)
        rows = images.by_ordinals(connection, dataset_id, [at.ordinal for at in found])
        shown = {image[0].ordinal: image for image in with_tags(connection, rows)}
        keys = [(at.number if names is None else names.key(at.ordinal), dataset_id, at.ordinal) for at in found]
        return [(key, shown[key[2]]) for key in keys], len(selected)

    return await context.store.read(read)


def _numbers(index: DatasetIndex, selected: BitMap, listed: _List) -> Numbers:
    match listed.sort:
        case SortByConfidence(tag=tag):
            return index.confidence(tag, selected)
        case SortBy(key="added") if listed.single:
            return to_array(selected).astype(np.int64)
        case SortBy(key="added" | "changed" | "tags" as column):
            return index.column(column, selected)
        case _:
            return index.column("bytes", selected)


def _position(after: Key, dataset_id: str, names: NameKeys | None) -> Position:
    """Where the list continues in a data set: of equal keys, those of data sets with smaller ids come first."""
    key, of_dataset, ordinal = after
    same = dataset_id == of_dataset
    number = float(key) if names is None else names.number(key, ordinal if same else -1)
    if same:
        return Position(number, ordinal)
    return Position(number, AFTER_ALL_ORDINALS if dataset_id < of_dataset else -1)
