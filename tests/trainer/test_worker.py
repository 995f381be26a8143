"""A trainer with a real engine process, log and queue, from the start of a job to its end."""

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from contracts.events import (
    AnyEvent,
    Cancelled,
    Failed,
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
from contracts.ids import DatasetId, Digest, ImageId, VersionId, WorkerId
from contracts.jobs import cancel, fold
from contracts.queries import ManifestEntry, Page, ReadManifest
from contracts.recipe import apply_changes
from contracts.wire.blobs import LocalBlobs
from contracts.wire.bus import Bus
from contracts.wire.heartbeat import HeartbeatPublisher
from contracts.wire.log import EventLog
from contracts.wire.queue import QueueMessage, WorkQueue
from contracts.wire.service import Service
from contracts.wire.telemetry_bus import read_loss_curve, wake
from contracts.wire.worker import Worker, WorkerIdentity
from tests.conftest import LEASE, BusOf, append_events
from tests.limits import WAIT
from tests.trainer.builders import SMALL
from trainer.messages import Example
from trainer.settings import Settings
from trainer.worker import Trainer

END_EVENTS = Cancelled | Failed | JobSucceeded
STALL_SECONDS = 20.0
"""Longer than any pause between two updates, also on a busy machine."""


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

    async def wait_for(self, job: str, event_type: object, timeout: float = WAIT) -> list[AnyEvent]:
        async with asyncio.timeout(timeout):
            while not any(isinstance(event, event_type) for event in await self.events(job)):  # type: ignore[arg-type]  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        return await self.events(job)


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
    bus: Bus, settings: Settings, blobs: Path, name: str = "w1", stall: float = 600
) -> AsyncIterator[Trainer]:
    heartbeat = HeartbeatPublisher(service="trainer", worker=WorkerId(name))
    trainer = Trainer(bus, LocalBlobs(blobs), settings, settings.work / name, heartbeat, os.environ)
    identity = WorkerIdentity(work="train", worker=WorkerId(name), boot="b1", lease=LEASE, stall=stall)
    task = asyncio.create_task(Worker(bus, identity, trainer.run, trainer.publish_artifacts).run())
    try:
        yield trainer
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await trainer.close()


def only(events: list[AnyEvent], event_type: type) -> list[AnyEvent]:
    return [event for event in events if isinstance(event, event_type)]


async def test_one_engine_trains_fails_is_cancelled_and_trains_again(
    catalog: FakeCatalog, bus_of: BusOf, settings: Settings, tmp_path: Path
) -> None:
    async with training(await bus_of("trainer"), settings, tmp_path / "blobs") as trainer:
        await catalog.create_job("job_1", length__count=6, save__every=4)
        events = await catalog.wait_for("job_1", END_EVENTS)
        assert isinstance(events[-1], JobSucceeded), events[-1]
        assert [event.step for event in events if isinstance(event, JobCheckpointed)] == [4, 6]
        assert (len(only(events, JobPlanned)), len(only(events, JobSampled))) == (1, 1)
        pid = trainer._engine.pid if trainer._engine else None

        # Refused before the request is sent to the engine; the reason names the folder.
        await catalog.create_job("job_2", base={"type": "folder", "path": "nowhere"})
        failed = (await catalog.wait_for("job_2", END_EVENTS))[-1]
        assert isinstance(failed, JobFailed)
        assert (failed.code, "'nowhere'" in failed.reason) == ("rejected", True)

        await catalog.create_job("job_3", length__count=100_000, save__every=2)
        running = await catalog.wait_for("job_3", JobCheckpointed)
        await catalog.append("job_3", *cancel(fold((event, 1) for event in running), "train"))  # type: ignore[arg-type]
        await wake(catalog.bus, "train", "job_3")
        events = await catalog.wait_for("job_3", END_EVENTS)
        assert isinstance(events[-1], JobCancelled)
        assert events[-1].step >= 2

        # The same recipe gives the same file, bit for bit, and the engine process is still the same one.
        await catalog.create_job("job_4", length__count=6, save__every=4)
        again = (await catalog.wait_for("job_4", END_EVENTS))[-1]
        assert trainer._engine is not None
        assert trainer._engine.pid == pid
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


async def test_a_stopped_trainer_writes_a_checkpoint_and_the_next_one_resumes_from_it(
    catalog: FakeCatalog, bus_of: BusOf, settings: Settings, tmp_path: Path
) -> None:
    await catalog.create_job("job_1", length__count=60, save__every=10)
    async with training(await bus_of("trainer"), settings, tmp_path / "blobs"):
        await catalog.wait_for("job_1", JobCheckpointed)
    events = await catalog.events("job_1")
    assert isinstance(events[-1], JobInterrupted)
    (*_, last_step) = [event.step for event in events if isinstance(event, JobCheckpointed)]
    assert events[-1].step == last_step >= 10

    async with training(await bus_of("trainer"), settings, tmp_path / "blobs", "w2"):
        events = await catalog.wait_for("job_1", END_EVENTS)
    assert isinstance(events[-1], JobSucceeded), events[-1]
    assert [event.resumes for event in events if isinstance(event, JobAttemptStarted)] == [0, last_step]
    blocks = await read_loss_curve(catalog.bus, "job_1")  # type: ignore[arg-type]
    steps = {block.first + index for block in blocks for index in range(len(block.losses))}
    assert steps == set(range(1, 61))
    assert not msgspec.json.encode(events).count(str(tmp_path).encode())


async def test_a_stalled_engine_is_killed_and_a_new_one_resumes_from_the_checkpoint(
    catalog: FakeCatalog, bus_of: BusOf, settings: Settings, tmp_path: Path
) -> None:
    """The trainer itself keeps running and extends its queue message."""
    await catalog.create_job("job_1", length__count=40, save__every=5)
    async with training(await bus_of("trainer"), settings, tmp_path / "blobs", stall=STALL_SECONDS) as trainer:
        await catalog.wait_for("job_1", JobCheckpointed, timeout=WAIT)
        assert trainer._engine is not None
        stalled_pid = trainer._engine.pid
        os.kill(stalled_pid, signal.SIGSTOP)
        events = await catalog.wait_for("job_1", END_EVENTS, timeout=WAIT)
        assert trainer._engine.pid != stalled_pid
    assert isinstance(events[-1], JobSucceeded), events[-1]
    failed, *_ = [event for event in events if isinstance(event, JobAttemptFailed)]
    assert failed.reason == f"no progress for {STALL_SECONDS:g} s"
    resumed = [event.resumes for event in events if isinstance(event, JobAttemptStarted)]
    assert resumed[:2] == [0, failed.step]
    assert failed.step >= 5
