"""The catalog, put together: settings → log and files → service → tasks."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from importlib.metadata import version

import structlog

from catalog import audit, views
from catalog.answers import Answers
from catalog.archive import Archive
from catalog.audit import Auditor
from catalog.dispatch import Dispatcher
from catalog.ingest.outcomes import Limits
from catalog.ingest.pool import Decoder
from catalog.keys import Keys
from catalog.projection import project
from catalog.replays import Replays
from catalog.service.datasets import Datasets
from catalog.service.desk import Desk
from catalog.service.erasing import Erasing
from catalog.service.imports import Imports, clear_away
from catalog.service.sweeping import Sweeper
from catalog.service.versions import Versions
from catalog.service.work import Jobs, Presets, Tagging
from catalog.settings import Settings
from catalog.store import Store
from contracts.commands import Command, DatasetCommand, JobCommand, PresetCommand, TaggingCommand
from contracts.errors import LogDamaged
from contracts.telemetry import Applied
from contracts.wire.blobs import blobs_at
from contracts.wire.boot import Health, leaves
from contracts.wire.bus import Bus, connect
from contracts.wire.lease import Lease
from contracts.wire.log import EventLog
from contracts.wire.service import Handler, Service
from contracts.wire.telling import tell_applied, tell_erased

CATCH_UP_SECONDS = 600.0
"""A read model may be made anew from the log at the start: so long it may take before that counts as failed."""

_log = structlog.get_logger()


async def serve(settings: Settings) -> None:
    """Runs until it is cancelled; while another catalog writes it waits. LeaseLost: another took over.

    LogDamaged: the log is not the one that was archived, and nothing was served.
    """
    health = Health("catalog", ["writer", "log", "read_model"], pid=os.getpid())
    health.set("writer", False, "another catalog writes; this one waits")
    for folder in (settings.catalog, settings.staging):
        folder.mkdir(parents=True, exist_ok=True)
    async with AsyncExitStack() as stack:
        bus = await stack.enter_async_context(_connected(settings))
        await stack.enter_async_context(_telling_damage(bus))
        beside = await stack.enter_async_context(asyncio.TaskGroup())
        beside.create_task(health.keep(settings.health_file), name="health")
        beside.create_task(bus.watch(), name="bus")
        # Before anything else: what is opened below may be in use by the catalog that writes.
        lease = Lease(bus)
        await lease.take()
        beside.create_task(lease.keep(), name="lease")
        health.set("writer", True)
        archive = Archive(settings.catalog)
        stack.push_async_callback(archive.close)
        log_id = await archive.judge(EventLog(bus))
        store = Store(settings.catalog / "read.db", log_id, views)
        stack.push_async_callback(store.close)
        keys = Keys(settings.catalog / "keys.db")
        stack.push_async_callback(keys.close)
        decoder = await stack.enter_async_context(Decoder(Limits(), workers=settings.decoders))
        blobs = blobs_at(settings.blobs)
        health.set("log", True)

        clear_away(settings.staging)
        log = EventLog(bus, lease.check)
        dispatcher = Dispatcher(bus, store, log, lease=settings.lease)
        desk = Desk(log, store)
        imports = Imports(desk, keys, blobs, decoder, settings.staging)
        sweeper = Sweeper(desk, keys, blobs, settings.staging, imports.holds, partial(tell_erased, bus))
        erasing = Erasing(desk, sweeper)
        replays = Replays(settings.catalog)
        service = Service(bus, "catalog", version("loratory"))
        stack.push_async_callback(service.close)

        async def announce(applied: Applied) -> None:
            await tell_applied(bus, applied)

        async with asyncio.TaskGroup() as tasks:
            following = project(bus, store, archive, announce)
            tasks.create_task(archive.explaining(following), name="projection")
            _, end = await EventLog(bus).end()
            await store.wait_for(end, CATCH_UP_SECONDS)
            await service.start(
                commands=handlers(imports, dispatcher, erasing),
                queries=Answers(store, archive, keys, blobs, sweeper.left).handlers()
                | audit.handlers(Auditor(archive, log, keys), store)
                | replays.handlers(),
            )
            tasks.create_task(replays.run(), name="replays")
            tasks.create_task(archive.patrol(log), name="patrol")
            tasks.create_task(erasing.run(), name="erasing")
            tasks.create_task(dispatcher.mend(), name="dispatcher")
            health.set("read_model", True)
            _log.info("catalog_ready", applied=store.applied, log_id=log_id)


def handlers(imports: Imports, dispatcher: Dispatcher, erasing: Erasing) -> dict[type[Command], Handler]:
    """Who answers which wishes."""
    desk, keys = imports.desk, imports.keys
    frozen = Versions(desk, keys, imports.blobs)
    return {
        DatasetCommand: Datasets(desk, keys, imports, frozen, erasing).handle,
        TaggingCommand: Tagging(desk, dispatcher).handle,
        PresetCommand: Presets(desk).handle,
        JobCommand: Jobs(desk, frozen, dispatcher).handle,
    }


@asynccontextmanager
async def _telling_damage(bus: Bus) -> AsyncIterator[None]:
    """A log that is damaged is told of, for who shows it to people, before the catalog ends by it."""
    try:
        yield
    except (LogDamaged, BaseExceptionGroup) as error:
        damage = next((leaf.detail for leaf in leaves(error) if isinstance(leaf, LogDamaged)), "")
        if damage:
            await tell_applied(bus, Applied(log_id="", sequence=0, verified=False, damage=damage))
        raise


@asynccontextmanager
async def _connected(settings: Settings) -> AsyncIterator[Bus]:
    bus = await connect(settings.nats_url, settings.nats_user, settings.nats_password, "catalog")
    try:
        yield bus
    finally:
        await bus.close()
