"""Makes versions of data sets: pages are computed and stored outside the aggregate lock, and finished under it.

Pages that nothing changed since the version before are used again, and so are the lines of images that did not change
in the others. Pages that no version names, such as those of a freeze that was interrupted, are harmless: the next one
computes the same bytes.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from weakref import WeakValueDictionary

import msgspec
import structlog
from pyroaring import BitMap

from catalog.database import Connection
from catalog.domain import manifest
from catalog.domain import versions as rules
from catalog.domain.compose import compose
from catalog.domain.manifest import BadManifest, EncodedPage, ManifestPage
from catalog.freezing.source import OpenSource, PageRequest, PageSource
from catalog.keys import Keys
from catalog.lookup import require_dataset
from catalog.service.context import CommandContext
from catalog.service.execution import Change, CommandOutcome
from catalog.service.locks import Scope
from catalog.store import Store
from catalog.views import erasures, images, losses, versions
from catalog.views.datasets import DatasetRow
from catalog.watch.absent_keys import keys_of
from catalog.watch.losses import Losses
from contracts.commands.base import CommandMetadata, CommandResult
from contracts.commands.datasets import FreezeVersion, VersionResult
from contracts.errors import NotFound, Rejected
from contracts.events.datasets import TextSettingsSet, VersionFrozen
from contracts.ids import DatasetId, VersionId, derived
from contracts.names import require_printable
from contracts.wire.blobs.store import Blobs, Damaged

_log = structlog.get_logger()


class FreezeLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Data sets frozen at a time, and pages of each that are being stored while the next one is read."""

    datasets: int = 2
    pages: int = 4


DEFAULT_FREEZE_LIMITS = FreezeLimits()


@dataclass(frozen=True, kw_only=True)
class VersionDraft:
    """A data set as it was at log sequence `as_of`: its pages, by number, are stored, and nothing names them yet."""

    dataset_id: DatasetId
    text_settings: TextSettingsSet
    as_of: int
    pages: dict[int, ManifestPage]


@dataclass(frozen=True)
class FrozenVersion:
    """A version of a data set; `is_new`: it is not in the log yet."""

    dataset: DatasetRow
    version: VersionFrozen
    is_new: bool = False

    @property
    def change(self) -> Change:
        """The change that freezes it, without events if it is in the log."""
        return Change("dataset", self.dataset.id, [self.version] if self.is_new else [], self.dataset.revision)


@dataclass(frozen=True, kw_only=True)
class _State:
    """What is read when a draft is finished: images erased since it, and whether keys were given up since `latest`."""

    dataset: DatasetRow
    latest: VersionFrozen | None
    erased: frozenset[int]
    keys_given_up: bool


@dataclass(frozen=True)
class _PageWork:
    """A page to be made: its images now, and that of the latest version with the ordinals that changed since."""

    number: int
    live: BitMap
    base: ManifestPage | None
    changed: BitMap


