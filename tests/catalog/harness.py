"""The catalog in-process, built as app.py builds it: a real log, real files, the real decoder."""

import asyncio
import hashlib
import io
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from PIL import Image

from catalog import views
from catalog.app import Catalog, Policies, Resources
from catalog.archive.archive import Archive
from catalog.database import Connection
from catalog.image_sets import SetReader
from catalog.ingest.outcomes import Limits
from catalog.ingest.pool import Decoder
from catalog.keys import Keys
from catalog.projection import project
from catalog.service import erasure
from catalog.service.blob_pins import BlobPins
from catalog.service.execution import CommandExecutor
from catalog.service.purging import PurgeLimits, Purger
from catalog.service_keys import KeyRegistrar, StoreVerdicts, check_root
from catalog.store import Store
from catalog.views import decisions, images, jobs, work
from catalog.views.images import ImageRow
from contracts.aggregates import REGISTRY, AnyEvent
from contracts.commands.base import Command, CommandMetadata, R, result_type_of
from contracts.commands.datasets import CreateDataset, ImportImages, ImportResult, StagedFile
from contracts.commands.jobs import CreateJob, JobResult
from contracts.commits import Commit, RecordedCommit, StreamRevision, build_commit
from contracts.events.base import SCHEMA, Event, ReadAs
from contracts.events.jobs import JobVersionSet
from contracts.events.service_keys import SigningService
from contracts.ids import CommandId, DatasetId, Digest, ImageId, JobId, ulid
from contracts.signatures import Signer
from contracts.telemetry import Applied
from contracts.wire.blobs.store import LocalBlobs
from contracts.wire.log.event_log import EventLog
from contracts.wire.server.accounts import ADMIN_KINDS
from contracts.wire.service.bus import Bus
from tests.catalog.log_builder import image_added
from tests.catalog.received import as_received
from tests.conftest import last_sequence
from tests.limits import WAIT
from tests.signing import key_named

PURGE_LIMITS = PurgeLimits(wait=WAIT)
WORKERS: tuple[SigningService, ...] = ("tagger", "trainer")


@dataclass
class CatalogHarness:
    bus: Bus
    catalog: Catalog
    staging: Path
    blobs: LocalBlobs
    archive: Archive
    admin: Bus | None = None
    """Appends what no service may: events of the log itself."""

    @property
    def executor(self) -> CommandExecutor:
        return self.catalog.context.executor

    @property
    def keys(self) -> Keys:
        return self.catalog.context.keys

    @property
    def pins(self) -> BlobPins:
        return self.catalog.importer.pins

    @property
    def purger(self) -> Purger:
        return self.catalog.purger

    async def execute(
        self, command: Command[R], command_id: str | None = None, fingerprint: str = "", actor: str = "ann"
    ) -> R:
        metadata = CommandMetadata(
            command_id=CommandId(command_id or ulid()), actor=actor, at=datetime.now(UTC), fingerprint=fingerprint
        )
        result = await self.catalog.commands[type(command)](metadata, command)
        assert isinstance(result, result_type_of(type(command)))
        return result

    async def dataset(self, name: str = "cats", pictures: int = 0, ordinals: Sequence[int] = ()) -> DatasetId:
        """A data set with images that exist only in the log: enough for tests that do not read their bytes.

        `ordinals`: those of further images.
        """
        dataset = DatasetId((await self.execute(CreateDataset(name=name))).id)
        if every := [*range(pictures), *ordinals]:
            added = [image_added(dataset, ordinal) for ordinal in every]
            await self.keys.create_keys(event.image_id for event in added)
            await self.append("dataset", dataset, *added)
        return dataset

    async def create_job(self, command: CreateJob, command_id: str | None = None) -> JobResult:
        """Create a job, and wait until it has its version or has failed."""
        result = await self.execute(command, command_id)
        await self.wait_until_frozen(result.id)
        return result

    async def wait_until_frozen(self, job: str) -> work.WorkRow:
        while True:
            applied = self.executor.store.applied
            row = await self.executor.store.read(lambda connection: work.find(connection, "train", job))
            assert row is not None
            if row.work.state != "freezing":
                if (task := self.catalog.job_freezer._running.get(JobId(job))) is not None:
                    await asyncio.wait({task})  # it puts the message into the queue after the rows were written
                return row
            await self.executor.store.wait_for(applied + 1, WAIT)

    async def version_of(self, job: str) -> JobVersionSet:
        row = await self.executor.store.read(lambda connection: jobs.find(connection, job))
        assert row is not None and row.version is not None
        return row.version

    async def import_files(
        self, dataset: str, *files: StagedFile, command_id: str | None = None, read_as: ReadAs | None = None
    ) -> ImportResult:
        return await self.execute(ImportImages(dataset=dataset, files=files, read_as=read_as), command_id)

    def stage(
        self,
        name: str,
        content: bytes,
        caption: str | None = None,
        tags: Sequence[str] = (),
        text: str | None = None,
    ) -> StagedFile:
        token = ulid()
        (self.staging / token).write_bytes(content)
        digest = Digest(hashlib.sha256(content).hexdigest())
        return StagedFile(
            token=token, name=name, digest=digest, size=len(content), caption=caption, tags=tuple(tags), text=text
        )

    async def append(self, aggregate_kind: str, aggregate_id: str, *events: AnyEvent) -> int:
        """Append as another writer, and wait until the read model shows it."""
        revision = (await self.executor.log.load(aggregate_kind, aggregate_id)).revision
        metadata = CommandMetadata(command_id=CommandId(ulid()), actor="other", at=datetime.now(UTC))
        commit = build_commit(aggregate_kind, aggregate_id, events, expected_revision=revision, metadata=metadata)
        kind = REGISTRY.by_name[aggregate_kind]
        writer = next((one for one in kind.writers if kind.may_append(one, type(events[0]))), None)
        bus, own = self.admin if aggregate_kind in ADMIN_KINDS else self.bus, self.executor.log.signer
        assert own is not None and bus is not None
        log, key = EventLog(bus), own.key
        if kind.may_append("root", type(events[0])):
            key = await self.keys.root_key()
        elif writer is not None:
            key = key_named(writer)
        log.signer = Signer(key, own.log_id)
        recorded = await log.append(commit, revision)
        await self.executor.store.wait_for(recorded.sequence, WAIT)
        return recorded.sequence

    async def events(self, aggregate_kind: str, aggregate_id: str) -> list[AnyEvent]:
        return [event for event, _ in (await self.executor.log.load(aggregate_kind, aggregate_id)).events()]

    async def image(self, image: str) -> ImageRow:
        row = await self.executor.store.read(lambda connection: images.find(connection, image))
        assert row is not None
        return row

    async def tags(self, image: str) -> set[str]:
        def read(connection: Connection) -> set[str]:
            row = images.find(connection, image)
            assert row is not None
            return set(decisions.tag_names(connection, row.dataset_id, row.ordinal))

        return await self.executor.store.read(read)


