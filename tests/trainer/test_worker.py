"""A trainer with a real engine process, log and queue, from the start of a job to its end."""

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest

from contracts.aggregates import AnyEvent
from contracts.events.jobs import (
    JOB_WORK,
    JobAttemptFailed,
    JobAttemptStarted,
    JobCancelled,
    JobCheckpointed,
    JobCreated,
    JobFailed,
    JobInterrupted,
    JobPlanned,
    JobQueued,
    JobSampled,
    JobSucceeded,
)
from contracts.events.work import Cancelled, Failed
from contracts.ids import DatasetId, Digest, ImageId, JobId, VersionId, WorkerId
from contracts.jobs import cancel, fold
from contracts.queries.base import Page
from contracts.queries.datasets import ManifestEntry, ReadManifest
from contracts.recipe import apply_changes
from contracts.wire.blobs.store import LocalBlobs
from contracts.wire.log.event_log import EventLog
from contracts.wire.service.bus import Bus
from contracts.wire.service.requests import Service
from contracts.wire.service.telemetry import read_loss_curve, wake
from contracts.wire.workers.heartbeat import HeartbeatPublisher
from contracts.wire.workers.queue import QueueMessage, WorkQueue
from contracts.wire.workers.worker import Attempt, Worker, WorkerIdentity
from tests.conftest import LEASE, BusOf, append_events
from tests.limits import WAIT
from tests.trainer.builders import SMALL
from trainer.lora_folder import LoraFolder
from trainer.messages import Example
from trainer.settings import Settings
from trainer.warm_engine import WarmEngine
from trainer.worker import Trainer

E = TypeVar("E", bound=AnyEvent)
END_EVENTS = (Cancelled, Failed, JobSucceeded)
STALL_SECONDS = 600.0


class FakeCatalog:
    """The catalog's side: creates jobs, serves their manifests, reads their events."""

    def __init__(self, bus: Bus, entries: list[ManifestEntry]) -> None:
        self.bus, self.entries = bus, entries

    async def read_manifest(self, _: ReadManifest) -> Page[ManifestEntry]:
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
            version=1,
            version_id=VersionId("ver_1"),
            manifest=Digest("0" * 64),
            images=len(self.entries),
            recipe=recipe,
        )
        dispatch = await self.append(job, created, JobQueued(priority="normal"))
        await WorkQueue(self.bus, "train").put(QueueMessage(id=job, dispatch=dispatch), "normal")

    async def events(self, job: str) -> list[AnyEvent]:
        return [event for event, _ in (await EventLog(self.bus).load("job", job)).events()]

    async def wait_for(self, job: str, *types: type[AnyEvent]) -> list[AnyEvent]:
        """All events of the job once one of them has one of these types."""
        async with asyncio.timeout(WAIT):
            while not only(events := await self.events(job), *types):  # noqa: ASYNC110 - the log has no condition to wait on
                await asyncio.sleep(0.05)
        return events


@pytest.fixture
def settings(tmp_path: Path, base: Path) -> Settings:
    """The built-in base is already generated, so that the tests need not wait for it."""
    settings = Settings(
        bases=tmp_path / "bases", cache=tmp_path / "cache", work=tmp_path / "work", loras=tmp_path / "loras"
    )
    for folder in (settings.bases, settings.work):
        folder.mkdir()
    shutil.copytree(base, settings.cache / "bases" / "tiny-random")
    return settings


@pytest.fixture
async def catalog(bus_of: BusOf, tmp_path: Path, examples: list[Example]) -> AsyncIterator[FakeCatalog]:
    blobs = LocalBlobs(tmp_path / "blobs")
    entries = [
        ManifestEntry(
            ordinal=example.ordinal,
            image=ImageId(f"img_{example.ordinal}"),
            picture=await blobs.put(Path(example.path)),
            caption=example.caption,
            width=64,
            height=64,
        )
        for example in examples
    ]
    bus = await bus_of("catalog")
    catalog = FakeCatalog(bus, entries)
    service = Service(bus, "catalog", "0.1.0")
    await service.start(queries={ReadManifest: catalog.read_manifest})
    yield catalog
    await service.close()


@asynccontextmanager
async def training(
    bus: Bus, settings: Settings, blobs: Path, name: str = "w1", attempts: list[Attempt] | None = None
) -> AsyncIterator[WarmEngine]:
    """A running trainer; `attempts` collects those that it starts."""
    heartbeat = HeartbeatPublisher(service="trainer", worker=WorkerId(name))
    engine, store = WarmEngine({**os.environ, "OMP_NUM_THREADS": "1"}, heartbeat), LocalBlobs(blobs)
    trainer = Trainer(bus, store, settings, engine, settings.work / name)
    loras = LoraFolder(settings.loras, store)

    async def run(attempt: Attempt) -> None:
        if attempts is not None:
            attempts.append(attempt)
        await trainer.run(attempt)

    identity = WorkerIdentity(kind=JOB_WORK, worker=WorkerId(name), boot="b1", lease=LEASE, stall=STALL_SECONDS)
    task = asyncio.create_task(Worker(bus, identity, run, on_ended=loras.publish_finished).run())
    try:
        yield engine
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await engine.close()


