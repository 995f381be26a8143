"""Queries about data sets: lists of them, of their images, refused files and tags; versions, manifests, erasures."""

import asyncio
from functools import partial
from itertools import chain

from catalog.database import Connection
from catalog.domain.compose import compose
from catalog.domain.manifest import DifferingLines, ManifestLine, differing_pages, page_number
from catalog.domain.versions import image_change
from catalog.keys import open_if_present
from catalog.lookup import known_dataset, not_found, require_dataset, require_version
from catalog.query_handlers.context import QueryContext, on_snapshot
from catalog.query_handlers.paging import build_page, decode_cursor, encode_cursor
from catalog.query_handlers.results import (
    dataset_view,
    training_text_of,
    version_view,
)
from catalog.views import datasets, erasures, images, presence, refusals, versions
from contracts.errors import NotFound
from contracts.queries import datasets as queries
from contracts.queries.base import Page
from contracts.sealed import NAME

PAGES_COMPARED = 4
"""Pages of two versions that are read and compared at a time."""


@on_snapshot
def list_datasets(connection: Connection, query: queries.ListDatasets) -> Page[queries.DatasetView]:
    """In creation order."""
    (after,) = decode_cursor(query.cursor, (0,))
    rows, total = datasets.page(connection, after, query.limit + 1), datasets.count(connection)
    return build_page(query, rows, partial(dataset_view, connection), lambda row: (row.created_sequence,), total)


@on_snapshot
def get_text_settings(connection: Connection, query: queries.GetTextSettings) -> queries.TextSettingsView:
    row = require_dataset(connection, query.dataset)
    settings, etag = row.text_settings, max(row.text_sequence, row.name_sequence)
    return compose(queries.TextSettingsView, settings, dataset_id=row.id, dataset=row.name, etag=etag)


@on_snapshot
def list_image_ids(connection: Connection, query: queries.ListImageIds) -> queries.ImageIdsView:
    return queries.ImageIdsView(ids=images.ids_by_ordinal(connection, query.dataset, query.ordinals))


async def list_refusals(context: QueryContext, query: queries.ListRefusals) -> Page[queries.RefusalView]:
    after = decode_cursor(query.cursor, (0, 0))

    def read(connection: Connection) -> tuple[list[refusals.RefusalRow], int]:
        dataset = require_dataset(connection, query.dataset)
        return refusals.page(connection, dataset.id, after, query.limit + 1), dataset.refused

    rows, total = await context.read(query, read)
    keys = await context.keys.keys_of(row.image_id for row in rows)

    def view(row: refusals.RefusalRow) -> queries.RefusalView:
        return compose(queries.RefusalView, row, name=open_if_present(keys, row.image_id, row.name, NAME))

    return build_page(query, rows, view, lambda row: (row.sequence, row.event_index), total)


@on_snapshot
def list_versions(connection: Connection, query: queries.ListVersions) -> Page[queries.VersionView]:
    """Oldest first; those of a removed data set remain, by its id."""
    (after,) = decode_cursor(query.cursor, (0,))
    dataset = known_dataset(connection, query.dataset)
    rows, total = versions.page(connection, dataset.id, after, query.limit + 1), versions.count(connection, dataset.id)
    return build_page(query, rows, partial(version_view, connection, dataset), lambda row: (row.number,), total)


@on_snapshot
def get_version(connection: Connection, query: queries.GetVersion) -> queries.VersionView:
    dataset = known_dataset(connection, query.dataset)
    return version_view(connection, dataset, require_version(connection, dataset, query.version))


