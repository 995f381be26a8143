"""What query handlers read from, and the limits of the expensive ones."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import wraps
from typing import Any, TypeVar

import msgspec

from catalog import entries
from catalog.archive.file import ArchiveFile
from catalog.database import Connection
from catalog.domain import manifest
from catalog.domain.manifest import DifferingLines, DifferingPages, ManifestLine, ManifestPage, ManifestRoot
from catalog.entries import MAX_SCANNED_COMMITS
from catalog.keys import Keys
from catalog.prediction_index import PredictionIndex
from catalog.store import Store
from catalog.tag_index import TagIndex
from catalog.text_index import TextIndexes
from catalog.views import datasets, erasures, images, tagging
from catalog.views.tag_names import Names
from catalog.watch.absent_keys import AbsentKeys, keys_of
from contracts.errors import Invalid, Rejected, Unavailable
from contracts.ids import DatasetId, Digest, ImageId
from contracts.queries.base import Query, QueryAt
from contracts.queries.datasets import ListImages
from contracts.wire.blobs.store import Blobs

CACHED_MANIFESTS = 8
"""Roots, and pages, of manifests in memory; a page takes about 3 MB."""
MAX_KNOWN_NAMES = 50_000
"""Names of tags in memory at which they are read anew; some 150 bytes each."""

T = TypeVar("T")
Q = TypeVar("Q", bound=Query[Any])


class QueryLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Commits that a page of a history scans. Long queries about the past: seconds, how many at once and waiting.

    `read_timeout`: seconds that a query waits for the read model to show its `min_seq`.
    """

    read_timeout: float = 2.0
    scanned_commits: int = MAX_SCANNED_COMMITS
    past_seconds: float = 10.0
    concurrent_pasts: int = 2
    queued_pasts: int = 16


class ManifestReader:
    """Reads the manifests of frozen versions from their blobs; BlobMissing or Lost where one is missing.

    The last few roots and pages stay in memory, because a list of images is read in many small pages.
    """

    def __init__(self, blobs: Blobs, require_blob: Callable[[Digest], Awaitable[object]]) -> None:
        """`require_blob` raises what is wrong with a blob that is missing."""
        self._blobs = blobs
        self._require_blob = require_blob
        self._roots: dict[Digest, ManifestRoot] = {}
        self._pages: dict[Digest, list[ManifestLine]] = {}

    async def root(self, digest: Digest) -> ManifestRoot:
        if digest not in self._roots:
            _remember(self._roots, digest, manifest.decode_root(await self._content(digest)))
        return self._roots[digest]

    async def lines(self, root: ManifestRoot, after: int, limit: int) -> list[ManifestLine]:
        """The first images of a version with ordinals above `after`."""
        found: list[ManifestLine] = []
        for page in root.pages:
            if page.number < manifest.page_number(after + 1):
                continue
            if len(found) >= limit:
                break
            found += [line for line in await self._page(page) if line.ordinal > after]
        return found[:limit]

    async def difference(self, pages: DifferingPages) -> list[DifferingLines]:
        """The lines in which two pages differ."""
        before, after = await asyncio.gather(*map(self._content_of, pages))
        return await asyncio.to_thread(manifest.differing_lines, before, after)

    async def _page(self, page: ManifestPage) -> list[ManifestLine]:
        if page.digest not in self._pages:
            content = await self._content(page.digest)
            _remember(self._pages, page.digest, await asyncio.to_thread(manifest.decode_page, content))
        return self._pages[page.digest]

    async def _content_of(self, page: ManifestPage | None) -> bytes:
        return b"" if page is None else await self._content(page.digest)

    async def _content(self, digest: Digest) -> bytes:
        await self._require_blob(digest)
        return await self._blobs.get(digest)


def _remember(cache: dict[Digest, T], digest: Digest, value: T) -> None:
    """Keep it, and the newest others."""
    cache[digest] = value
    while len(cache) > CACHED_MANIFESTS:
        del cache[next(iter(cache))]


