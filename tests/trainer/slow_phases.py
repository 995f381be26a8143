"""The phases of a job, each held open by something slow: a stopped process, a named pipe, a store that is silent."""

import asyncio
import os
import shutil
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from PIL import Image

from contracts.events.jobs import JobAttemptStarted, JobCheckpointed, JobSampled
from contracts.telemetry import TrainingProgress
from contracts.wire.blobs.store import LocalBlobs
from contracts.wire.service.bus import Bus
from contracts.wire.service.telemetry import subscribe
from tests.limits import WAIT
from tests.object_server import ObjectServer
from tests.trainer.running_trainer import FakeCatalog, manifest_entry, pid_of
from trainer.settings import Settings
from trainer.worker import Trainer

JOB = "job_1"
LONG = {"length__count": 100_000}
LARGE_PICTURE = (9000, 9000)
"""Decoding and scaling it takes about a second."""


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
