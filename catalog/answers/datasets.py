"""Answers about data sets: themselves, refused files, tags, versions and what versions hold."""

import asyncio
import functools

from catalog.answers.paging import key_of, paged
from catalog.answers.shelf import Shelf, any_dataset_of, dataset_of
from catalog.database import Connection
from catalog.domain import manifest
from catalog.domain.manifest import ManifestLine
from catalog.keys import CAPTION, NAME, opened
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

MOST_USED = 2**62
"""More images than a tag can be on."""


async def list_datasets(shelf: Shelf, query: ListDatasets) -> Page[DatasetView]:
    """In the order they were created."""
    (after,) = key_of(query.cursor, (0,))

    def look(connection: Connection) -> Page[DatasetView]:
        rows = datasets.page(connection, after, query.limit + 1)
        view = functools.partial(_dataset, connection)
        total = datasets.count(connection)
        return paged(rows, view, lambda row: (row.created,), total=total, limit=query.limit)

    return await shelf.look(query, look)


async def get_dataset(shelf: Shelf, query: GetDataset) -> DatasetView:
    return await shelf.look(query, lambda connection: dataset_view(connection, query.dataset))


async def list_refusals(shelf: Shelf, query: ListRefusals) -> Page[RefusalView]:
    after = key_of(query.cursor, (0, 0))

    def look(connection: Connection) -> tuple[list[RefusalRow], int]:
        dataset = dataset_of(connection, query.dataset)
        return refusals.page(connection, dataset.id, after, query.limit + 1), dataset.refused

    rows, total = await shelf.look(query, look)
    keys = await shelf.keys.keys_of(row.image_id for row in rows)

    def view(row: RefusalRow) -> RefusalView:
        name = opened(keys, row.image_id, row.name, NAME)
        detail = {"reason": row.reason, "detail": row.detail, "size": row.size, "at": row.at}
        return RefusalView(name=name, sequence=row.sequence, **detail)  # type: ignore[arg-type]  # as in the row

    return paged(rows, view, lambda row: (row.sequence, row.part), total=total, limit=query.limit)


async def list_tags(shelf: Shelf, query: ListTags) -> Page[TagCount]:
    after = key_of(query.cursor, (MOST_USED, ""))

    def look(connection: Connection) -> Page[TagCount]:
        dataset_id = None if query.dataset is None else dataset_of(connection, query.dataset).id
        # A prefix is no whole tag yet ("long_"), so it is written like one, but not refused like one.
        prefix = datasets.folded(query.prefix.strip()).replace(" ", "_")
        rows = tags.counts(connection, dataset_id, prefix, after, query.limit + 1)
        total = tags.count_different(connection, dataset_id, prefix)
        return paged(rows, lambda row: row, lambda row: (row.images, row.tag), total=total, limit=query.limit)

    return await shelf.look(query, look)


async def list_versions(shelf: Shelf, query: ListVersions) -> Page[VersionView]:
    """The oldest first; those of a removed data set stay, asked for by its id."""
    (after,) = key_of(query.cursor, (0,))

    def look(connection: Connection) -> Page[VersionView]:
        dataset = any_dataset_of(connection, query.dataset)
        rows = versions.page(connection, dataset.id, after, query.limit + 1)
        view = functools.partial(_version, connection, dataset)
        total = versions.count(connection, dataset.id)
        return paged(rows, view, lambda row: (row.number,), total=total, limit=query.limit)

    return await shelf.look(query, look)


async def get_version(shelf: Shelf, query: GetVersion) -> VersionView:
    def look(connection: Connection) -> VersionView:
        dataset = any_dataset_of(connection, query.dataset)
        row = versions.find(connection, dataset.id, query.version)
        if row is None:
            raise NotFound(f"the data set {dataset.name!r} has no version {query.version}")
        return _version(connection, dataset, row)

    return await shelf.look(query, look)


class Manifests:
    """Frozen versions, read from their blobs; the last two stay at hand, so that pages cost one reading."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._kept: dict[Digest, list[ManifestLine]] = {}

    async def read_manifest(self, query: ReadManifest) -> Page[ManifestEntry]:
        """In the order of their ordinals, captions in plain text; an erased image's is empty."""
        (after,) = key_of(query.cursor, (-1,))
        row = await self._shelf.look(query, lambda connection: versions.by_id(connection, query.version_id))
        if row is None:
            raise NotFound(f"there is no version {query.version_id!r}")
        lines = await self.lines(row.manifest)
        rest = [line for line in lines if line.ordinal > after][: query.limit + 1]
        keys = await self._shelf.keys.keys_of(line.image for line in rest)
        view = functools.partial(_entry, keys)
        return paged(rest, view, lambda line: (line.ordinal,), total=len(lines), limit=query.limit)

    async def captions(self, digest: Digest, first: int) -> list[str]:
        """Those of the first entries: the prompts of a job that has none of its own."""
        lines = (await self.lines(digest))[:first]
        keys = await self._shelf.keys.keys_of(line.image for line in lines)
        return [_entry(keys, line).caption for line in lines]

    async def lines(self, digest: Digest) -> list[ManifestLine]:
        if digest not in self._kept:
            content = await self._shelf.blobs.get(digest)
            lines = await asyncio.to_thread(manifest.decode, content)
            self._kept = dict([*self._kept.items(), (digest, lines)][-2:])
        return self._kept[digest]


def _entry(keys: dict[ImageId, bytes], line: ManifestLine) -> ManifestEntry:
    return ManifestEntry(
        ordinal=line.ordinal,
        image=line.image,
        picture=line.picture,
        caption=opened(keys, line.image, line.caption, CAPTION),
        width=line.width,
        height=line.height,
        written=line.written,
    )


def dataset_view(connection: Connection, ref: str) -> DatasetView:
    """NotFound where there is none, Gone where it was removed."""
    return _dataset(connection, dataset_of(connection, ref))


def _dataset(connection: Connection, row: DatasetRow) -> DatasetView:
    tally = images.tally(connection, row.id)
    return DatasetView(
        id=row.id,
        name=row.name,
        description=row.description,
        images=tally.images,
        tagged=tally.tagged,
        captioned=tally.captioned,
        refused=row.refused,
        general_threshold=row.general,
        character_threshold=row.character,
        latest_version=row.latest_version,
        cover=tally.cover,
        created_at=row.created_at,
        changed_at=row.changed_at,
        etag=row.touched,
    )


def _version(connection: Connection, dataset: DatasetRow, row: VersionRow) -> VersionView:
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
        etag=max(row.sequence, dataset.named),
        erased=erasures.in_version(connection, dataset.id, row.as_of),
    )
