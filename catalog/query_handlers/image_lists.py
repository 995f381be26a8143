"""Lists of images, filtered and sorted, of one data set or of all."""

import asyncio
import hashlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pyroaring import BitMap

from catalog import index_memory
from catalog.database import Connection
from catalog.domain.ordering import NO_RANK, NameKeys, Position, page
from catalog.domain.selection import Numbers, evaluate, to_array
from catalog.lookup import dataset_at, require_dataset
from catalog.query_handlers.context import QueryContext
from catalog.query_handlers.paging import build_encoded_page, decode_cursor
from catalog.query_handlers.results import TaggedImage, image_view, with_tags
from catalog.views import datasets, images, past, tags
from catalog.views.index import DatasetIndex
from contracts.errors import Invalid
from contracts.filter_text import canonical, render_sort
from contracts.filters import And, Filter, HasTag
from contracts.ids import DatasetId
from contracts.queries.base import EncodedPage
from contracts.queries.datasets import ListImages
from contracts.sorting import Sort, SortBy, SortByConfidence
from contracts.tags import canonicalize

AFTER_ALL_ORDINALS = 2**32

Key = tuple[Any, str, int]
"""The position of an image in a list: number or natural name, then data set, then ordinal."""


@dataclass(frozen=True)
class _Item:
    """An image in a list. `rank`: among the images of its data set that have a name, if the list is sorted by these."""

    key: Key
    rank: int
    image: TaggedImage


@dataclass(frozen=True)
class _List:
    """What is listed. `single`: of one data set, where the order of import is that of the ordinals."""

    filter: Filter | None
    sort: Sort
    after: Key | None
    limit: int
    single: bool
    anchor: Key | None = None
    """Of a list by name: rank, data set and ordinal of the last image of the page before; `after` is found by it."""

    @property
    def by_name(self) -> bool:
        return isinstance(self.sort, SortBy) and self.sort.key == "name"

    @property
    def id(self) -> str:
        """Says of a cursor which sort order it belongs to."""
        return hashlib.sha256(f"{render_sort(self.sort)} {self.single}".encode()).hexdigest()[:8]


async def list_images(context: QueryContext, query: ListImages) -> EncodedPage:
    """ImageViews. Without filter and sort order in import order, read from its index; others from sets and numbers."""
    if query.is_past:
        return await _list_past(context, query)
    if query.filter is not None or query.sort is not None:
        return await _list_selected(context, query)
    after = decode_cursor(query.cursor, (0, -1))
    tag, known = None if query.tag is None else canonicalize(query.tag), context.names

    def read(connection: Connection) -> tuple[list[TaggedImage], int]:
        dataset_id = None if query.dataset is None else require_dataset(connection, query.dataset).id
        rows = tags.page(connection, dataset_id, tag, after, query.limit + 1)
        return with_tags(connection, rows, known), tags.count_images(connection, dataset_id, tag)

    found, total = await context.read(query, read)
    keys, absent = await context.keys_of(image.row.id for image in found)

    def key(image: TaggedImage) -> tuple[int, int]:
        return image.row.added_sequence, image.row.ordinal

    return build_encoded_page(query, found, lambda image: image_view(image, keys, absent), key, total)


async def _list_past(context: QueryContext, query: ListImages) -> EncodedPage:
    """A page of the images of a data set as they were, in import order."""
    if query.dataset is None or query.filter is not None or query.sort is not None or query.tag is not None:
        raise Invalid(
            "the past is that of one data set, without tag, filter and sort; filter the present, or a version"
        )
    dataset, (after,) = query.dataset, decode_cursor(query.cursor, (-1,))
    last, known = await context.sequence_of(query), context.names
    assert last is not None  # noqa: S101 - for the type checker: it is a query about the past

    def read(now: Connection) -> tuple[list[TaggedImage], int]:
        dataset_id = dataset_at(now, dataset, last).id
        rows, total = past.page(now, dataset_id, last, after, query.limit + 1)
        return with_tags(now, rows, known, last), total

    found, total = await context.read(query, read)
    keys, absent = await context.keys_of(image.row.id for image in found)
    return build_encoded_page(
        query, found, lambda image: image_view(image, keys, absent), lambda image: (image.row.ordinal,), total
    )


