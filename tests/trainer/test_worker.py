"""A trainer with a real engine process, log and queue, from the start of a job to its end."""

import asyncio
import os
import signal
from pathlib import Path

import msgspec
import pytest

from contracts.events.jobs import (
    JobAttemptFailed,
    JobAttemptStarted,
    JobCancelled,
    JobCheckpointed,
    JobFailed,
    JobInterrupted,
    JobPlanned,
    JobSampled,
    JobSucceeded,
)
from contracts.ids import JobId
from contracts.wire.blobs.store import LocalBlobs
from contracts.wire.service.telemetry import read_loss_curve
from contracts.wire.workers.queue import WorkQueue
from contracts.wire.workers.worker import Attempt
from tests.conftest import BusOf
from tests.limits import WAIT
from tests.trainer.running_trainer import END_EVENTS, STALL_SECONDS, FakeCatalog, only, pid_of, training
from trainer.settings import Settings


@pytest.mark.slow
async def test_one_engine_trains_fails_is_cancelled_and_trains_again(
    catalog: FakeCatalog, bus_of: BusOf, settings: Settings, tmp_path: Path
) -> None:
    async with training(await bus_of("trainer"), settings, LocalBlobs(tmp_path / "blobs")) as trainer:
        await catalog.create_job("job_1", length__count=6, save__every=4)
        events = await catalog.wait_for("job_1", *END_EVENTS)
        assert isinstance(events[-1], JobSucceeded), events[-1]
        assert [event.step for event in only(events, JobCheckpointed)] == [4, 6]
        assert (len(only(events, JobPlanned)), len(only(events, JobSampled))) == (1, 1)
        pid = pid_of(trainer)

        # Refused before the request is sent to the engine; the reason names the folder.
        await catalog.create_job("job_2", base={"type": "folder", "path": "nowhere"})
        failed = (await catalog.wait_for("job_2", *END_EVENTS))[-1]
        assert isinstance(failed, JobFailed)
        assert (failed.code, "'nowhere'" in failed.reason) == ("rejected", True)

        await catalog.create_job("job_3", length__count=100_000, save__every=2)
        await catalog.wait_for("job_3", JobCheckpointed)
        await catalog.cancel_job("job_3")
        events = await catalog.wait_for("job_3", *END_EVENTS)
        assert isinstance(events[-1], JobCancelled)
        assert events[-1].step >= 2

        # The same recipe gives the same file, bit for bit, and the engine process is still the same one.
        await catalog.create_job("job_4", length__count=6, save__every=4)
        again = (await catalog.wait_for("job_4", *END_EVENTS))[-1]
        assert pid_of(trainer) == pid
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
    async with training(await bus_of("trainer"), settings, LocalBlobs(tmp_path / "blobs")):
        await catalog.wait_for("job_1", JobCheckpointed)
    events = await catalog.events("job_1")
    assert isinstance(events[-1], JobInterrupted)
    (*_, last_step) = [event.step for event in only(events, JobCheckpointed)]
    assert events[-1].step == last_step >= 5

    attempts: list[Attempt] = []
    async with training(
        await bus_of("trainer"), settings, LocalBlobs(tmp_path / "blobs"), "w2", attempts=attempts
    ) as trainer:
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
        stalled_pid = pid_of(trainer)
        os.kill(stalled_pid, signal.SIGSTOP)
        async with asyncio.timeout(WAIT):
            while not only(await catalog.events("job_2"), JobAttemptFailed):
                attempts[1].touch(grace=-2 * STALL_SECONDS)  # as if that much time had passed since the last update
                await asyncio.sleep(0.05)
        events = await catalog.wait_for("job_2", *END_EVENTS)
        assert pid_of(trainer) != stalled_pid
    assert isinstance(events[-1], JobSucceeded), events[-1]
    (failed,) = only(events, JobAttemptFailed)
    assert failed.reason == f"no progress for {STALL_SECONDS:g} s"
    assert [event.resumes for event in only(events, JobAttemptStarted)] == [0, failed.step]
    assert failed.step >= 5
