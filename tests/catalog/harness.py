"""The catalog in-process, built as app.py builds it: a real log, real files, the real decoder."""

import asyncio
import hashlib
import io
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from PIL import Image

from catalog import views
from catalog.app import command_handlers
from catalog.archive import Archive
from catalog.database import Connection
from catalog.dispatch import Dispatcher
from catalog.ingest.outcomes import Limits
from catalog.ingest.pool import Decoder
from catalog.keys import Keys
from catalog.projection import project
from catalog.service.erasure import ErasureCommands
from catalog.service.execution import CommandExecutor
from catalog.service.importer import ImageImporter
from catalog.service.purging import Purger
from catalog.store import Store
from catalog.views import images
from catalog.views.images import ImageRow
from contracts.commands import (
    Command,
    CommandMetadata,
    CreateDataset,
    DatasetCommand,
    DatasetEnvelope,
    ImportImages,
    ImportResult,
    JobCommand,
    JobEnvelope,
    PresetCommand,
    PresetEnvelope,
    R,
    StagedFile,
    TaggingCommand,
    TaggingEnvelope,
    result_type_of,
)
from contracts.events import AnyEvent, Commit, DatasetEvent, RecordedCommit
from contracts.ids import CommandId, DatasetId, Digest, ImageId, ulid
from contracts.subjects import AggregateKind
from contracts.telemetry import Applied
from contracts.wire.blobs import LocalBlobs
from contracts.wire.bus import Bus
from contracts.wire.log import EventLog, StreamRevision, build_commit
from contracts.wire.telemetry_bus import publish_erased
from tests.catalog.log_builder import image_added
from tests.conftest import LEASE


@dataclass
class CatalogHarness:
    bus: Bus
    executor: CommandExecutor
    importer: ImageImporter
    dispatcher: Dispatcher
    blobs: LocalBlobs
    erasing: ErasureCommands

    @property
    def keys(self) -> Keys:
        return self.importer.keys

    async def execute(
        self, command: Command[R], command_id: str | None = None, fingerprint: str = "", actor: str = "ann"
    ) -> R:
        metadata = CommandMetadata(
            command_id=CommandId(command_id or ulid()), actor=actor, at=datetime.now(UTC), fingerprint=fingerprint
        )
        envelopes = (
            (DatasetEnvelope, DatasetCommand),
            (TaggingEnvelope, TaggingCommand),
            (PresetEnvelope, PresetCommand),
            (JobEnvelope, JobCommand),
        )
        envelope = next(envelope for envelope, commands in envelopes if isinstance(command, commands))
        handle = command_handlers(self.importer, self.dispatcher, self.erasing)[envelope]
        result = await handle(envelope(metadata=metadata, command=command))  # type: ignore[arg-type]
        assert isinstance(result, result_type_of(type(command)))
        return result

    async def dataset(self, name: str = "cats", pictures: int = 0) -> DatasetId:
        """A data set with images that exist only in the log: enough for tests that do not read their bytes."""
        dataset = DatasetId((await self.execute(CreateDataset(name=name))).id)
        if pictures:
            added = [image_added(dataset, ordinal) for ordinal in range(pictures)]
            await self.keys.create_keys(event.image_id for event in added)
            await self.append("dataset", dataset, *added)
        return dataset

    async def import_files(self, dataset: str, *files: StagedFile, command_id: str | None = None) -> ImportResult:
        return await self.execute(ImportImages(dataset=dataset, files=files), command_id)

    def stage(self, name: str, content: bytes, caption: str | None = None, tags: Sequence[str] = ()) -> StagedFile:
        token = ulid()
        (self.importer.staging / token).write_bytes(content)
        digest = Digest(hashlib.sha256(content).hexdigest())
        return StagedFile(token=token, name=name, digest=digest, size=len(content), caption=caption, tags=tuple(tags))

    async def append(self, aggregate_kind: AggregateKind, aggregate_id: str, *events: AnyEvent) -> int:
        """Append as another writer, and wait until the read model shows it."""
        revision = (await self.executor.log.load(aggregate_kind, aggregate_id)).revision
        metadata = CommandMetadata(command_id=CommandId(ulid()), actor="other", at=datetime.now(UTC))
        commit = build_commit(aggregate_kind, aggregate_id, events, expected_revision=revision, metadata=metadata)
        recorded = await EventLog(self.bus).append(commit, revision)
        await self.executor.store.wait_for(recorded.sequence, 5)
        return recorded.sequence

    async def events(self, aggregate_kind: AggregateKind, aggregate_id: str) -> list[AnyEvent]:
        return [event for event, _ in (await EventLog(self.bus).load(aggregate_kind, aggregate_id)).events()]

    async def image(self, image: str) -> ImageRow:
        row = await self.executor.store.read(lambda connection: images.find(connection, image))
        assert row is not None
        return row

    async def tags(self, image: str) -> set[str]:
        def read(connection: Connection) -> set[str]:
            row = images.find(connection, image)
            assert row is not None
            return set(images.effective_tags(connection, row.dataset_id, [row.ordinal])[row.ordinal].names)

        return await self.executor.store.read(read)


@asynccontextmanager
async def open_catalog(bus: Bus, folder: Path) -> AsyncIterator[CatalogHarness]:
    """A catalog that has caught up; opened again on the same folder it resumes where it stopped."""
    staging = folder / "staging"
    staging.mkdir(parents=True, exist_ok=True)
    archive = Archive(folder / "catalog")
    store = Store(folder / "catalog" / "read.db", await archive.verify_on_start(EventLog(bus)), views)
    keys, blobs = Keys(folder / "catalog" / "keys.db"), LocalBlobs(folder / "blobs")

    async def ignore_applied(_: Applied) -> None:
        pass

    background: list[asyncio.Task[None]] = [asyncio.create_task(project(bus, store, archive, ignore_applied))]
    try:
        async with Decoder(Limits(), workers=1) as decoder:
            _, end = await EventLog(bus).end()
            await store.wait_for(end, 20)
            executor = CommandExecutor(EventLog(bus), store)
            importer = ImageImporter(executor, keys, blobs, decoder, staging)
            dispatcher = Dispatcher(bus, store, executor.log, lease=LEASE)
            purger = Purger(executor, keys, blobs, staging, importer.pins, partial(publish_erased, bus))
            erasing = ErasureCommands(executor, purger)
            background.append(asyncio.create_task(erasing.run()))
            yield CatalogHarness(bus, executor, importer, dispatcher, blobs, erasing)
    finally:
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        for file in (keys, store, archive):
            await file.close()


class RacingLog(EventLog):
    """A log in which another writer appends to the same data set before an append, once per given event."""

    def __init__(self, harness: CatalogHarness, *events: DatasetEvent) -> None:
        super().__init__(harness.bus)
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


def event_names(events: Sequence[AnyEvent] | Sequence[DatasetEvent]) -> list[str]:
    return [type(event).__name__ for event in events]