def pid_of(engine: WarmEngine) -> int:
    assert engine._process is not None
    return engine._process.pid


def only(events: list[AnyEvent], *types: type[E]) -> list[E]:
    return [event for event in events if isinstance(event, types)]


async def test_one_engine_trains_fails_is_cancelled_and_trains_again(
    catalog: FakeCatalog, bus_of: BusOf, settings: Settings, tmp_path: Path
) -> None:
    async with training(await bus_of("trainer"), settings, tmp_path / "blobs") as engine:
        await catalog.create_job("job_1", length__count=6, save__every=4)
        events = await catalog.wait_for("job_1", *END_EVENTS)
        assert isinstance(events[-1], JobSucceeded), events[-1]
        assert [event.step for event in only(events, JobCheckpointed)] == [4, 6]
        assert (len(only(events, JobPlanned)), len(only(events, JobSampled))) == (1, 1)
        pid = pid_of(engine)

        # Refused before the request is sent to the engine; the reason names the folder.
        await catalog.create_job("job_2", base={"type": "folder", "path": "nowhere"})
        failed = (await catalog.wait_for("job_2", *END_EVENTS))[-1]
        assert isinstance(failed, JobFailed)
        assert (failed.code, "'nowhere'" in failed.reason) == ("rejected", True)

        await catalog.create_job("job_3", length__count=100_000, save__every=2)
        running = await catalog.wait_for("job_3", JobCheckpointed)
        await catalog.append("job_3", *cancel(fold((event, 1) for event in running), JOB_WORK))
        await wake(catalog.bus, "train", "job_3")
        events = await catalog.wait_for("job_3", *END_EVENTS)
        assert isinstance(events[-1], JobCancelled)
        assert events[-1].step >= 2

        # The same recipe gives the same file, bit for bit, and the engine process is still the same one.
        await catalog.create_job("job_4", length__count=6, save__every=4)
        again = (await catalog.wait_for("job_4", *END_EVENTS))[-1]
        assert pid_of(engine) == pid
        first = (await catalog.events("job_1"))[-1]
        assert isinstance(again, JobSucceeded)
        assert isinstance(first, JobSucceeded)
        assert [artifact.tensors for artifact in again.artifacts] == [artifact.tensors for artifact in first.artifacts]
        async with asyncio.timeout(WAIT):
            while await WorkQueue(catalog.bus, "train").queued_ids():  # noqa: ASYNC110 - a queue has no notification
                await asyncio.sleep(0.05)
    assert sorted(path.name for path in settings.loras.iterdir()) == [
        f"a-job_{number}{form}.safetensors" for number in (1, 4) for form in ("-diffusers", "")
    ]
    assert not list((settings.work / "w1").glob("*"))


@pytest.mark.slow
async def test_after_a_stop_and_after_a_stall_training_resumes_from_the_last_checkpoint(
    catalog: FakeCatalog, bus_of: BusOf, settings: Settings, tmp_path: Path
) -> None:
    await catalog.create_job("job_1", length__count=40, save__every=5)
    async with training(await bus_of("trainer"), settings, tmp_path / "blobs"):
        await catalog.wait_for("job_1", JobCheckpointed)
    events = await catalog.events("job_1")
    assert isinstance(events[-1], JobInterrupted)
    (*_, last_step) = [event.step for event in only(events, JobCheckpointed)]
    assert events[-1].step == last_step >= 5

    attempts: list[Attempt] = []
    async with training(await bus_of("trainer"), settings, tmp_path / "blobs", "w2", attempts) as engine:
        events = await catalog.wait_for("job_1", *END_EVENTS)
        assert isinstance(events[-1], JobSucceeded), events[-1]
        assert [event.resumes for event in only(events, JobAttemptStarted)] == [0, last_step]
        blocks = await read_loss_curve(catalog.bus, JobId("job_1"))
        steps = {block.first + index for block in blocks for index in range(len(block.losses))}
        assert steps == set(range(1, 41))
        assert not msgspec.json.encode(events).count(str(tmp_path).encode())

        # The engine stalls; the trainer itself keeps running and extends its queue message.
        await catalog.create_job("job_2", length__count=20, save__every=5)
        await catalog.wait_for("job_2", JobCheckpointed)
        stalled_pid = pid_of(engine)
        os.kill(stalled_pid, signal.SIGSTOP)
        async with asyncio.timeout(WAIT):
            while not only(await catalog.events("job_2"), JobAttemptFailed):
                attempts[1].touch(grace=-2 * STALL_SECONDS)  # as if that much time had passed since the last update
                await asyncio.sleep(0.05)
        events = await catalog.wait_for("job_2", *END_EVENTS)
        assert pid_of(engine) != stalled_pid
    assert isinstance(events[-1], JobSucceeded), events[-1]
    (failed,) = only(events, JobAttemptFailed)
    assert failed.reason == f"no progress for {STALL_SECONDS:g} s"
    assert [event.resumes for event in only(events, JobAttemptStarted)] == [0, failed.step]
    assert failed.step >= 5
