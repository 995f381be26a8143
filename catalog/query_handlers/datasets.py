"""Queries about data sets: the data sets themselves, refused files, tags, versions and their manifests."""

import asyncio
import functools

from catalog.database import Connection
from catalog.domain import manifest
from catalog.domain.manifest import ManifestLine
from catalog.keys import CAPTION, NAME, open_if_present
from catalog.query_handlers.context import QueryContext, require_dataset, require_live_dataset
from catalog.query_handlers.paging import build_page, decode_cursor
from catalog.views import datasets, erasures, images, refusals, tags, versions
from catalog.views.datasets import DatasetRow
from catalog.views.refusals import RefusalRow
from catalog.views.versions import VersionRow
from contracts.errors import NotFound
from contracts.ids import Digest, ImageId
from contracts.queries import (
    DatasetView,
    GetDataset,
    GetVersion,
    ListDatasets,
    ListRefusals,
    ListTags,
    ListVersions,
    ManifestEntry,
    Page,
    ReadManifest,
    RefusalView,
    TagCount,
    VersionView,
)

MAX_TAG_COUNT = 2**62
"""Larger than the number of images of any tag: lists by descending count start below it."""


async def list_datasets(context: QueryContext, query: ListDatasets) -> Page[DatasetView]:
    """In creation order."""
    (after,) = decode_cursor(query.cursor, (0,))

    def read(connection: Connection) -> Page[DatasetView]:
        rows = datasets.page(connection, after, query.limit + 1)
        view = functools.partial(_dataset_view, connection)
        total = datasets.count(connection)
        return build_page(rows, view, lambda row: (row.created_sequence,), total=total, limit=query.limit)

    return await context.read(query, read)


async def get_dataset(context: QueryContext, query: GetDataset) -> DatasetView:
    return await context.read(query, lambda connection: read_dataset(connection, query.dataset))


async def list_refusals(context: QueryContext, query: ListRefusals) -> Page[RefusalView]:
    after = decode_cursor(query.cursor, (0, 0))

    def read(connection: Connection) -> tuple[list[RefusalRow], int]:
        dataset = require_live_dataset(connection, query.dataset)
        return refusals.page(connection, dataset.id, after, query.limit + 1), dataset.refused

    rows, total = await context.read(query, read)
    keys = await context.keys.keys_of(row.image_id for row in rows)

    def view(row: RefusalRow) -> RefusalView:
        return RefusalView(
            name=open_if_present(keys, row.image_id, row.name, NAME),
            reason=row.reason,
            detail=row.detail,
            size=row.size,
            at=row.at,
            sequence=row.sequence,
        )

    return build_page(rows, view, lambda row: (row.sequence, row.event_index), total=total, limit=query.limit)


async def list_tags(context: QueryContext, query: ListTags) -> Page[TagCount]:
    after = decode_cursor(query.cursor, (MAX_TAG_COUNT, ""))

    def read(connection: Connection) -> Page[TagCount]:
        dataset_id = None if query.dataset is None else require_live_dataset(connection, query.dataset).id
        # A prefix such as "long_" need not be a valid tag: it is normalized like one, but not validated.
        prefix = datasets.name_key(query.prefix.strip()).replace(" ", "_")
        rows = tags.tag_counts(connection, dataset_id, prefix, after, query.limit + 1)
        total = tags.count_distinct(connection, dataset_id, prefix)
        return build_page(rows, lambda row: row, lambda row: (row.images, row.tag), total=total, limit=query.limit)

    return await context.read(query, read)


async def list_versions(context: QueryContext, query: ListVersions) -> Page[VersionView]:
    """Oldest first; those of a removed data set remain, by its id."""
    (after,) = decode_cursor(query.cursor, (0,))

    def read(connection: Connection) -> Page[VersionView]:
        dataset = require_dataset(connection, query.dataset)
        rows = versions.page(connection, dataset.id, after, query.limit + 1)
        view = functools.partial(_version_view, connection, dataset)
        total = versions.count(connection, dataset.id)
        return build_page(rows, view, lambda row: (row.number,), total=total, limit=query.limit)

    return await context.read(query, read)


