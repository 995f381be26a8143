"""Builds the catalog: settings → log and files → service → tasks."""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path

import structlog

from catalog import audit, views
from catalog.archive.archive import Archive
from catalog.audit import Auditor, NameCures
from catalog.cures import named_cure, with_cure_of_damage, with_cures
from catalog.dispatch import Dispatcher, DispatchTiming
from catalog.domain.image_sets import unread_blobs, with_bitmaps
from catalog.entries import commits_at, lineage
from catalog.freezing.sources import open_source
from catalog.image_sets import SetReader, store_sets
from catalog.ingest.outcomes import Limits
from catalog.ingest.pool import Decoder
from catalog.key_file import open_keys
from catalog.keys import KEYS, Keys
from catalog.metrics import CatalogMetrics
from catalog.planning.planner import Planner
from catalog.prediction_index import PredictionIndex
from catalog.projection import is_current, project
from catalog.query_handlers.context import ManifestReader, QueryContext
from catalog.query_handlers.sequences import refusing_unknown_sequences
from catalog.query_handlers.table import query_handlers
from catalog.replays import Replays
from catalog.service import erasure
from catalog.service.blob_pins import BlobPins
from catalog.service.context import CommandContext
from catalog.service.execution import CommandExecutor
from catalog.service.freezing import Freezer
from catalog.service.handlers import command_handlers
from catalog.service.imports import ImageImporter, remove_stale_work_folders
from catalog.service.job_freezing import JobFreezer
from catalog.service.purging import DEFAULT_PURGE_LIMITS, PurgeLimits, Purger
from catalog.service_keys import KeyRegistrar, StoreVerdicts, check_root
from catalog.settings import Settings
from catalog.store import Store
from catalog.tag_index import TagIndex
from catalog.text_index import DEFAULT_TEXT_LIMITS, TextIndexes, TextLimits
from catalog.views import set_blobs
from catalog.views.prediction_parts import read_current
from catalog.watch import queries as watch_queries
from catalog.watch.repair import Repairer
from catalog.watch.watch import DEFAULT_WATCH, Watch, WatchPolicy, policy_for
from contracts.commits import RecordedCommit
from contracts.errors import LogDamaged, LoratoryError
from contracts.retry import repeat
from contracts.telemetry import Applied, ImagesErased, LossesFound
from contracts.wire.blobs.store import Blobs, LocalBlobs, blobs_at
from contracts.wire.log.event_log import EventLog
from contracts.wire.log.lease import Lease
from contracts.wire.service.boot import leaf_errors
from contracts.wire.service.bus import Bus
from contracts.wire.service.connection import connect_service
from contracts.wire.service.health import Health
from contracts.wire.service.metrics import ServiceMetrics, disk_source
from contracts.wire.service.metrics_endpoint import serve_metrics
from contracts.wire.service.requests import Service, require_all_handlers
from contracts.wire.service.telemetry import publish

CATCH_UP_TIMEOUT_SECONDS = 600.0
"""Time limit at start for applying the log to the read model, which may include a complete rebuild."""

KEY_CHECK_SECONDS = 5.0
"""Interval at which the file of the catalog's signing key is read: a new key in it replaces the one before."""
DAMAGE_NOTICES, DAMAGE_NOTICE_SECONDS = 8, 0.5
"""How often, and at which interval, a catalog that ends says that the log is damaged."""
DRAFTS_SECONDS = 3600.0
"""Interval at which unfinished blobs of killed writers are removed."""

_log = structlog.get_logger()


@dataclass(frozen=True)
class Resources:
    """What a catalog owns while it runs; `folder` holds its files, `staging` the gateway's uploads."""

    folder: Path
    staging: Path
    archive: Archive
    store: Store
    keys: Keys
    blobs: Blobs
    decoder: Decoder
    name_cures: NameCures = lambda report: report


@dataclass(frozen=True)
class Policies:
    """Intervals and limits of a catalog's background work."""

    dispatch: DispatchTiming = field(default_factory=DispatchTiming)
    purge: PurgeLimits = DEFAULT_PURGE_LIMITS
    watch: WatchPolicy = DEFAULT_WATCH
    texts: TextLimits = DEFAULT_TEXT_LIMITS


