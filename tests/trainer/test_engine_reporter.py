"""Engine updates become events on a real log; no engine process is needed."""

from pathlib import Path

import pytest

from contracts.aggregates import AnyEvent
from contracts.events.jobs import (
    JOB_WORK,
    JobAttemptStarted,
    JobCancelRequested,
    JobCheckpointed,
    JobCreated,
    JobPlanned,
    JobQueued,
    JobSampled,
    JobSucceeded,
    JobVersionSet,
)
from contracts.ids import DatasetId, Digest, JobId, VersionId, WorkerId
from contracts.recipe import Recipe
from contracts.telemetry import BLOCK_STEPS
from contracts.wire.blobs.store import LocalBlobs
from contracts.wire.log.event_log import EventLog
from contracts.wire.service.bus import Bus
from contracts.wire.service.telemetry import read_loss_curve
from contracts.wire.system.files import NO_SPACE
from contracts.wire.workers.attempt import CancelledOnRequest
from contracts.wire.workers.worker import Attempt, Crash, WorkerIdentity
from tests.conftest import BusOf, append_events
from trainer.domain import fold
from trainer.engine_reporter import CannotTrain, CheckpointRejected, EngineReporter
from trainer.messages import (
    Finished,
    Loading,
    Planned,
    RequestFailed,
    Sampled,
    Saved,
    Stepped,
    Stopped,
    TensorFile,
    Update,
)

JOB = JobId("job_1")
CREATED = JobCreated(
    name="cats",
    mode="single",
    dataset_id=DatasetId("ds_1"),
    dataset="cats",
    recipe=Recipe(),
)
VERSION_SET = JobVersionSet(version=1, version_id=VersionId("ver_1"), manifest=Digest("0" * 64), images=3)
PLANNED = Planned(
    step=0, steps=300, epochs=2, device="cpu", precision="float32", base="b" * 64, warm=False, unused_masks=4
)


def stepped(step: int) -> Stepped:
    return Stepped(step=step, epoch=1, loss=step / 1000, lr=0.1)


async def append(bus: Bus, *events: AnyEvent) -> None:
    await append_events(bus, "job", JOB, *events)


@pytest.fixture
async def catalog(bus_of: BusOf) -> Bus:
    return await bus_of("catalog")


@pytest.fixture
async def reporter(catalog: Bus, bus_of: BusOf, tmp_path: Path) -> EngineReporter:
    trainer = await bus_of("trainer")
    await append(catalog, CREATED, VERSION_SET, JobQueued(priority="normal"))
    await append(trainer, JobAttemptStarted(worker=WorkerId("w1"), boot="b", resumes=0))
    identity = WorkerIdentity(kind=JOB_WORK, worker=WorkerId("w1"), boot="b")
    log = EventLog(trainer)
    attempt = Attempt(log, identity, JOB, await log.load("job", JOB))
    blobs = LocalBlobs(tmp_path / "blobs")
    job = fold(attempt.history.events())
    return EngineReporter.of(attempt, job, bus=trainer, blobs=blobs, software={"torch": "2.11"})


async def events_after_start(bus: Bus) -> list[AnyEvent]:
    return [event for event, _ in (await EventLog(bus).load("job", JOB)).events()][4:]


def write_file(path: Path, content: str) -> str:
    path.write_text(content)
    return str(path)


async def test_updates_of_a_whole_run_become_events_and_loss_blocks(
    reporter: EngineReporter, catalog: Bus, tmp_path: Path
) -> None:
    steps = BLOCK_STEPS + 20
    saved = write_file(tmp_path / "checkpoint", "weights")
    sample = Sampled(
        step=steps, index=0, prompt="secret words", seed=7, path=write_file(tmp_path / "sample.png", "picture")
    )
    tensors = "t" * 64
    updates: list[Update] = [
        Loading(what="base"),
        PLANNED,
        *(stepped(step) for step in range(1, steps + 1)),
        Saved(step=steps, path=saved),
        sample,
        sample,
    ]
    assert not any([await reporter.handle(update) for update in updates])
    files = [TensorFile(path=write_file(tmp_path / name, name), tensors=tensors) for name in ("kohya", "diffusers")]
    assert await reporter.handle(Finished(step=steps, kohya=files[0], diffusers=files[1]))
    planned, checkpointed, sampled, succeeded = await events_after_start(catalog)
    assert isinstance(planned, JobPlanned)
    assert (planned.steps, planned.software) == (300, {"torch": "2.11"})
    assert planned.describe().endswith("; the masks of 4 images have no effect yet")
    assert isinstance(checkpointed, JobCheckpointed)
    assert await reporter.events.blobs.get(checkpointed.checkpoint) == b"weights"
    assert (checkpointed.step, checkpointed.size) == (steps, 7)
    assert isinstance(sampled, JobSampled)
    assert isinstance(succeeded, JobSucceeded)
    assert [artifact.format for artifact in succeeded.artifacts] == ["kohya", "diffusers"]
    blocks = await read_loss_curve(catalog, JOB)
    assert [(block.first, len(block.losses)) for block in blocks] == [(1, BLOCK_STEPS), (BLOCK_STEPS + 1, 20)]
    history = await EventLog(catalog).load("job", JOB)
    assert not any(b"secret" in recorded.body for recorded in history.commits)


async def test_a_cancelled_attempt_names_the_last_step_and_stores_its_losses(
    reporter: EngineReporter, catalog: Bus
) -> None:
    await reporter.handle(stepped(1))
    before = reporter.attempt.last_step, reporter.has_unsaved_steps, reporter.attempt.is_current
    await append(catalog, JobCancelRequested())
    await reporter.attempt.refresh()
    assert (before, reporter.attempt.is_current) == ((1, True, True), False)
    with pytest.raises(CancelledOnRequest):
        await reporter.attempt.raise_when_stopped()
    await reporter.store_last_losses()
    assert [block.first for block in await read_loss_curve(catalog, JOB)] == [1]


async def test_failures_are_raised_as_retryable_or_final_errors(reporter: EngineReporter, catalog: Bus) -> None:
    with pytest.raises(Crash):
        await reporter.handle(Stopped(step=1, path=None))
    with pytest.raises(Crash):
        await reporter.handle(RequestFailed(code="internal", reason="RuntimeError: x"))
    with pytest.raises(CheckpointRejected):
        await reporter.handle(RequestFailed(code="bad-checkpoint", reason="damaged"))
    with pytest.raises(CannotTrain) as refused:
        await reporter.handle(RequestFailed(code="diverged", reason="the loss is not finite"))
    assert (refused.value.code, refused.value.detail) == ("diverged", "the loss is not finite")
    with pytest.raises(OSError, match="the disk is full") as full:
        await reporter.handle(RequestFailed(code="disk-full", reason="the disk is full"))
    assert full.value.errno in NO_SPACE
    assert await events_after_start(catalog) == []