async def finish_and_purge(catalog: Catalog) -> None:
    await erasure.finish(catalog.context, catalog.purger)
    await catalog.purger.run()


@asynccontextmanager
async def open_catalog(
    bus: Bus, folder: Path, limits: PurgeLimits = PURGE_LIMITS, blobs: LocalBlobs | None = None
) -> AsyncIterator[CatalogHarness]:
    """A catalog that has caught up; opened again on the same folder it resumes where it stopped."""
    files, staging = folder / "catalog", folder / "staging"
    staging.mkdir(parents=True, exist_ok=True)
    archive = Archive(files)
    store = Store(files / "read.db", await archive.verify_on_start(EventLog(bus)), views)
    keys, blobs = await Keys.open(files / "keys.db"), blobs or LocalBlobs(folder / "blobs")
    await check_root(archive, keys, EventLog(bus))

    async def ignore_applied(_: Applied) -> None:
        pass

    read_sets = SetReader(archive, [blobs]).read
    projection = asyncio.create_task(project(bus, store, archive, ignore_applied, read_sets))
    background: list[asyncio.Task[None]] = [projection]
    try:
        async with Decoder(Limits(), workers=1) as decoder:
            log = EventLog(bus, verdicts=StoreVerdicts(store))
            await store.wait_until_settled(await last_sequence(log), 20)
            registrar = await KeyRegistrar.open(log, archive, store, keys)
            await registrar.authorize(log, folder / "catalog.key")
            for worker in WORKERS:
                await registrar.register(worker, key_named(worker).public, SCHEMA)
            resources = Resources(files, staging, archive, store, keys, blobs, decoder)
            catalog = Catalog(bus, log, resources, Policies(purge=limits))
            catalog.queries = dict(as_received(catalog.queries))
            background.append(asyncio.create_task(finish_and_purge(catalog)))
            background.append(asyncio.create_task(catalog.job_freezer.run()))
            yield CatalogHarness(bus, catalog, staging, blobs, archive)
    finally:
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        for file in (keys, store, archive):
            await file.close()


class RacingLog(EventLog):
    """A log in which another writer appends to the same data set before an append, once per given event."""

    def __init__(self, harness: CatalogHarness, *events: Event) -> None:
        super().__init__(harness.bus)
        self.signer = harness.executor.log.signer
        self._harness, self._events = harness, list(events)

    async def append_atomically(self, commits: Sequence[tuple[Commit, StreamRevision]]) -> list[RecordedCommit]:
        if self._events:
            await self._harness.append("dataset", commits[0][0].aggregate_id, self._events.pop(0))
        return await super().append_atomically(commits)


def png(colour: int, size: tuple[int, int] = (32, 32), form: str = "PNG") -> bytes:
    """A small image; each number gives another one."""
    out = io.BytesIO()
    Image.new("RGB", size, (colour * 40 % 256, colour * 90 % 256, 70)).save(out, form)
    return out.getvalue()


def image_id_of(dataset: str, ordinal: int) -> ImageId:
    return ImageId(f"img_{dataset}_{ordinal}")


def event_names(events: Sequence[AnyEvent] | Sequence[Event]) -> list[str]:
    return [type(event).__name__ for event in events]