async def _list_selected(context: QueryContext, query: ListImages) -> EncodedPage:
    """A page of the images that the filter selects, sorted."""
    listed = _list_of(query)
    await context.wait_for(query)
    of_datasets = await context.store.read(lambda connection: _datasets(connection, query))
    if listed.anchor is not None:
        listed = await _continue_by_name(context, of_datasets, listed, listed.anchor)
    found: list[_Item] = []
    total = 0
    for dataset_id in of_datasets:
        some, count = await _read_dataset(context, dataset_id, listed)
        found, total = found + some, total + count
    found.sort(key=lambda item: item.key, reverse=listed.sort.descending)
    del found[listed.limit :]
    keys, absent = await context.keys_of(item.image.row.id for item in found)

    def cursor(item: _Item) -> tuple[str, float, str, int]:
        """Without any name: it becomes part of addresses, which others may keep."""
        key, dataset_id, ordinal = item.key
        return listed.id, item.rank if listed.by_name else key, dataset_id, ordinal

    return build_encoded_page(query, found, lambda item: image_view(item.image, keys, absent), cursor, total)


async def _continue_by_name(context: QueryContext, of_datasets: list[DatasetId], listed: _List, anchor: Key) -> _List:
    """Looks up the name of the last image; if that was erased, the list continues where it was.

    In other data sets that is at its neighbour's name, so an image may be listed twice but none is left out. Invalid:
    its data set was removed.
    """
    rank, dataset_id, ordinal = anchor
    if dataset_id not in of_datasets:
        raise Invalid("the data set in which the page before ended was removed; list again from the start")
    names = await _names(context, DatasetId(dataset_id))
    found = names.continue_from(ordinal, int(rank), descending=listed.sort.descending)
    if found is not None:
        return replace(listed, after=(names.key(found), dataset_id, found))
    return listed if listed.sort.descending else replace(listed, after=("", dataset_id, AFTER_ALL_ORDINALS))


async def _names(context: QueryContext, dataset_id: DatasetId) -> NameKeys:
    return await asyncio.to_thread((await context.texts.of(dataset_id)).name_keys)


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
    of_list, number, dataset_id, ordinal = decode_cursor(query.cursor, ("", 0.0, "", 0))
    if of_list != listed.id:
        raise Invalid("the cursor is not one of this list")
    position = (number, dataset_id, ordinal)
    return replace(listed, anchor=position) if listed.by_name else replace(listed, after=position)


def _datasets(connection: Connection, query: ListImages) -> list[DatasetId]:
    if query.dataset is not None:
        return [require_dataset(connection, query.dataset).id]
    return datasets.ids(connection)


async def _read_dataset(context: QueryContext, dataset_id: DatasetId, listed: _List) -> tuple[list[_Item], int]:
    """The first images of a data set after the cursor, and how many the filter selects in it."""
    memory = await index_memory.for_filter(context, dataset_id, listed.filter)
    names, known = await _names(context, dataset_id) if listed.by_name else None, context.names

    def read(connection: Connection) -> tuple[list[_Item], int]:
        index = DatasetIndex(connection, dataset_id, memory)
        selected = index.universe() if listed.filter is None else evaluate(listed.filter, index)
        numbers = _numbers(index, selected, listed) if names is None else names.numbers(selected)
        after = None if listed.after is None else _position(listed.after, dataset_id, names)
        found = page(selected, numbers, after, limit=listed.limit, descending=listed.sort.descending)
        rows = images.by_ordinals(connection, dataset_id, [at.ordinal for at in found])
        shown = {image.row.ordinal: image for image in with_tags(connection, rows, known)}
        items = [_item(at, dataset_id, names, shown[at.ordinal]) for at in found]
        return items, len(selected)

    return await context.read_dataset(dataset_id, read)


def _item(at: Position, dataset_id: str, names: NameKeys | None, image: TaggedImage) -> _Item:
    if names is None:
        return _Item((at.number, dataset_id, at.ordinal), NO_RANK, image)
    return _Item((names.key(at.ordinal), dataset_id, at.ordinal), names.rank(at.ordinal), image)


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
    number = float(key) if names is None else names.number(key)
    if same:
        return Position(number, ordinal)
    return Position(number, AFTER_ALL_ORDINALS if dataset_id < of_dataset else -1)