@dataclass
class Freezer:
    """One per catalog. Of each data set one version is made at a time, so that each contains the one before."""

    store: Store
    keys: Keys
    blobs: Blobs
    losses: Callable[[], Losses]
    open_source: OpenSource
    limits: FreezeLimits = DEFAULT_FREEZE_LIMITS
    _slots: asyncio.Semaphore = field(init=False)
    _locks: WeakValueDictionary[DatasetId, asyncio.Lock] = field(default_factory=WeakValueDictionary)

    def __post_init__(self) -> None:
        self._slots = asyncio.Semaphore(self.limits.datasets)

    async def freeze_version(
        self, context: CommandContext, metadata: CommandMetadata, command: FreezeVersion
    ) -> CommandResult:
        """A new version, or the latest one where nothing has changed since. Only the append holds a lock."""
        executor = context.executor

        async def freeze(dataset_id: DatasetId) -> CommandResult:
            await executor.wait_until_applied()
            async with self.draft(dataset_id, command.trigger) as draft:

                async def decide() -> CommandOutcome:
                    frozen = await self.finish(draft, version_id_for(metadata))
                    number, name = frozen.version.version, frozen.dataset.name
                    result = VersionResult(id=frozen.version.version_id, name=name, version=number)
                    return CommandOutcome(result, [frozen.change])

                return await executor.execute(metadata, Scope((dataset_id,)), decide)

        return await executor.execute_once(metadata, lambda now: require_dataset(now, command.dataset).id, freeze)

    @asynccontextmanager
    async def draft(self, dataset_id: DatasetId, trigger: str | None) -> AsyncIterator[VersionDraft]:
        """The data set as the read model shows it now, to be finished in this block. Rejected: it is empty.

        `trigger`: instead of that of the data set.
        KeyMissing: a key is missing that was not given up. Behind: its changes are still being applied.
        """
        async with self._locks.setdefault(dataset_id, asyncio.Lock()), self._slots:
            yield await self._compute(dataset_id, trigger)

    async def finish(self, draft: VersionDraft, version_id: VersionId) -> FrozenVersion:
        """The version of a draft, under the data set's aggregate lock. Rejected: all images were erased meanwhile."""
        state = await self.store.read(partial(_read_state, draft))
        pages = await self._without_erased(draft.pages, state.erased)
        root = manifest.build_root(draft.text_settings, pages.values())
        rules.refuse_empty(state.dataset.name, root.images)
        content = rules.FrozenContent(
            root=root,
            manifest=await self.blobs.put(manifest.encode_root(root)),
            as_of=draft.as_of,
            latest=state.latest,
            keys_given_up=state.keys_given_up,
        )
        version = rules.freeze(content, version_id)
        return FrozenVersion(state.dataset, version, is_new=version is not state.latest)

    async def _compute(self, dataset_id: DatasetId, trigger: str | None) -> VersionDraft:
        async with self.open_source(dataset_id) as (source, plan):
            live = BitMap.deserialize(plan.live)
            rules.refuse_empty(plan.name, len(live))
            latest = await self._latest_pages(plan.latest)
            work = _plan_pages(live, BitMap.deserialize(plan.changed), latest)
            made = [page async for page in self._make_pages(dataset_id, source, list(work.values()))]
        numbers = {manifest.page_number(ordinal) for ordinal in live} - work.keys()
        pages = {number: page for number, page in latest.items() if number in numbers}
        pages |= {page.number: page for page in made}
        _log.info("version_computed", dataset=dataset_id, as_of=plan.as_of, pages=len(pages), made=len(made))
        settings = plan.text_settings
        if trigger is not None:
            require_printable("trigger", trigger.strip())
            settings = msgspec.structs.replace(settings, trigger=trigger.strip())
        return VersionDraft(dataset_id=dataset_id, text_settings=settings, as_of=plan.as_of, pages=pages)

    async def _latest_pages(self, latest: VersionFrozen | None) -> dict[int, ManifestPage]:
        """The pages of the latest version that may be used again, or in part, by number."""
        # A missing key is found when the page of its image is made.
        if latest is None or self.losses().lost_keys:
            return {}
        try:
            root = manifest.decode_root(await self.blobs.get(latest.manifest))
        except (NotFound, Damaged, BadManifest, Rejected) as error:
            _log.warning("manifest_not_reused", version_id=latest.version_id, error=error.detail)
            return {}
        stored = await asyncio.gather(*(self.blobs.exists(page.digest) for page in root.pages))
        return {page.number: page for page, is_stored in zip(root.pages, stored, strict=True) if is_stored}

    async def _make_pages(
        self, dataset_id: DatasetId, source: PageSource, work: Sequence[_PageWork]
    ) -> AsyncIterator[ManifestPage]:
        """A few are made at a time; they are read one after another. Pages without images are left out."""
        making: deque[asyncio.Task[ManifestPage | None]] = deque()
        try:
            for page in work:
                if len(making) >= self.limits.pages and (made := await making.popleft()) is not None:
                    yield made
                making.append(asyncio.create_task(self._make_page(dataset_id, source, page)))
            while making:
                if (made := await making.popleft()) is not None:
                    yield made
        finally:
            for task in making:
                task.cancel()
            await asyncio.gather(*making, return_exceptions=True)

    async def _make_page(self, dataset_id: DatasetId, source: PageSource, work: _PageWork) -> ManifestPage | None:
        """All of it where the page of the latest version is missing or damaged. KeyMissing: a key is gone."""
        try:
            base = b"" if work.base is None else await self.blobs.get(work.base.digest)
        except (NotFound, Damaged) as error:
            _log.warning("page_not_reused", dataset=dataset_id, page=work.number, error=error.detail)
            base = b""
        changed = work.live & work.changed if base else work.live
        readable, given_up = await self._readable(dataset_id, changed)
        request = PageRequest(base=base, replaced=frozenset(work.changed), read=readable, uncaptioned=given_up)
        return await self._store_page(await source.make(request))

    async def _readable(self, dataset_id: DatasetId, ordinals: BitMap) -> tuple[tuple[int, ...], frozenset[int]]:
        """Of these images those that were not erased since the snapshot, and of them those whose keys were given up.

        KeyMissing: another key is gone.
        """
        ids = await self.store.read(partial(images.ids_by_ordinal, dataset_id=dataset_id, ordinals=ordinals))
        _, absent = await keys_of(self.store, self.keys, ids.values())
        absent.refuse_missing()
        given_up = {loss.id for loss in absent.accepted}
        kept = tuple(sorted(ordinal for ordinal, image in ids.items() if image not in absent.erased))
        return kept, frozenset(ordinal for ordinal, image in ids.items() if image in given_up)

    async def _store_page(self, page: EncodedPage) -> ManifestPage | None:
        """None if no image is left."""
        if not page.images:
            return None
        return compose(ManifestPage, page, digest=await self.blobs.put(page.content))

    async def _without_erased(self, pages: dict[int, ManifestPage], erased: frozenset[int]) -> dict[int, ManifestPage]:
        """The pages, those with images that were erased since they were computed made anew."""
        kept = dict(pages)
        for number in {manifest.page_number(ordinal) for ordinal in erased} & pages.keys():
            content = await self.blobs.get(kept.pop(number).digest)
            rest = await asyncio.to_thread(manifest.replace_images, content, erased, ())
            if (page := await self._store_page(rest)) is not None:
                kept[number] = page
        return kept


def version_id_for(metadata: CommandMetadata) -> VersionId:
    """The id of the version that a command freezes."""
    return VersionId(derived("ver", metadata.command_id))


def _read_state(draft: VersionDraft, connection: Connection) -> _State:
    row, latest = require_dataset(connection, draft.dataset_id), versions.find_latest(connection, draft.dataset_id)
    given_up = losses.keys_of_dataset(connection, row.id).values() if latest is not None else ()
    return _State(
        dataset=row,
        latest=None if latest is None else latest.event,
        erased=erasures.ordinals_erased_since(connection, row.id, draft.as_of),
        keys_given_up=latest is not None and any(sequence > latest.as_of for sequence in given_up),
    )


def _plan_pages(live: BitMap, changed: BitMap, latest: dict[int, ManifestPage]) -> dict[int, _PageWork]:
    """The pages to be made, by number: those that the latest version lacks, and those with a change since."""
    work = {}
    for number in sorted({manifest.page_number(ordinal) for ordinal in live}):
        base, ordinals = latest.get(number), BitMap(manifest.ordinals_of_page(number))
        if base is None or ordinals & changed:
            work[number] = _PageWork(number, live & ordinals, base, ordinals & changed)
    return work
