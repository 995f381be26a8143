"""Lists of tags: of all images, or of those that a filter selects."""

from collections import Counter
from heapq import nsmallest

from catalog import index_memory
from catalog.database import Connection
from catalog.domain.selection import evaluate
from catalog.lookup import require_dataset
from catalog.query_handlers.context import QueryContext
from catalog.query_handlers.paging import build_page, decode_cursor
from catalog.views import datasets, tags
from catalog.views.index import DatasetIndex
from contracts.filter_text import canonical
from contracts.filters import Filter
from contracts.ids import DatasetId
from contracts.queries.base import Page
from contracts.queries.datasets import ListTags, TagCount

MAX_TAG_COUNT = 2**62
"""Larger than the number of images of any tag: lists by descending count start below it."""


async def list_tags(context: QueryContext, query: ListTags) -> Page[TagCount]:
    """The most used first. NotFound: the filter names an image that does not exist."""
    # A prefix such as "long_" need not be a valid tag: it is normalized like one, but not validated.
    prefix = datasets.name_key(query.prefix.strip()).replace(" ", "_")
    after = decode_cursor(query.cursor, (MAX_TAG_COUNT, ""))
    if query.filter is None:
        return await context.read(query, lambda connection: _of_all_images(connection, query, prefix, after))
    counts = await _count_selected(context, query, canonical(query.filter), prefix)
    start = (-after[0], after[1])
    rest = (place for tag, images in counts.items() if (place := (-images, tag)) > start)
    rows = [TagCount(tag=tag, images=-fewer) for fewer, tag in nsmallest(query.limit + 1, rest)]
    return build_page(query, rows, lambda row: row, lambda row: (row.images, row.tag), len(counts))


def _of_all_images(connection: Connection, query: ListTags, prefix: str, after: tuple[int, str]) -> Page[TagCount]:
    dataset_id = None if query.dataset is None else require_dataset(connection, query.dataset).id
    rows = tags.tag_counts(connection, dataset_id, prefix, after, query.limit + 1)
    total = tags.count_distinct(connection, dataset_id, prefix)
    return build_page(query, rows, lambda row: row, lambda row: (row.images, row.tag), total)


async def _count_selected(context: QueryContext, query: ListTags, filter_: Filter, prefix: str) -> Counter[str]:
    """How many of the images that the filter selects have each tag."""
    counts: Counter[str] = Counter()
    for dataset_id in await context.read(query, lambda connection: _datasets(connection, query)):
        memory = await index_memory.for_filter(context, dataset_id, filter_)

        def read(connection: Connection) -> Counter[str]:
            selected = evaluate(filter_, DatasetIndex(connection, dataset_id, memory))  # noqa: B023 - awaited below
            return context.tags.count_among(connection, dataset_id, prefix, selected)  # noqa: B023 - awaited below

        counts += await context.read_dataset(dataset_id, read)
    return counts


def _datasets(connection: Connection, query: ListTags) -> list[DatasetId]:
    if query.dataset is not None:
        return [require_dataset(connection, query.dataset).id]
    return datasets.ids(connection)
