"""A cancel ends a job in every phase: the real trainer and engine, each phase held open by something that is slow."""

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from contracts.aggregates import AnyEvent
from contracts.errors import IllegalTransition
from contracts.events.jobs import (
    JobAttemptStarted,
    JobCancelled,
    JobCheckpointed,
    JobFailed,
    JobInterrupted,
    JobPlanned,
    JobSampled,
    JobSucceeded,
)
from contracts.ids import Digest
from contracts.telemetry import TrainingProgress
from contracts.wire.blobs.store import Blobs, LocalBlobs
from contracts.wire.service.bus import Bus
from contracts.wire.service.telemetry import subscribe
from tests.conftest import BusOf
from tests.limits import WAIT
from tests.object_server import ObjectServer
from tests.trainer.running_trainer import END_EVENTS, FakeCatalog, manifest_entry, pid_of, training
from trainer.engine_process import EngineTimings
from trainer.settings import Settings
from trainer.training_request import DRAFTS
from trainer.worker import Trainer

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="signals and named pipes of POSIX")]

JOB, NEXT_JOB = "job_1", "job_2"
LONG = {"length__count": 100_000}
LARGE_PICTURE = (9000, 9000)
"""Decoding and scaling it takes about a second."""
SLOW_STOP, FAST_STOP = EngineTimings(stop=WAIT), EngineTimings(stop=0.05)


@dataclass
class Scene:
    """A job that is to be cancelled, and everything around it."""

    catalog: FakeCatalog
    settings: Settings
    server: ObjectServer
    local: LocalBlobs
    trainer_bus: Bus
    trainer: Trainer | None = None

    @property
    def pid(self) -> int:
        assert self.trainer is not None
        return pid_of(self.trainer)

    def freeze_engine(self) -> None:
        """As if it were in the middle of a long computation, which no message interrupts."""
        os.kill(self.pid, signal.SIGSTOP)

    async def start(self, **changes: object) -> None:
        await self.catalog.create_job(JOB, **changes)

    async def start_and_wait(self, is_reached: Callable[[TrainingProgress], bool], **changes: object) -> None:
        """Until the trainer publishes such a progress of the job."""
        reached = asyncio.Event()

        async def on_progress(progress: TrainingProgress) -> None:
            if is_reached(progress):
                reached.set()

        subscription = await subscribe(self.catalog.bus, TrainingProgress, on_progress)
        await self.catalog.bus.flush()
        await self.start(**changes)
        async with asyncio.timeout(WAIT):
            await reached.wait()
        await subscription.unsubscribe()


async def starting(scene: Scene) -> None:
    """The engine imports torch, and does not get on."""
    await scene.start()
    async with asyncio.timeout(WAIT):
        while scene.trainer is None or scene.trainer.engine._process is None:  # noqa: ASYNC110 - set by another task
            await asyncio.sleep(0.001)
    scene.freeze_engine()
    await scene.catalog.wait_for(JOB, JobAttemptStarted)


async def reading_the_manifest(scene: Scene) -> None:
    """The catalog does not answer."""
    scene.catalog.manifest_released.clear()
    await scene.start()
    async with asyncio.timeout(WAIT):
        await scene.catalog.manifest_requested.wait()


async def fetching(scene: Scene) -> None:
    """The object store stops in the middle of the pictures."""
    scene.server.hold("GET")
    await scene.start()
    async with asyncio.timeout(WAIT):
        await scene.server.held.wait()


async def loading(scene: Scene) -> None:
    """The base is on a disk that does not answer: a named pipe that nobody writes into."""
    tiny = scene.settings.cache / "bases" / "tiny-random"
    slow = scene.settings.bases / "slow"
    shutil.copytree(tiny, slow)
    os.mkfifo(slow / "tokenizer" / "slow.txt")
    await scene.start_and_wait(lambda progress: progress.message == "base", base={"type": "folder", "path": "slow"})