class Catalog:
    """The parts of a catalog, connected; `log` is fenced by the lease."""

    def __init__(
        self,
        bus: Bus,
        log: EventLog,
        resources: Resources,
        policies: Policies,
    ) -> None:
        archive, store, keys, blobs = resources.archive, resources.store, resources.keys, resources.blobs
        self.dispatcher = Dispatcher(bus, store, log, policies.dispatch)
        executor = CommandExecutor(log, store, self._on_appended, partial(store_sets, blobs))
        self.importer = ImageImporter(blobs, resources.decoder, resources.staging, BlobPins())
        notify_workers = partial(publish, bus, ImagesErased())
        pins = self.importer.pins
        self.purger = Purger(executor, keys, blobs, resources.staging, pins, notify_workers, policies.purge)
        self.replays = Replays(resources.folder)
        repairer = Repairer(store, blobs, resources.decoder, resources.staging, pins.pin)
        self.watch = Watch(store, blobs, resources.folder / KEYS, repairer, policies.watch)
        self.freezer = Freezer(store, keys, blobs, lambda: self.watch.losses, partial(open_source, store))
        self.texts, self.predictions = TextIndexes(store, keys, policies.texts), PredictionIndex(read_current)
        self.context = CommandContext(
            executor,
            partial(_commits_at, archive, store),
            keys,
            blobs,
            self.purger.purge_now,
            self.freezer.losses,
            self.texts,
            self.predictions,
        )
        self.job_freezer = JobFreezer(self.context, self.freezer)
        self.commands = command_handlers(self.context, self.importer, self.freezer)
        queried = QueryContext(
            store=store,
            archive=archive,
            keys=keys,
            manifests=ManifestReader(blobs, self.watch.require_blob),
            texts=self.texts,
            predictions=self.predictions,
            tags=TagIndex(store),
            pending_purges=self.purger.pending,
        )
        audits = audit.handlers(Auditor(archive, log, keys), store, self.watch, resources.name_cures)
        losses = watch_queries.handlers(self.watch, store)
        answers = {**query_handlers(queried), **audits, **losses, **self.replays.handlers()}
        self.queries = refusing_unknown_sequences(answers, partial(_end_of, log))
        self._resources = resources

    async def _on_appended(self, commits: Sequence[RecordedCommit]) -> None:
        await self.dispatcher.on_appended(commits)
        self.job_freezer.on_appended(commits)

    def add_metrics(self, metrics: ServiceMetrics) -> None:
        resources, log = self._resources, self.context.executor.log
        folders = {"catalog": resources.folder, "staging": resources.staging}
        if isinstance(resources.blobs, LocalBlobs):
            folders["blobs"] = resources.blobs.root
        metrics.serves_requests()
        metrics.add("disk", disk_source(folders))
        depth, texts = lambda: self.dispatcher.queue_depth, lambda: self.texts.bytes
        found = CatalogMetrics(resources.store, resources.archive, log, queue_depth=depth, text_bytes=texts)
        found.add_to(metrics, resources.folder)


async def _end_of(log: EventLog) -> int:
    return (await log.end())[1]


async def _commits_at(archive: Archive, store: Store, sequences: Sequence[int]) -> list[RecordedCommit]:
    commits = await archive.read(lambda log: list(commits_at(log, sequences)))
    owners = {recorded.commit.aggregate_id for recorded in commits if unread_blobs(recorded)}
    found = await store.read(lambda connection: set_blobs.of_owners(connection, owners)) if owners else {}
    return [with_bitmaps(recorded, found.__getitem__) for recorded in commits]


async def serve(settings: Settings) -> None:
    """Runs until cancelled; on standby while another catalog holds the lease. LeaseLost: another one took over.

    LogDamaged: the log is not the one that was archived; nothing was served.
    """
    health = Health("catalog", ["writer", "log", "read_model"], pid=os.getpid())
    health.set("writer", False, "another catalog writes; this one is on standby")
    async with AsyncExitStack() as stack:
        bus = await connect_service(settings, "catalog")
        await stack.enter_async_context(bus)
        await stack.enter_async_context(_publish_damage(bus))
        stack.enter_context(named_cure(settings))
        background = await stack.enter_async_context(asyncio.TaskGroup())
        background.create_task(health.run(settings.health_file), name="health")
        background.create_task(bus.watch(), name="bus")
        metrics = ServiceMetrics("catalog", bus)
        serving = serve_metrics(metrics, settings.metrics, settings.health_file.parent)
        background.create_task(serving, name="metrics")
        # First of all: the files opened below may be in use by the catalog that holds the lease.
        lease = Lease(bus)
        await lease.acquire()
        background.create_task(lease.keep_renewed(), name="lease")
        health.set("writer", True)
        await _run(settings, bus, lease, health, metrics)