async def get_version(context: QueryContext, query: GetVersion) -> VersionView:
    def read(connection: Connection) -> VersionView:
        dataset = require_dataset(connection, query.dataset)
        row = versions.find(connection, dataset.id, query.version)
        if row is None:
            raise NotFound(f"the data set {dataset.name!r} has no version {query.version}")
        return _version_view(connection, dataset, row)

    return await context.read(query, read)


class ManifestReader:
    """Reads the manifests of frozen versions from their blobs; caches the last two, so that a page needs no re-read."""

    def __init__(self, context: QueryContext) -> None:
        self._context = context
        self._cache: dict[Digest, list[ManifestLine]] = {}

    async def read_manifest(self, query: ReadManifest) -> Page[ManifestEntry]:
        """By ordinal, captions in plain text; the caption of an erased image is empty."""
        (after,) = decode_cursor(query.cursor, (-1,))
        row = await self._context.read(query, lambda connection: versions.by_id(connection, query.version_id))
        if row is None:
            raise NotFound(f"there is no version {query.version_id!r}")
        lines = await self.lines(row.manifest)
        rest = [line for line in lines if line.ordinal > after][: query.limit + 1]
        keys = await self._context.keys.keys_of(line.image for line in rest)
        view = functools.partial(_manifest_entry, keys)
        return build_page(rest, view, lambda line: (line.ordinal,), total=len(lines), limit=query.limit)

    async def captions(self, digest: Digest, first: int) -> list[str]:
        """The captions of the first entries: the sample prompts of a job that has none of its own."""
        lines = (await self.lines(digest))[:first]
        keys = await self._context.keys.keys_of(line.image for line in lines)
        return [_manifest_entry(keys, line).caption for line in lines]

    async def lines(self, digest: Digest) -> list[ManifestLine]:
        if digest not in self._cache:
            content = await self._context.blobs.get(digest)
            lines = await asyncio.to_thread(manifest.decode, content)
            self._cache = dict([*self._cache.items(), (digest, lines)][-2:])
        return self._cache[digest]


def _manifest_entry(keys: dict[ImageId, bytes], line: ManifestLine) -> ManifestEntry:
    return ManifestEntry(
        ordinal=line.ordinal,
        image=line.image,
        picture=line.picture,
        caption=open_if_present(keys, line.image, line.caption, CAPTION),
        width=line.width,
        height=line.height,
        written=line.written,
    )


def read_dataset(connection: Connection, ref: str) -> DatasetView:
    """NotFound if there is none, Gone if it was removed."""
    return _dataset_view(connection, require_live_dataset(connection, ref))


def _dataset_view(connection: Connection, row: DatasetRow) -> DatasetView:
    counts = images.image_counts(connection, row.id)
    return DatasetView(
        id=row.id,
        name=row.name,
        description=row.description,
        images=counts.images,
        tagged=counts.tagged,
        captioned=counts.captioned,
        refused=row.refused,
        general_threshold=row.general,
        character_threshold=row.character,
        latest_version=row.latest_version,
        cover=counts.cover,
        created_at=row.created_at,
        changed_at=row.changed_at,
        etag=row.etag,
    )


def _version_view(connection: Connection, dataset: DatasetRow, row: VersionRow) -> VersionView:
    return VersionView(
        version=row.number,
        version_id=row.version_id,
        dataset_id=row.dataset_id,
        dataset=dataset.name,
        images=row.images,
        manifest=row.manifest,
        trigger=row.trigger,
        as_of=row.as_of,
        created_at=row.created_at,
        etag=max(row.sequence, dataset.name_sequence),
        erased=erasures.count_erased_in_version(connection, dataset.id, row.as_of),
    )
