"""Builds the catalog: settings → log and files → service → tasks."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from importlib.metadata import version

import structlog

from catalog import audit, views
from catalog.archive import Archive
from catalog.audit import Auditor
from catalog.dispatch import Dispatcher
from catalog.ingest.outcomes import Limits
from catalog.ingest.pool import Decoder
from catalog.keys import Keys
from catalog.projection import project
from catalog.query_handlers import QueryHandlers
from catalog.replays import Replays
from catalog.service.datasets import DatasetCommands
from catalog.service.erasure import ErasureCommands
from catalog.service.execution import CommandExecutor
from catalog.service.importer import ImageImporter, remove_stale_work_folders
from catalog.service.purging import Purger
from catalog.service.versions import VersionFreezer
from catalog.service.work import JobCommands, PresetCommands, TaggingCommands
from catalog.settings import Settings
from catalog.store import Store
from contracts.commands import CommandEnvelope, DatasetEnvelope, JobEnvelope, PresetEnvelope, TaggingEnvelope
from contracts.errors import LogDamaged
from contracts.telemetry import Applied
from contracts.wire.blobs import blobs_at
from contracts.wire.boot import Health, leaf_errors
from contracts.wire.bus import Bus, connect
from contracts.wire.lease import Lease
from contracts.wire.log import EventLog
from contracts.wire.service import Handler, Service
from contracts.wire.telemetry_bus import publish_applied, publish_erased

CATCH_UP_TIMEOUT_SECONDS = 600.0
"""Time limit at start for applying the log to the read model, which may include a complete rebuild."""

_log = structlog.get_logger()


async def serve(settings: Settings) -> None:
    """Runs until cancelled; on standby while another catalog holds the lease. LeaseLost: another one took over.

    LogDamaged: the log is not the one that was archived; nothing was served.
    """
    health = Health("catalog", ["writer", "log", "read_model"], pid=os.getpid())
    health.set("writer", False, "another catalog writes; this one is on standby")
    for folder in (settings.catalog, settings.staging):
        folder.mkdir(parents=True, exist_ok=True)
    async with AsyncExitStack() as stack:
        bus = await stack.enter_async_context(_connected(settings))
        await stack.enter_async_context(_publish_damage(bus))
        background = await stack.enter_async_context(asyncio.TaskGroup())
        background.create_task(health.run(settings.health_file), name="health")
        background.create_task(bus.watch(), name="bus")
        # First of all: the files opened below may be in use by the catalog that holds the lease.
        lease = Lease(bus)
        await lease.acquire()
        background.create_task(lease.keep_renewed(), name="lease")
        health.set("writer", True)
        archive = Archive(settings.catalog)
        stack.push_async_callback(archive.close)
        log_id = await archive.verify_on_start(EventLog(bus))
        store = Store(settings.catalog / "read.db", log_id, views)
        stack.push_async_callback(store.close)
        keys = Keys(settings.catalog / "keys.db")
        stack.push_async_callback(keys.close)
        decoder = await stack.enter_async_context(Decoder(Limits(), workers=settings.decoders))
        blobs = blobs_at(settings.blobs)
        health.set("log", True)

        remove_stale_work_folders(settings.staging)
        log = EventLog(bus, lease.check)
        dispatcher = Dispatcher(bus, store, log, lease=settings.lease)
        executor = CommandExecutor(log, store)
        importer = ImageImporter(executor, keys, blobs, decoder, settings.staging)
        purger = Purger(executor, keys, blobs, settings.staging, importer.pins, partial(publish_erased, bus))
        erasures = ErasureCommands(executor, purger)
        replays = Replays(settings.catalog)
        service = Service(bus, "catalog", version("loratory"))
        stack.push_async_callback(service.close)

        async def announce(applied: Applied) -> None:
            await publish_applied(bus, applied)

        async with asyncio.TaskGroup() as tasks:
            projection = project(bus, store, archive, announce)
            tasks.create_task(archive.explain_damage(projection), name="projection")
            _, end = await EventLog(bus).end()
            await store.wait_for(end, CATCH_UP_TIMEOUT_SECONDS)
            await service.start(
                commands=command_handlers(importer, dispatcher, erasures),
                queries=QueryHandlers(store, archive, keys, blobs, purger.pending).handlers()
                | audit.handlers(Auditor(archive, log, keys), store)
                | replays.handlers(),
            )
            tasks.create_task(replays.run(), name="replays")
            tasks.create_task(archive.verify_periodically(log), name="verification")
            tasks.create_task(erasures.run(), name="erasures")
            tasks.create_task(dispatcher.run(), name="dispatcher")
            health.set("read_model", True)
            _log.info("catalog_ready", applied=store.applied, log_id=log_id)


def command_handlers(
    importer: ImageImporter, dispatcher: Dispatcher, erasures: ErasureCommands
) -> dict[type[CommandEnvelope], Handler]:
    executor, keys = importer.executor, importer.keys
    freezer = VersionFreezer(executor, keys, importer.blobs)
    return {
        DatasetEnvelope: DatasetCommands(executor, keys, importer, freezer, erasures).handle,
        TaggingEnvelope: TaggingCommands(executor, dispatcher).handle,
        PresetEnvelope: PresetCommands(executor).handle,
        JobEnvelope: JobCommands(executor, freezer, dispatcher).handle,
    }


@asynccontextmanager
async def _publish_damage(bus: Bus) -> AsyncIterator[None]:
    """Publish that the log is damaged before the catalog exits because of it, so that the gateway can show it."""
    try:
        yield
    except (LogDamaged, BaseExceptionGroup) as error:
        damage = next((leaf.detail for leaf in leaf_errors(error) if isinstance(leaf, LogDamaged)), "")
        if damage:
            await publish_applied(bus, Applied(log_id="", sequence=0, verified=False, damage=damage))
        raise


@asynccontextmanager
async def _connected(settings: Settings) -> AsyncIterator[Bus]:
    bus = await connect(settings.nats_url, settings.nats_user, settings.nats_password, "catalog")
    try:
        yield bus
    finally:
        await bus.close()
