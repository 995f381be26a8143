"""Where a version is read from: small ones in this process, large ones in a child process with its own snapshot."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

import msgspec

from catalog.database import Snapshot
from catalog.domain.manifest import EncodedPage
from catalog.freezing.messages import PAGES, PLANS, REQUESTS
from catalog.freezing.pages import PageReader, plan
from catalog.freezing.source import FreezePlan, PageRequest, PageSource, Unsettled
from catalog.store import Store
from contracts.errors import Unavailable
from contracts.ids import DatasetId
from contracts.wire.system.child import PipedChild
from contracts.wire.system.pipe import PipeError


class SourceLimits(msgspec.Struct, frozen=True, kw_only=True):
    """`images`: maximum number of images that are read in this process: a child needs half a second to start.

    Seconds: `shown`, to wait until all that was changed is shown; `plan` and `page`, for an answer of the child.
    """

    images: int = 2000
    shown: float = 10.0
    plan: float = 60.0
    page: float = 60.0


DEFAULT_SOURCE_LIMITS = SourceLimits()


_Open = Callable[[Store, DatasetId, SourceLimits], AbstractAsyncContextManager[PageSource]]


@asynccontextmanager
async def open_source(
    store: Store, dataset_id: DatasetId, limits: SourceLimits = DEFAULT_SOURCE_LIMITS
) -> AsyncIterator[tuple[PageSource, FreezePlan]]:
    """As `OpenSource`, of a data set in this read model. Unavailable: the child process ended, or did not answer."""
    opened: _Open = _in_process
    while True:
        async with opened(store, dataset_id, limits) as source:
            found = await source.plan()
            if isinstance(found, FreezePlan) and (opened is _in_child or found.count_changed() <= limits.images):
                yield source, found
                return
        if isinstance(found, Unsettled):
            await store.wait_until_shown(("dataset", dataset_id), found.sequence, limits.shown)
        else:
            opened = _in_child


class _SnapshotSource(PageSource):
    def __init__(self, snapshot: Snapshot, dataset_id: DatasetId) -> None:
        self._snapshot, self._dataset_id = snapshot, dataset_id
        self._reader = PageReader(dataset_id)

    async def plan(self) -> FreezePlan | Unsettled:
        return await self._snapshot.read(partial(plan, self._dataset_id))

    async def make(self, request: PageRequest) -> EncodedPage:
        return await self._snapshot.read(partial(self._reader.make, request))


class _ChildSource(PageSource):
    def __init__(self, child: PipedChild, limits: SourceLimits) -> None:
        self._child, self._limits = child, limits
        self._turn = asyncio.Lock()
        """The child makes one page at a time."""

    async def plan(self) -> FreezePlan | Unsettled:
        async with _answering(self._limits.plan):
            return await self._child.receive(PLANS)

    async def make(self, request: PageRequest) -> EncodedPage:
        async with self._turn, _answering(self._limits.page):
            await self._child.send(REQUESTS.encode(request))
            return await self._child.receive(PAGES)


@asynccontextmanager
async def _in_process(store: Store, dataset_id: DatasetId, _: SourceLimits) -> AsyncIterator[PageSource]:
    async with store.snapshot() as snapshot:
        yield _SnapshotSource(snapshot, dataset_id)


@asynccontextmanager
async def _in_child(store: Store, dataset_id: DatasetId, limits: SourceLimits) -> AsyncIterator[PageSource]:
    async with store.snapshot_elsewhere() as path:
        child = await PipedChild.start((sys.executable, "-m", "catalog.freezing.reader", str(path), dataset_id))
        try:
            yield _ChildSource(child, limits)
        finally:
            await child.kill()  # it only reads, and may be in the middle of a page


@asynccontextmanager
async def _answering(seconds: float) -> AsyncIterator[None]:
    """Unavailable: the child ended, or did not answer in time."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except (TimeoutError, PipeError) as error:
        raise Unavailable("reading the data set for a version failed; the catalog's log says why") from error
