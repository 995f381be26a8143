"""What a child tells becomes facts, on a real log; the child itself is not needed for that."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from contracts.events import (
    AnyFact,
    JobAttemptStarted,
    JobCancelled,
    JobCancelRequested,
    JobCheckpointed,
    JobCreated,
    JobPlanned,
    JobQueued,
    JobSampled,
    JobSucceeded,
)
from contracts.ids import DatasetId, Digest, JobId, VersionId, WorkerId
from contracts.recipe import Recipe
from contracts.telemetry import BLOCK_STEPS
from contracts.wire.blobs import LocalBlobs
from contracts.wire.bus import Bus
from contracts.wire.log import EventLog, draw_up
from contracts.wire.telling import read_losses
from contracts.wire.work import NO_SPACE, Attempt, Crash, Holder
from tests.conftest import BusOf, origin
from trainer.listener import BadCheckpoint, CannotTrain, Listener
from trainer.messages import Failed, Finished, Loading, Planned, Sampled, Saved, Stepped, Stopped, TensorFile, Update

JOB = JobId("job_1")
CREATED = JobCreated(
    name="cats",
    mode="single",
    dataset_id=DatasetId("ds_1"),
    dataset="cats",
    version=1,
    version_id=VersionId("ver_1"),
    manifest=Digest("0" * 64),
    images=3,
    recipe=Recipe(),
)
PLANNED = Planned(
    step=0,
    steps=300,
    epochs=2,
    steps_per_epoch=150,
    pictures=3,
    buckets=[],
    parameters=9,
    device="cpu",
    precision="float32",
    base="b" * 64,
    fingerprint="f",
    warm=False,
)


def stepped(step: int) -> Stepped:
    return Stepped(step=step, epoch=1, loss=step / 1000, lr=0.1, gradient=1.0, seconds=0.1)


async def say(bus: Bus, *facts: AnyFact) -> None:
    log = EventLog(bus)
    head = (await log.load("job", JOB)).head
    await log.append(draw_up("job", JOB, facts, after=head, origin=origin()), head)


@pytest.fixture
async def catalog(bus_of: BusOf) -> Bus:
    return await bus_of("catalog")


@pytest.fixture
async def listener(catalog: Bus, bus_of: BusOf, tmp_path: Path) -> AsyncIterator[Listener]:
    trainer = await bus_of("trainer")
    await say(catalog, CREATED, JobQueued(priority="normal"))
    await say(trainer, JobAttemptStarted(worker=WorkerId("w1"), boot="b", resumes=0))
    holder = Holder(work="train", worker=WorkerId("w1"), boot="b")
    log = EventLog(trainer)
    attempt = Attempt(log, holder, JOB, await log.load("job", JOB))
    yield Listener(trainer, LocalBlobs(tmp_path / "blobs"), attempt, {"torch": "2.11"}, "cats")


async def facts_of(bus: Bus) -> list[AnyFact]:
    return [fact for fact, _ in (await EventLog(bus).load("job", JOB)).facts()][3:]


def file(path: Path, content: str) -> str:
    path.write_text(content)
    return str(path)


async def test_a_run_told_to_its_end(listener: Listener, catalog: Bus, tmp_path: Path) -> None:
    steps = BLOCK_STEPS + 20
    saved = file(tmp_path / "checkpoint", "weights")
    sample = Sampled(step=steps, index=0, prompt="secret words", seed=7, path=file(tmp_path / "sample.png", "picture"))
    tensors = "t" * 64
    story: list[Update] = [
        Loading(what="base"),
        PLANNED,
        *(stepped(step) for step in range(1, steps + 1)),
        Saved(step=steps, path=saved),
        sample,
        sample,
    ]
    assert not any([await listener.hear(update) for update in story])
    files = [TensorFile(path=file(tmp_path / name, name), tensors=tensors) for name in ("kohya", "diffusers")]
    assert await listener.hear(Finished(step=steps, kohya=files[0], diffusers=files[1]))
    planned, checkpointed, sampled, succeeded = await facts_of(catalog)
    assert isinstance(planned, JobPlanned)
    assert (planned.steps, planned.software) == (300, {"torch": "2.11"})
    assert isinstance(checkpointed, JobCheckpointed)
    assert await listener.blobs.get(checkpointed.checkpoint) == b"weights"
    assert (checkpointed.step, checkpointed.size) == (steps, 7)
    assert isinstance(sampled, JobSampled)
    assert isinstance(succeeded, JobSucceeded)
    assert [artifact.format for artifact in succeeded.artifacts] == ["kohya", "diffusers"]
    blocks = await read_losses(catalog, JOB)
    assert [(block.first, len(block.losses)) for block in blocks] == [(1, BLOCK_STEPS), (BLOCK_STEPS + 1, 20)]
    history = await EventLog(catalog).load("job", JOB)
    assert not any(b"secret" in stored.body for stored in history.commits)


async def test_a_child_that_stopped_as_asked_has_cancelled_the_job(listener: Listener, catalog: Bus) -> None:
    await say(catalog, JobCancelRequested())
    await listener.attempt.look()
    assert listener.attempt.stop_asked.is_set()
    await listener.hear(stepped(1))
    assert await listener.hear(Stopped(step=1, path=None))
    assert await facts_of(catalog) == [JobCancelRequested(), JobCancelled(attempt=listener.attempt.number, step=1)]


async def test_each_failure_says_whether_to_try_again(listener: Listener, catalog: Bus) -> None:
    with pytest.raises(Crash):
        await listener.hear(Stopped(step=1, path=None))
    with pytest.raises(Crash):
        await listener.hear(Failed(code="internal", reason="RuntimeError: x"))
    with pytest.raises(BadCheckpoint):
        await listener.hear(Failed(code="bad-checkpoint", reason="torn"))
    with pytest.raises(CannotTrain) as refused:
        await listener.hear(Failed(code="diverged", reason="the loss is no number"))
    assert (refused.value.code, refused.value.detail) == ("diverged", "the loss is no number")
    with pytest.raises(OSError, match="the disk is full") as full:
        await listener.hear(Failed(code="disk-full", reason="the disk is full"))
    assert full.value.errno in NO_SPACE
    assert await facts_of(catalog) == []
