"""The tagger, put together: settings → bus and blobs → worker → tasks."""

import asyncio
import os
import platform
from functools import partial

import structlog

from contracts.ids import ulid, worker_id
from contracts.wire.blobs import blobs_at
from contracts.wire.boot import Health
from contracts.wire.bus import connect
from contracts.wire.erased import keep_clean
from contracts.wire.presence import Sign
from contracts.wire.work import Attempt, Holder, Worker
from tagger import models
from tagger.settings import Settings
from tagger.worker import Runner, drop

_log = structlog.get_logger()


async def serve(settings: Settings) -> None:
    """Runs until it is cancelled; the run under way is then handed back."""
    health = Health("tagger", ["bus"], pid=os.getpid())
    settings.work.mkdir(parents=True, exist_ok=True)
    bus = await connect(settings.nats_url, settings.nats_user, settings.nats_password, "tagger")
    boot = ulid()
    worker = worker_id(platform.node(), boot)
    holder = Holder(work="tag", worker=worker, boot=boot, lease=settings.lease, stall=settings.stall)
    sign = Sign(service="tagger", worker=worker, models=lambda: tuple(models.known(settings.models)), state="idle")
    runner = Runner(bus, blobs_at(settings.blobs), settings)

    async def run(attempt: Attempt) -> None:
        sign.state, sign.holds = "busy", attempt.thing
        try:
            await runner.run(attempt)
        finally:
            sign.state, sign.holds = "idle", None

    async def end() -> None:
        """A model runs in a thread, and one that hangs would be waited for, for ever; the next life loads it anew."""
        _log.error("model_hangs", worker=worker)
        await bus.flush()
        os._exit(1)

    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(health.keep(settings.health_file), name="health")
            tasks.create_task(bus.watch(), name="bus")
            tasks.create_task(sign.show(bus), name="presence")
            tasks.create_task(Worker(bus, holder, run, after_hang=end).work_off(), name="worker")
            tasks.create_task(keep_clean(bus, partial(drop, work=settings.work)), name="erased")
            health.set("bus", True)
            _log.info("tagger_ready", worker=worker, models=list(models.known(settings.models)))
    finally:
        await bus.close()
