"""A cancel ends a job in every phase: the real trainer and engine, each phase held open by something that is slow."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

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
from contracts.wire.blobs.store import Blobs, LocalBlobs
from tests.conftest import BusOf
from tests.limits import WAIT
from tests.object_server import ObjectServer
from tests.trainer.running_trainer import END_EVENTS, FakeCatalog, training
from tests.trainer.slow_phases import (
    ENGINE_SURVIVES,
    JOB,
    LOCAL,
    REMOTE,
    Phase,
    Scene,
    a_long_step,
    fetching,
    loading,
    starting,
    training_steps,
)
from trainer.engine_process import EngineTimings
from trainer.settings import Settings
from trainer.training_request import DRAFTS
from trainer.worker import Trainer

pytestmark = [pytest.mark.drill, pytest.mark.skipif(sys.platform == "win32", reason="signals and named pipes of POSIX")]

NEXT_JOB = "job_2"
SLOW_STOP, FAST_STOP = EngineTimings(stop=WAIT), EngineTimings(stop=0.05)


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
