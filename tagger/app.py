"""Composition root of the tagger: settings → bus and blobs → worker → tasks."""

import asyncio
import os
import platform
from collections.abc import Collection

import structlog

from contracts.events.tagging import TAGGING_WORK
from contracts.ids import Digest, ulid, worker_id
from contracts.wire.blobs.erased_copies import purge_erased
from contracts.wire.blobs.store import blobs_at
from contracts.wire.log.service_keys import ServiceLog
from contracts.wire.service.connection import connect_service
from contracts.wire.service.health import Health
from contracts.wire.service.metrics import ServiceMetrics, disk_source
from contracts.wire.service.metrics_endpoint import serve_metrics
from contracts.wire.workers.heartbeat import HeartbeatPublisher
from contracts.wire.workers.metrics import worker_metrics
from contracts.wire.workers.worker import Attempt, Worker, WorkerIdentity
from tagger import models
from tagger.settings import Settings
from tagger.worker import Runner, delete_temporary_files

_log = structlog.get_logger()


async def serve(settings: Settings) -> None:
    """Run until cancelled; the current run is then released for another worker."""
    health = Health("tagger", ["bus"], pid=os.getpid())
    settings.work.mkdir(parents=True, exist_ok=True)
    bus = await connect_service(settings, "tagger")
    boot = ulid()
    worker = worker_id(platform.node(), boot)
    identity = WorkerIdentity(kind=TAGGING_WORK, worker=worker, boot=boot, lease=settings.lease, stall=settings.stall)
    heartbeat = HeartbeatPublisher(
        service="tagger", worker=worker, models=lambda: models.offered_models(settings.models), state="idle"
    )
    runner = Runner(bus, blobs_at(settings.blobs), settings)
    metrics = ServiceMetrics("tagger", bus)
    metrics.add("worker", worker_metrics(heartbeat))
    metrics.add("disk", disk_source({"work": settings.work}))

    async def run(attempt: Attempt) -> None:
        heartbeat.state, heartbeat.holds = "busy", attempt.aggregate_id
        try:
            await runner.run(attempt)
        finally:
            heartbeat.state, heartbeat.holds = "idle", None

    async def delete_copies(pictures: Collection[Digest]) -> None:
        await asyncio.to_thread(delete_temporary_files, pictures, work=settings.work)

    async def exit_process() -> None:
        """End the process: the model runs in a thread that cannot be interrupted when it hangs."""
        _log.error("model_stalled", worker=worker)
        await bus.flush()
        os._exit(1)

    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(health.run(settings.health_file), name="health")
            tasks.create_task(bus.watch(), name="bus")
            tasks.create_task(serve_metrics(metrics, settings.metrics, settings.health_file.parent), name="metrics")
            tasks.create_task(heartbeat.run(bus), name="presence")
            log = ServiceLog(bus, "tagger", settings.signing_key)
            tasks.create_task(Worker(bus, identity, run, log=log, on_stalled=exit_process).run(), name="worker")
            tasks.create_task(purge_erased(bus, delete_copies), name="erased")
            health.set("bus", True)
            _log.info("tagger_ready", worker=worker, models=models.offered_models(settings.models))
    except asyncio.CancelledError:
        if runner.models.is_loading:
            await bus.close()
            os._exit(0)  # a thread that loads a model cannot be interrupted, and the end would wait for it
        raise
    finally:
        await bus.close()