class PastSlots:
    """Bounds long historical queries: the number that runs at once and the number that waits; others are rejected."""

    def __init__(self, limits: QueryLimits) -> None:
        self._slots = asyncio.Semaphore(limits.concurrent_pasts)
        self._free = limits.concurrent_pasts + limits.queued_pasts

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[None]:
        if self._free <= 0:
            raise Unavailable("too many historical queries at once; try again", service="catalog")
        self._free -= 1
        try:
            async with self._slots:
                yield
        finally:
            self._free += 1


@dataclass(kw_only=True)
class QueryContext:
    """The sources of all query handlers."""

    store: Store
    archive: ArchiveFile
    keys: Keys
    manifests: ManifestReader
    texts: TextIndexes
    predictions: PredictionIndex
    tags: TagIndex
    pending_purges: Callable[[int], tuple[str, ...]]
    """Where data erased up to a sequence may still exist, one sentence per place."""
    limits: QueryLimits = field(default_factory=QueryLimits)
    past_slots: PastSlots = field(init=False)
    _names: Names = field(default_factory=dict)

    @property
    def names(self) -> Names:
        """Names of tags that queries have read, for those that follow: what has a name keeps it."""
        if len(self._names) > MAX_KNOWN_NAMES:
            self._names = {}  # not cleared: another query may be using them
        return self._names

    def __post_init__(self) -> None:
        self.past_slots = PastSlots(self.limits)

    async def read(self, query: Query[Any], work: Callable[[Connection], T]) -> T:
        """Run `work` on one snapshot of the read model that shows the query's `min_seq`.

        Of the data set that it is about, nothing is shown in part. Behind: that takes too long.
        """
        await self.wait_for(query)
        return await self.store.read_settled(
            lambda connection: _dataset_of(connection, query), work, self.limits.read_timeout
        )

    async def read_dataset(self, dataset_id: DatasetId, work: Callable[[Connection], T]) -> T:
        """The same for one data set, after `wait_for`."""
        return await self.store.read_settled(lambda _: dataset_id, work, self.limits.read_timeout)

    async def keys_of(self, images: Iterable[ImageId]) -> tuple[dict[ImageId, bytes], AbsentKeys]:
        """The keys of these images, and why the others have none."""
        return await keys_of(self.store, self.keys, images)

    async def wait_for(self, query: Query[Any]) -> None:
        """Wait until the read model shows the query's `min_seq`; Behind if it does not in time."""
        await self.store.wait_for(query.min_seq, self.limits.read_timeout)

    async def sequence_of(self, query: QueryAt[Any] | ListImages) -> int | None:
        """The sequence that the query asks for, once the read model has applied it; none = now."""
        if not query.is_past:
            return None
        await self.wait_for(query)
        last = await self.archive.read(lambda log: _resolve_sequence(log, query.at_seq, query.at_time))
        await self.store.wait_for(last)
        return last


def _resolve_sequence(log: Connection, at_seq: int | None, at_time: datetime | None) -> int:
    if at_seq is not None and at_time is not None:
        raise Invalid("at_seq and at_time both say when; give one of them")
    if at_time is not None:
        return entries.sequence_at(log, at_time)
    head = entries.last_sequence(log)
    if at_seq is None or at_seq > head:
        raise Rejected(f"the log ends at {head}; it has not reached {at_seq} yet", head=head)
    return at_seq


def _dataset_of(connection: Connection, query: Query[Any]) -> str | None:
    """The data set that a query is about, by its field `dataset`, `image`, `run` or `aggregate_id`."""
    named: dict[str, Any] = msgspec.structs.asdict(query)
    if ref := named.get("dataset") or named.get("aggregate_id"):
        row = datasets.find(connection, ref)
        if row is not None:
            return row.id
    if image := named.get("image") or named.get("aggregate_id"):
        found = images.find(connection, image) or erasures.find(connection, image)
        return None if found is None else found.dataset_id
    if run := named.get("run"):
        tagged = tagging.find(connection, run)
        return None if tagged is None else tagged.request.dataset_id
    return None


def on_snapshot(handler: Callable[[Connection, Q], T]) -> Callable[[QueryContext, Q], Awaitable[T]]:
    """A query handler that runs on one snapshot of the read model, which shows the query's `min_seq`."""

    @wraps(handler)
    async def run(context: QueryContext, query: Q) -> T:
        return await context.read(query, lambda connection: handler(connection, query))

    return run