async def encoding(scene: Scene) -> None:
    """A picture that takes long to decode, after some that do not."""
    large = scene.settings.work / "large.png"
    Image.new("RGB", LARGE_PICTURE, "teal").save(large)
    digest = await scene.local.put(large)
    large.unlink()
    scene.catalog.entries.append(manifest_entry(len(scene.catalog.entries), digest, "a large wall"))
    await scene.start_and_wait(lambda progress: progress.phase == "caching", **LONG)
    scene.freeze_engine()


async def training_steps(scene: Scene) -> None:
    await scene.start(**LONG, save__every=2)
    await scene.catalog.wait_for(JOB, JobCheckpointed)


async def a_long_step(scene: Scene) -> None:
    await training_steps(scene)
    scene.freeze_engine()


async def rendering(scene: Scene) -> None:
    """A sample of two hundred steps is half done."""
    await scene.start(**LONG, sampling={"prompts": ["momo"] * 16, "steps": 200, "every": 1})
    await scene.catalog.wait_for(JOB, JobSampled)


async def exporting(scene: Scene) -> None:
    """The last checkpoint is recorded; sample and files are still to come."""
    await scene.start(sampling={"prompts": ["momo"] * 16, "steps": 200})
    await scene.catalog.wait_for(JOB, JobCheckpointed)
    scene.freeze_engine()


async def uploading_a_checkpoint(scene: Scene) -> None:
    """The object store takes the request and does not answer."""
    scene.server.hold("PUT")
    await scene.start(**LONG, save__every=2)
    async with asyncio.timeout(WAIT):
        await scene.server.held.wait()


async def uploading_the_files(scene: Scene) -> None:
    """All work is done, but for the upload of the finished files: after that of one checkpoint and one sample."""
    scene.server.hold("PUT", after=2)
    await scene.start()
    async with asyncio.timeout(WAIT):
        await scene.server.held.wait()


Phase = Callable[[Scene], Awaitable[None]]
LOCAL: list[Phase] = [
    *(starting, reading_the_manifest, loading, encoding, training_steps, a_long_step, rendering, exporting)
]
REMOTE: list[Phase] = [fetching, uploading_a_checkpoint, uploading_the_files]
ENGINE_SURVIVES: list[Phase] = [reading_the_manifest, training_steps, *REMOTE]


@pytest.fixture
async def scene(catalog: FakeCatalog, settings: Settings, bus_of: BusOf, tmp_path: Path) -> AsyncIterator[Scene]:
    async with ObjectServer(tmp_path / "blobs") as server:
        yield Scene(catalog, settings, server, LocalBlobs(tmp_path / "blobs"), await bus_of("trainer"))


@asynccontextmanager
async def running(scene: Scene, blobs: Blobs, timings: EngineTimings) -> AsyncIterator[Trainer]:
    async with training(scene.trainer_bus, scene.settings, blobs, timings=timings) as trainer:
        scene.trainer = trainer
        yield trainer


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def left_behind(scene: Scene) -> list[Path]:
    """Files that no event names, and folders of attempts."""
    drafts = (scene.settings.cache / DRAFTS).glob("*")
    unfinished = [file for folder in (scene.settings.cache, scene.settings.loras) for file in folder.rglob(".*")]
    return [*(scene.settings.work / "w1").glob("*"), *drafts, *unfinished, *scene.local.root.rglob(".*")]


def named_blobs(catalog: FakeCatalog, events: list[AnyEvent]) -> set[str]:
    """The blobs that the log names."""
    named: set[str] = {entry.picture for entry in catalog.entries}
    for event in events:
        match event:
            case JobCheckpointed(checkpoint=checkpoint):
                named.add(checkpoint)
            case JobSampled(picture=picture):
                named.add(picture)
            case JobSucceeded(artifacts=artifacts):
                named |= {artifact.digest for artifact in artifacts}
            case _:
                pass
    return named


