"""Fencing of jobs: edits, a second trainer, a stopped trainer or bus do not disturb an attempt; each job ends once."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from contracts.events.jobs import (
    JobAttemptStarted,
    JobCancelled,
    JobCheckpointed,
    JobEdited,
    JobPrioritised,
    JobSucceeded,
)
from contracts.events.work import AttemptStarted
from contracts.wire.service.health import unready_reason
from loratory.child import Child
from loratory.data_folder import DataFolder
from loratory.services import bus_settings, service_command, service_environment
from tests.acceptance.event_recorder import (
    ENVIRON,
    TIMEOUT_SECONDS,
    RecordedSystem,
    draw_pictures,
    kill,
    running_system,
)
from tests.damage import IGNORE_UNCLOSED_SOCKETS
from tests.limits import WAIT

pytestmark = [
    IGNORE_UNCLOSED_SOCKETS,
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]

PRIORITIES = ("high", "normal", "low")
SHORT_LEASE_SECONDS = 4
BUS_OUTAGE_SECONDS = 8.0
"""Shorter than a lease."""


class TrainingSystem:
    """A running system with one small data set."""

    def __init__(self, system: RecordedSystem, dataset: str) -> None:
        self.system, self.recorder, self._dataset = system, system.recorder, dataset

    async def train(self, name: str, *, steps: int, save: int = 20) -> str:
        """Start a job; returns its id once its first step was reported."""
        recipe = {
            "base": {"type": "builtin", "name": "tiny-random"},
            "adapter": {"type": "lora", "rank": 4, "alpha": 2.0},
            "data": {"resolution": 64, "bucket_step": 8},
            "length": {"type": "steps", "count": steps},
            "save.every": save,
            "sampling": {"prompts": ["a creature"], "steps": 1},
        }
        job = await self.system.send("/training/single", name, dataset=self._dataset, name=name, changes=recipe)
        await self.recorder.wait_for(lambda: self.recorder.step(job))
        return job

    def has_reached(self, job: str, step: int) -> bool:
        return self.recorder.step(job) >= step

    def attempts(self, job: str) -> list[tuple[int, AttemptStarted]]:
        """The attempts with their numbers (the sequences of their start)."""
        events = self.recorder.events_with_commits(job)
        return [(recorded.sequence, event) for event, recorded in events if isinstance(event, JobAttemptStarted)]

    def success_sequence(self, job: str) -> int:
        """The sequence of `job.succeeded`, which must exist exactly once."""
        events = self.recorder.events_with_commits(job)
        (sequence,) = [recorded.sequence for event, recorded in events if isinstance(event, JobSucceeded)]
        return sequence

    @asynccontextmanager
    async def second_trainer(self, work: Path) -> AsyncIterator[Child]:
        """Another trainer on the same bus and blobs, as a user would start it by hand."""
        stack, environ = self.system.stack, {**ENVIRON, "LORATORY_LEASE": str(SHORT_LEASE_SECONDS)}
        bus = bus_settings(stack.nats.url, *stack.nats.credentials("trainer"))
        environment = service_environment("trainer", DataFolder(stack.data), given=environ, settings=bus)
        own = {"LORATORY_WORK": str(work / "work"), "LORATORY_HEALTH_FILE": str(work / "health.json")}
        child = Child("second", service_command("trainer"), environment | own, work / "second.log")
        await child.start()
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                while unready_reason(work / "health.json", time.time()):  # noqa: ASYNC110 - another process writes it
                    await asyncio.sleep(0.1)
            yield child
        finally:
            await child.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def training(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[TrainingSystem]:
    async with _training_system(tmp_path_factory.mktemp("training")) as started:
        yield started


@asynccontextmanager
async def _training_system(folder: Path, **more: str) -> AsyncIterator[TrainingSystem]:
    async with running_system(folder / "data", environ={**ENVIRON, **more}) as system:
        dataset = await system.send("/datasets", "dataset", name="creatures")
        await system.upload(dataset, draw_pictures(folder / "pictures", 12), "upload")
        yield TrainingSystem(system, dataset)


async def test_a_hundred_edits_do_not_fence_a_running_job(training: TrainingSystem) -> None:
    job = await training.train("edited", steps=150, save=5)
    async with httpx.AsyncClient(base_url=training.system.stack.address, timeout=60) as http:
        for number in range(50):
            # Spread over two thirds of the training.
            await training.recorder.wait_for(partial(training.has_reached, job, 2 * number))
            for change in ({"name": f"edit {number}"}, {"priority": PRIORITIES[number % 3 - 1]}):
                (await http.patch(f"/api/v1/jobs/{job}", json=change)).raise_for_status()
    await training.system.wait_ended(job)

    events = training.recorder.events_with_commits(job)
    edits = [recorded.sequence for event, recorded in events if isinstance(event, JobEdited | JobPrioritised)]
    checkpoints = [recorded.sequence for event, recorded in events if isinstance(event, JobCheckpointed)]
    ((began, _),) = training.attempts(job)
    assert len(set(edits)) == 100
    assert began < edits[0] < edits[-1] < training.success_sequence(job)
    assert len(checkpoints) == 30
    assert sum(edits[0] < sequence < edits[-1] for sequence in checkpoints) > 5


async def test_two_trainers_train_two_jobs_concurrently(training: TrainingSystem, tmp_path: Path) -> None:
    async with training.second_trainer(tmp_path):
        one, two = await asyncio.gather(training.train("one", steps=100), training.train("two", steps=100))
        await asyncio.gather(training.system.wait_ended(one), training.system.wait_ended(two))
    ((began_one, attempt_one),), ((began_two, attempt_two),) = training.attempts(one), training.attempts(two)
    assert attempt_one.worker != attempt_two.worker
    assert max(began_one, began_two) < min(training.success_sequence(one), training.success_sequence(two))


async def test_a_running_job_is_cancelled(training: TrainingSystem, capsys: pytest.CaptureFixture[str]) -> None:
    job = await training.train("cancelled", steps=100_000)
    sent = time.monotonic()
    await training.system.send(f"/jobs/{job}/cancel", "cancel")
    await training.recorder.wait_for(lambda: training.recorder.events(JobCancelled, job))
    took = time.monotonic() - sent
    with capsys.disabled():
        print(f"\na running job was cancelled in {took:.2f} s")  # noqa: T201 - this figure is quoted in the documentation
    assert training.recorder.work(job).state == "cancelled"


async def test_a_job_whose_trainer_does_not_answer_is_cancelled_without_it(training: TrainingSystem) -> None:
    job = await training.train("abandoned", steps=100_000)
    recorder, trainer = training.recorder, training.system.stack.pid_of("trainer")
    assert trainer is not None
    os.kill(trainer, signal.SIGSTOP)
    try:
        await training.system.send(f"/jobs/{job}/cancel", "cancel abandoned")
        await recorder.wait_for(lambda: recorder.events(JobCancelled, job))
    finally:
        os.kill(trainer, signal.SIGCONT)
    event, recorded = recorder.events_with_commits(job)[-1]
    assert (type(event), recorded.commit.actor) == (JobCancelled, "svc:catalog")
    after = await training.system.wait_ended(await training.train("after it", steps=20))
    assert after.state == "completed"
    assert recorder.events_with_commits(job)[-1] == (event, recorded)


@pytest.mark.parametrize("outage", ["killed repeatedly", "stopped"])
async def test_a_job_survives_an_outage_of_the_bus(training: TrainingSystem, outage: str) -> None:
    job = await training.train(f"nats {outage}", steps=200)
    before = training.recorder.work(job)
    assert before.open
    nats, deadline = training.system.stack.nats, time.monotonic() + BUS_OUTAGE_SECONDS
    if outage == "stopped":
        assert nats.pid is not None
        os.kill(nats.pid, signal.SIGSTOP)
        await asyncio.sleep(BUS_OUTAGE_SECONDS)
        os.kill(nats.pid, signal.SIGCONT)
    while outage != "stopped" and time.monotonic() < deadline:
        if nats.pid is not None:
            kill(nats.pid)
        await asyncio.sleep(0.05)
    after = await training.system.wait_ended(job)
    assert (after.state, after.attempts) == ("completed", 1)
    assert training.success_sequence(job)
    assert [step for step, _ in await training.system.losses(job)] == list(range(1, 201))


@pytest.mark.drill
async def test_a_trainer_stopped_past_its_lease_writes_nothing_more(tmp_path: Path) -> None:
    async with _training_system(tmp_path, LORATORY_LEASE=str(SHORT_LEASE_SECONDS)) as training:
        recorder, first = training.recorder, training.system.stack.pid_of("trainer")
        log = tmp_path / "data" / "logs" / "trainer.log"
        assert first is not None
        job = await training.train("stopped", steps=240)
        await recorder.wait_for(lambda: recorder.work(job).completed_units)
        async with training.second_trainer(tmp_path):
            os.kill(first, signal.SIGSTOP)
            try:
                await recorder.wait_for(lambda: len(training.attempts(job)) == 2)
                # Its child process keeps training and fills the pipe, so it has much to report when it resumes.
                await recorder.wait_for(lambda: len(recorder.events(JobCheckpointed, job)) > 5)
            finally:
                os.kill(first, signal.SIGCONT)
            async with asyncio.timeout(WAIT):
                while "attempt_fenced" not in log.read_text():  # noqa: ASYNC110 - another process writes it
                    await asyncio.sleep(0.1)
            await training.system.wait_ended(job)
            async with asyncio.timeout(WAIT):
                while "lora_published" not in (tmp_path / "second.log").read_text():  # noqa: ASYNC110 - as above
                    await asyncio.sleep(0.1)

        (_, one), (second_began, two) = training.attempts(job)
        assert one.worker != two.worker
        fenced_actor = f"svc:trainer/{one.worker}"
        events = recorder.events_with_commits(job)
        assert all(commit.commit.actor != fenced_actor for _, commit in events if commit.sequence >= second_began)
        assert training.success_sequence(job)
        assert "lora_published" not in log.read_text()
        assert len(list((tmp_path / "data" / "loras").glob("[!.]*"))) == 2