async def read_manifest(context: QueryContext, query: queries.ReadManifest) -> Page[queries.ManifestEntry]:
    """By ordinal, captions in plain text; that of an erased image is empty. KeyMissing, Lost: one cannot be read."""
    (after,) = decode_cursor(query.cursor, (-1,))
    row = await context.read(query, lambda connection: versions.by_id(connection, query.version_id))
    if row is None:
        raise not_found("version", query.version_id)
    root = await context.manifests.root(row.manifest)
    lines = await context.manifests.lines(root, after, query.limit + 1)
    keys, absent = await context.keys_of(line.image for line in lines)
    # A caption that cannot be read must not be trained as an empty one.
    absent.among({line.image for line in lines if line.caption is not None}).require()

    def entry(line: ManifestLine) -> queries.ManifestEntry:
        text, written = training_text_of(root, line, keys, absent), line.caption is not None
        return compose(queries.ManifestEntry, line, caption=text, written=written)

    return build_page(query, lines, entry, lambda line: (line.ordinal,), root.images)


async def diff_versions(context: QueryContext, query: queries.DiffVersions) -> Page[queries.ImageChange]:
    """Pages that both versions share are not read. The cursor has the total, which only the first page counts."""
    after, total = decode_cursor(query.cursor, (-1, -1))

    def read(connection: Connection) -> list[versions.VersionRow]:
        dataset = known_dataset(connection, query.dataset)
        return [require_version(connection, dataset, number) for number in (query.since, query.version)]

    before, now = [await context.manifests.root(row.manifest) for row in await context.read(query, read)]
    left = [pages for number, pages in differing_pages(before, now).items() if number >= page_number(after + 1)]
    found, counted = list[DifferingLines](), 0
    while left and (total < 0 or len(found) <= query.limit):
        some, left = left[:PAGES_COMPARED], left[PAGES_COMPARED:]
        lines = chain(*await asyncio.gather(*map(context.manifests.difference, some)))
        pairs = [pair for pair in lines if _ordinal(pair) > after]
        counted += len(pairs)
        found += pairs[: query.limit + 1 - len(found)]
    total = counted if total < 0 else total
    changes = [image_change(*pair) for pair in found]
    return build_page(query, changes, lambda change: change, lambda change: (change.ordinal, total), total)


def _ordinal(pair: DifferingLines) -> int:
    return next(line.ordinal for line in pair if line is not None)


async def get_erasure(context: QueryContext, query: queries.GetErasure) -> queries.ErasureView:
    """NotFound if the id is unknown, or not erased."""
    return await context.read(query, partial(_erasure, context, query.aggregate_id))


@on_snapshot
def list_erased(connection: Connection, query: queries.ListErased) -> Page[queries.ErasedImage]:
    def view(row: erasures.ErasedRow) -> queries.ErasedImage:
        return queries.ErasedImage(image=row.image_id, picture=row.picture, cursor=encode_cursor(_sort_key(row)))

    rows = erasures.image_page(connection, decode_cursor(query.cursor, (0, "")), query.limit + 1)
    return build_page(query, rows, view, _sort_key, erasures.count_images(connection))


def _sort_key(row: erasures.ErasedRow) -> tuple[int, str]:
    return row.sequence, row.image_id


def _spans(connection: Connection, image: erasures.ErasedRow) -> list[erasures.VersionRange]:
    if image.ordinal is None:
        return []
    return presence.spans(connection, image.dataset_id, image.ordinal, image.added_sequence, image.sequence)


def _erasure(context: QueryContext, ref: str, connection: Connection) -> queries.ErasureView:
    image = erasures.find(connection, ref)
    if image is not None:
        return queries.ErasureView(
            id=ref,
            dataset_id=image.dataset_id,
            images=1,
            erased_at=image.at,
            loras=tuple(erasures.jobs_trained_on(connection, image.dataset_id, _spans(connection, image))),
            pending=context.pending_purges(image.sequence),
            etag=image.sequence,
        )
    if images.find(connection, ref) is not None:
        raise NotFound(f"the image {ref!r} was not erased")
    row = known_dataset(connection, ref)
    if not row.erased:
        raise NotFound(f"the data set {row.name!r} was not erased")
    return queries.ErasureView(
        id=row.id,
        dataset_id=row.id,
        images=erasures.count_of_dataset(connection, row.id),
        erased_at=row.changed_at,
        loras=tuple(erasures.jobs_trained_on(connection, row.id)),
        pending=context.pending_purges(row.revision.sequence),
        etag=row.etag,
    )