@pytest.mark.parametrize("phase", [*LOCAL, *REMOTE], ids=lambda phase: phase.__name__)
async def test_a_cancel_ends_the_job_in_every_phase_and_the_next_one_trains(scene: Scene, phase: Phase) -> None:
    blobs: Blobs = scene.server.blobs() if phase in REMOTE else scene.local
    async with running(scene, blobs, SLOW_STOP if phase in ENGINE_SURVIVES else FAST_STOP):
        await phase(scene)
        pid = scene.pid
        await scene.catalog.cancel_job(JOB)
        events = await scene.catalog.wait_for(JOB, *END_EVENTS)
        assert isinstance(events[-1], JobCancelled)
        assert is_running(pid) == (phase in ENGINE_SURVIVES)
        assert left_behind(scene) == []
        assert {file.name for file in scene.local.root.rglob("*") if file.is_file()} == named_blobs(
            scene.catalog, events
        )

        scene.server.release()
        scene.catalog.manifest_released.set()
        await scene.catalog.create_job(NEXT_JOB)
        after = await scene.catalog.wait_for(NEXT_JOB, *END_EVENTS)
        assert isinstance(after[-1], JobSucceeded), after[-1]
        assert (scene.pid == pid) == (phase in ENGINE_SURVIVES)
        assert await scene.catalog.events(JOB) == events


@pytest.mark.parametrize("phase", [starting, loading, a_long_step, fetching], ids=lambda phase: phase.__name__)
async def test_a_trainer_is_stopped_in_every_phase_and_the_job_goes_on_later(scene: Scene, phase: Phase) -> None:
    """It waits neither for a slow disk nor for an engine that does not answer."""
    blobs: Blobs = scene.server.blobs() if phase in REMOTE else scene.local
    async with running(scene, blobs, EngineTimings(stop=0.05, checkpoint=0.05)):
        await phase(scene)
        pid = scene.pid
    events = await scene.catalog.events(JOB)
    assert isinstance(events[-1], JobInterrupted)
    assert not is_running(pid)
    assert left_behind(scene) == []


async def test_an_erased_picture_ends_a_training_on_it_and_nothing_of_it_is_left(scene: Scene) -> None:
    async with running(scene, scene.local, SLOW_STOP) as trainer:
        await training_steps(scene)
        erased = scene.catalog.entries[0].picture
        encodings = scene.settings.cache / "pictures" / erased[:2] / erased
        assert list(encodings.iterdir())
        await trainer.delete_erased({Digest("f" * 64)})
        await trainer.delete_erased({erased})
        assert not encodings.exists()
        failed = (await scene.catalog.wait_for(JOB, *END_EVENTS))[-1]
        assert isinstance(failed, JobFailed)
        assert (failed.code, "erased" in failed.reason) == ("rejected", True)
        assert not encodings.exists()


async def test_a_finished_job_cannot_be_cancelled_and_its_files_appear_even_after_a_restart(scene: Scene) -> None:
    """The object store stops while the finished files are copied into the folder of LoRAs."""
    async with running(scene, scene.server.blobs(), SLOW_STOP):
        await scene.start()
        await scene.catalog.wait_for(JOB, JobPlanned)
        scene.server.hold("GET")
        await scene.catalog.wait_for(JOB, JobSucceeded)
        async with asyncio.timeout(WAIT):
            await scene.server.held.wait()
        with pytest.raises(IllegalTransition):
            await scene.catalog.cancel_job(JOB)
    assert list(scene.settings.loras.iterdir()) == []

    scene.server.release()
    async with running(scene, scene.server.blobs(), SLOW_STOP), asyncio.timeout(WAIT):
        while len(list(scene.settings.loras.glob("[!.]*"))) < 2:  # noqa: ASYNC110 - another task writes them
            await asyncio.sleep(0.05)
    assert sum(isinstance(event, JobAttemptStarted) for event in await scene.catalog.events(JOB)) == 1