async def _run(settings: Settings, bus: Bus, lease: Lease, health: Health, metrics: ServiceMetrics) -> None:
    """Runs the catalog that holds the lease."""
    log = EventLog(bus, lease.check)
    async with AsyncExitStack() as stack:
        resources = await _open(settings, log, stack)
        health.set("log", True)
        remove_stale_work_folders(settings.staging)
        log.verdicts = StoreVerdicts(resources.store)
        texts = TextLimits(memory=settings.text_index_bytes)
        policies = Policies(watch=policy_for(settings, resources.blobs), texts=texts)
        catalog = Catalog(bus, log, resources, policies)
        require_all_handlers("catalog", catalog.commands, catalog.queries)
        service = Service(bus, "catalog", version("loratory"), observe=metrics.observe)
        stack.push_async_callback(service.close)
        archive, store = resources.archive, resources.store
        catalog.add_metrics(metrics)
        async with asyncio.TaskGroup() as tasks:
            projection = project(bus, store, archive, partial(publish, bus), SetReader(archive, [resources.blobs]).read)
            tasks.create_task(archive.explain_damage(projection), name="projection")
            _, end = await log.end()
            await store.wait_until_settled(end, CATCH_UP_TIMEOUT_SECONDS)
            await _begin_signing(settings, log, resources, tasks)
            tasks.create_task(store.fail_when_damaged(), name="damage of the read model")
            await erasure.finish(catalog.context, catalog.purger)  # before anybody can ask for what was erased
            await service.start(commands=catalog.commands, queries=catalog.queries)
            tasks.create_task(catalog.replays.run(), name="replays")
            tasks.create_task(archive.verify_periodically(log), name="verification")
            tasks.create_task(catalog.purger.run(), name="erasures")
            tasks.create_task(catalog.dispatcher.run(), name="dispatcher")
            tasks.create_task(catalog.job_freezer.run(), name="freezing for jobs")
            tasks.create_task(catalog.watch.run(partial(_publish_losses, settings, bus, health)), name="watch")
            remove_drafts = resources.blobs.remove_abandoned_drafts
            drafts = repeat(remove_drafts, every=DRAFTS_SECONDS, on=OSError, warn="drafts_not_removed")
            tasks.create_task(drafts, name="drafts")
            health.set("read_model", True)
            _log.info("catalog_ready", applied=store.applied, log_id=archive.log_id)


async def _begin_signing(settings: Settings, log: EventLog, resources: Resources, tasks: asyncio.TaskGroup) -> None:
    """Before the first append: registers the catalog's key. The tasks register new ones, and other services'."""
    registrar = await KeyRegistrar.open(log, resources.archive, resources.store, resources.keys)
    key_file = settings.signing_key or settings.catalog / "signing.key"
    await registrar.authorize(log, key_file)
    tasks.create_task(registrar.serve(), name="service-keys")
    authorize = partial(registrar.authorize, log, key_file)
    rotation = repeat(authorize, every=KEY_CHECK_SECONDS, on=LoratoryError, warn="signing_key_not_read")
    tasks.create_task(rotation, name="signing-key")


async def _publish_losses(settings: Settings, bus: Bus, health: Health, found: LossesFound) -> None:
    named = LossesFound(report=await asyncio.to_thread(with_cures, settings, found.report))
    health.set_degraded(named.report.describe())
    await publish(bus, named)


async def _open(settings: Settings, log: EventLog, stack: AsyncExitStack) -> Resources:
    """LogDamaged: the log is not the one that was archived, or the key file is lost."""
    for folder in (settings.catalog, settings.staging):
        folder.mkdir(parents=True, exist_ok=True)
    archive = await stack.enter_async_context(Archive(settings.catalog))
    log_id = await archive.verify_on_start(log)
    ids, (_, end) = await archive.read(lineage), await log.end()
    keys = await stack.enter_async_context(await open_keys(settings.catalog, ids, log_id, required=end > 1))
    await check_root(archive, keys, log)
    store = await stack.enter_async_context(Store(settings.catalog / "read.db", log_id, views))
    await stack.enter_async_context(Planner(store))
    if not await is_current(store, archive):
        await archive.ensure_verified()  # rows are computed from it
    decoder = await stack.enter_async_context(Decoder(Limits(), workers=settings.decoders))
    blobs = blobs_at(settings.blobs)
    name_cures = partial(with_cure_of_damage, settings)
    return Resources(settings.catalog, settings.staging, archive, store, keys, blobs, decoder, name_cures)


@asynccontextmanager
async def _publish_damage(bus: Bus) -> AsyncIterator[None]:
    """Publish that the log is damaged before the catalog exits because of it, so that the gateway can show it."""
    try:
        yield
    except (LogDamaged, BaseExceptionGroup) as error:
        damage = next((leaf.detail for leaf in leaf_errors(error) if isinstance(leaf, LogDamaged)), "")
        if damage:
            await _announce_damage(bus, damage)
        raise


async def _announce_damage(bus: Bus, damage: str) -> None:
    """Several times after a restart of the server: the gateway may be reconnected a moment later than this service."""
    for _ in range(DAMAGE_NOTICES):
        await publish(bus, Applied(log_id="", sequence=0, verified=False, damage=damage))
        if not bus.stats["reconnects"]:
            return
        await asyncio.sleep(DAMAGE_NOTICE_SECONDS)
