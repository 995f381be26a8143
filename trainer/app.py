"""Builds the trainer: settings → bus and blobs → worker → tasks."""

import asyncio
import os
import platform
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

import structlog

from contracts.errors import SetupError
from contracts.events.jobs import JOB_WORK
from contracts.ids import ulid, worker_id
from contracts.wire.blobs.erased_copies import purge_erased
from contracts.wire.blobs.store import blobs_at
from contracts.wire.log.service_keys import ServiceLog
from contracts.wire.service.connection import connect_service
from contracts.wire.service.health import Health
from contracts.wire.service.metrics_endpoint import serve_metrics
from contracts.wire.system.files import NO_SPACE, remove_abandoned_drafts
from contracts.wire.workers.heartbeat import HeartbeatPublisher
from contracts.wire.workers.worker import Worker, WorkerIdentity
from trainer.erasure import purge_unattributed
from trainer.lora_folder import LoraFolder
from trainer.metrics import trainer_metrics
from trainer.settings import Settings
from trainer.training_request import DRAFTS
from trainer.warm_engine import WarmEngine
from trainer.worker import Trainer

STALE_WORK_DIR_SECONDS = 7 * 24 * 3600.0

_log = structlog.get_logger()


async def serve(settings: Settings, environment: Mapping[str, str]) -> None:
    """Runs until cancelled; an attempt that has trained steps then writes a checkpoint, and is released."""
    health = Health("trainer", ["bus", "engine"], pid=os.getpid())
    boot = ulid()
    # A folder of this process alone: other trainers may use the same work folder.
    work_dir = settings.work / boot
    _create_folders(settings.bases, settings.cache, settings.loras, work_dir)
    await asyncio.to_thread(remove_leftovers, settings)
    bus = await connect_service(settings, "trainer")
    worker = worker_id(platform.node(), boot)
    identity = WorkerIdentity(kind=JOB_WORK, worker=worker, boot=boot, lease=settings.lease, stall=settings.stall)
    heartbeat = HeartbeatPublisher(service="trainer", worker=worker)
    engine, blobs = WarmEngine(environment, heartbeat), blobs_at(settings.blobs)
    trainer = Trainer(bus, blobs, settings, engine, work_dir)
    loras = LoraFolder(settings.loras, blobs)
    metrics = trainer_metrics(bus, settings, engine)
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(health.run(settings.health_file), name="health")
            tasks.create_task(bus.watch(), name="bus")
            tasks.create_task(serve_metrics(metrics, settings.metrics, settings.health_file.parent), name="metrics")
            tasks.create_task(heartbeat.run(bus), name="heartbeat")
            health.set("bus", True)
            tasks.create_task(purge_erased(bus, trainer.delete_erased), name="erased")
            await engine.start()
            heartbeat.state = "idle"
            health.set("engine", True)
            _log.info("trainer_ready", worker=worker, device=heartbeat.device)
            log = ServiceLog(bus, "trainer", settings.signing_key)
            worker_loop = Worker(bus, identity, trainer.run, log=log, on_ended=loras.publish_finished)
            tasks.create_task(worker_loop.run(), name="worker")
    finally:
        await engine.close()
        await bus.close()
        await asyncio.to_thread(shutil.rmtree, work_dir, ignore_errors=True)


def _create_folders(*folders: Path) -> None:
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            if error.errno in NO_SPACE:
                raise
            raise SetupError(f"the folder {folder} cannot be created: {error.strerror}") from error


def remove_leftovers(settings: Settings) -> None:
    """Delete what killed trainers left in the folders, and old caches. What is recent may be a running trainer's."""
    for folder in (*settings.work.iterdir(), *(settings.cache / DRAFTS).glob("*")):
        if folder.is_dir() and folder.stat().st_mtime < time.time() - STALE_WORK_DIR_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)
    remove_abandoned_drafts(settings.loras)
    purge_unattributed(settings.cache)
