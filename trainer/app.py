"""The trainer, put together: settings → bus and blobs → worker → tasks."""

import asyncio
import os
import platform
import shutil
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import structlog

from contracts.errors import SetupError
from contracts.ids import ulid, worker_id
from contracts.wire.blobs import blobs_at
from contracts.wire.boot import Health
from contracts.wire.bus import connect
from contracts.wire.erased import keep_clean
from contracts.wire.presence import Sign
from contracts.wire.work import Holder, Worker
from trainer.copies import drop, drop_nameless
from trainer.settings import Settings
from trainer.worker import Trainer

LEFT_OVER_SECONDS = 7 * 24 * 3600.0

_log = structlog.get_logger()


async def serve(settings: Settings, environment: Mapping[str, str]) -> None:
    """Runs until it is cancelled; the attempt under way then leaves a checkpoint and is handed back."""
    health = Health("trainer", ["bus", "engine"], pid=os.getpid())
    boot = ulid()
    # A folder of this life alone: other trainers may work beside it in the same place.
    workshop = settings.work / boot
    _make(settings.bases, settings.cache, settings.loras, workshop)
    await asyncio.to_thread(_clear_away, settings.work, time.time() - LEFT_OVER_SECONDS)
    await asyncio.to_thread(drop_nameless, settings.cache)
    bus = await connect(settings.nats_url, settings.nats_user, settings.nats_password, "trainer")
    worker = worker_id(platform.node(), boot)
    holder = Holder(work="train", worker=worker, boot=boot, lease=settings.lease, stall=settings.stall)
    sign = Sign(service="trainer", worker=worker)
    trainer = Trainer(bus, blobs_at(settings.blobs), settings, workshop, sign, environment)
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(health.keep(settings.health_file), name="health")
            tasks.create_task(bus.watch(), name="bus")
            tasks.create_task(sign.show(bus), name="presence")
            health.set("bus", True)
            tasks.create_task(keep_clean(bus, partial(drop, cache=settings.cache, work=settings.work)), name="erased")
            await trainer.warm_up()
            sign.state = "idle"
            health.set("engine", True)
            _log.info("trainer_ready", worker=worker, device=sign.device)
            tasks.create_task(Worker(bus, holder, trainer.run, trainer.settle).work_off(), name="worker")
    finally:
        await trainer.close()
        await bus.close()
        await asyncio.to_thread(shutil.rmtree, workshop, ignore_errors=True)


def _make(*folders: Path) -> None:
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SetupError(f"the folder {folder} cannot be made: {error.strerror}") from error


def _clear_away(work: Path, before: float) -> None:
    """What trainers that were killed left behind; a folder that was touched lately may belong to one that lives."""
    for folder in work.iterdir():
        if folder.is_dir() and folder.stat().st_mtime < before:
            shutil.rmtree(folder, ignore_errors=True)
