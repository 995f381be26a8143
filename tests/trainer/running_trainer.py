"""A trainer with a real engine process, log and queue, and what it needs of a catalog."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

from contracts.aggregates import AnyEvent
from contracts.events.jobs import JOB_WORK, JobCreated, JobQueued, JobSucceeded, JobVersionSet
from contracts.events.work import Cancelled, Failed
from contracts.ids import DatasetId, Digest, ImageId, VersionId, WorkerId
from contracts.jobs import cancel, fold
from contracts.queries.base import Page
from contracts.queries.datasets import ManifestEntry, ReadManifest
from contracts.recipe import apply_changes
from contracts.wire.blobs.store import Blobs
from contracts.wire.log.event_log import EventLog
from contracts.wire.service.bus import Bus
from contracts.wire.service.telemetry import wake
from contracts.wire.workers.heartbeat import HeartbeatPublisher
from contracts.wire.workers.queue import QueueMessage, WorkQueue
from contracts.wire.workers.worker import Attempt, Worker, WorkerIdentity
from tests.conftest import LEASE, append_events
from tests.limits import WAIT
from tests.trainer.builders import SMALL
from trainer.engine_process import DEFAULT_TIMINGS, EngineTimings
from trainer.lora_folder import LoraFolder
from trainer.settings import Settings
from trainer.warm_engine import WarmEngine
from trainer.worker import Trainer

E = TypeVar("E", bound=AnyEvent)
END_EVENTS = (Cancelled, Failed, JobSucceeded)
STALL_SECONDS = 600.0


class FakeCatalog:
    """The catalog's side: creates and cancels jobs, serves their manifests, reads their events."""

    def __init__(self, bus: Bus, entries: list[ManifestEntry]) -> None:
        self.bus, self.entries = bus, entries
        self.manifest_requested = asyncio.Event()
        self.manifest_released = asyncio.Event()
        """The manifest is returned once this is set."""
        self.manifest_released.set()

    async def read_manifest(self, _: ReadManifest) -> Page[ManifestEntry]:
        self.manifest_requested.set()
        await self.manifest_released.wait()
        return Page(items=tuple(self.entries), total=len(self.entries))

    async def append(self, job: str, *events: AnyEvent) -> int:
        return await append_events(self.bus, "job", job, *events)

    async def create_job(self, job: str, **changes: object) -> None:
        recipe = apply_changes(SMALL, {name.replace("__", "."): value for name, value in changes.items()})
        created = JobCreated(
            name=f"a {job}",
            mode="single",
            dataset_id=DatasetId("ds_1"),
            dataset="creatures",
            recipe=recipe,
        )
        version = JobVersionSet(
            version=1, version_id=VersionId("ver_1"), manifest=Digest("0" * 64), images=len(self.entries)
        )
        dispatch = await self.append(job, created, version, JobQueued(priority="normal"))
        await WorkQueue(self.bus, "train").put(QueueMessage(id=job, dispatch=dispatch), "normal")

    async def cancel_job(self, job: str) -> None:
        """As the catalog does it. IllegalTransition: it has ended."""
        history = (await EventLog(self.bus).load("job", job)).events()
        await self.append(job, *cancel(fold(history), JOB_WORK))
        await wake(self.bus, "train", job)

    async def events(self, job: str) -> list[AnyEvent]:
        return [event for event, _ in (await EventLog(self.bus).load("job", job)).events()]

    async def wait_for(self, job: str, *types: type[AnyEvent]) -> list[AnyEvent]:
        """All events of the job once one of them has one of these types."""
        async with asyncio.timeout(WAIT):
            while not only(events := await self.events(job), *types):  # noqa: ASYNC110 - the log has no condition to wait on
                await asyncio.sleep(0.05)
        return events


def manifest_entry(ordinal: int, picture: Digest, caption: str) -> ManifestEntry:
    return ManifestEntry(
        ordinal=ordinal, image=ImageId(f"img_{ordinal}"), picture=picture, caption=caption, width=64, height=64
    )


@asynccontextmanager
async def training(
    bus: Bus,
    settings: Settings,
    blobs: Blobs,
    name: str = "w1",
    *,
    attempts: list[Attempt] | None = None,
    timings: EngineTimings = DEFAULT_TIMINGS,
) -> AsyncIterator[Trainer]:
    """A running trainer; `attempts` collects those that it starts."""
    heartbeat = HeartbeatPublisher(service="trainer", worker=WorkerId(name))
    engine = WarmEngine({**os.environ, "OMP_NUM_THREADS": "1"}, heartbeat, timings)
    trainer = Trainer(bus, blobs, settings, engine, settings.work / name)
    loras = LoraFolder(settings.loras, blobs)

    async def run(attempt: Attempt) -> None:
        if attempts is not None:
            attempts.append(attempt)
        await trainer.run(attempt)

    identity = WorkerIdentity(kind=JOB_WORK, worker=WorkerId(name), boot="b1", lease=LEASE, stall=STALL_SECONDS)
    task = asyncio.create_task(Worker(bus, identity, run, on_ended=loras.publish_finished).run())
    try:
        yield trainer
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await engine.close()


def pid_of(trainer: Trainer) -> int:
    assert trainer.engine._process is not None
    return trainer.engine._process.pid


def only(events: list[AnyEvent], *types: type[E]) -> list[E]:
    return [event for event in events if isinstance(event, types)]
