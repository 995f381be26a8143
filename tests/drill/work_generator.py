"""Keeps trainings and tagging runs under way, cancels some, and folds the log as it is read."""

import asyncio
import random
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from contracts.aggregates import REGISTRY
from contracts.commits import RecordedCommit, decode_message
from contracts.events.jobs import JobCreated, JobSucceeded
from contracts.events.tagging import TaggingRequested, TaggingSucceeded
from contracts.events.work import Cancelled, Failed
from contracts.ids import derived, keyed_command_id
from contracts.jobs import Work, evolve
from contracts.subjects import WorkClass
from contracts.telemetry import Progress, TrainingProgress
from contracts.wire.log.follow import Follower
from tests.drill.client_commands import CommandSender, SentCommand

ACTOR = "user:local"
MAX_UNFINISHED = 2
"""Maximum number of jobs, and of runs, that are queued or running at the same time."""
CANCEL_EVERY = 6
"""Every sixth job is cancelled, alternately while it is queued and while it trains."""
POLL_SECONDS = 0.2
PROGRESS_TIMEOUT_SECONDS = 2.5
"""A worker that has published no progress for this long is considered gone: normal is every second."""
RUN_PAUSE_SECONDS = 1.0
"""Pause between two tagging runs: they are short, and other processes need the CPU too."""
STEPS = 24
RECIPE: dict[str, object] = {
    "adapter": {"type": "lora", "rank": 1, "alpha": 1.0},  # nine hundred jobs leave their checkpoints behind
    "data": {"resolution": 64, "bucket_step": 8},
    "length": {"type": "steps", "count": STEPS},
    "save.every": 4,
    "sampling": {"prompts": ["a creature"], "steps": 1},
}
END_EVENTS = Cancelled | Failed | JobSucceeded | TaggingSucceeded


class LogObserver:
    """All commits as they are read, and the current state of each job and tagging run."""

    def __init__(self) -> None:
        self.commits: list[RecordedCommit] = []
        self.last = 0
        """The sequence of the last message read."""
        self.work: dict[str, Work] = {}
        self.work_classes: dict[str, WorkClass] = {}
        self.ends: dict[str, list[str]] = defaultdict(list)
        self.failure_reasons: dict[str, str] = {}
        self.steps: dict[str, int] = {}
        self.datasets: dict[str, str] = {}
        """The data set of each job and tagging run."""
        self._last_progress: dict[str, tuple[int, float]] = {}
        """Attempt and time of the last progress message of each job or run."""

    async def read(self, follower: Follower) -> None:
        async for batch in follower.batches():
            # What is not signed was forged by the drill itself; nobody believes it.
            self.last = batch[-1].sequence
            self.apply([decode_message(one) for one in batch if one.signature or one.sequence == 1])

    async def on_progress(self, progress: Progress) -> None:
        if isinstance(progress, TrainingProgress):
            self.steps[progress.job_id] = progress.step
        work_id = progress.job_id if isinstance(progress, TrainingProgress) else progress.run_id
        self._last_progress[work_id] = progress.attempt, asyncio.get_running_loop().time()

    def apply(self, batch: list[RecordedCommit]) -> None:
        for recorded in batch:
            self.commits.append(recorded)
            if (kind := REGISTRY.by_name[recorded.commit.aggregate_kind].work) is not None:
                self._evolve(recorded, kind.work_class)

    def _evolve(self, recorded: RecordedCommit, work_class: WorkClass) -> None:
        work_id = recorded.commit.aggregate_id
        self.work_classes[work_id] = work_class
        for event in recorded.commit.events:
            self.work[work_id] = evolve(self.work.get(work_id, Work()), event, recorded.sequence)
            if isinstance(event, JobCreated | TaggingRequested):
                self.datasets[work_id] = event.dataset_id
            if isinstance(event, END_EVENTS):
                self.ends[work_id].append(type(event).__name__)
            if isinstance(event, Failed):
                self.failure_reasons[work_id] = f"{event.code}: {event.reason}"

    def unfinished(self, work_class: WorkClass) -> list[str]:
        return [
            work_id
            for work_id, work in self.work.items()
            if self.work_classes[work_id] == work_class and not work.ended
        ]

    def is_busy(self, work_class: WorkClass) -> bool:
        """Whether a live worker of this class has an open attempt that has already made progress of its own.

        A worker that dies three times in a row without progress ends its work as poison, as designed; so faults are
        not injected before that point.
        """
        return any(
            work.open and work.completed_units > work.completed_units_at_start and self._is_live(work_id)
            for work_id, work in self.work.items()
            if self.work_classes[work_id] == work_class and not work.ended
        )

    def _is_live(self, work_id: str) -> bool:
        attempt, at = self._last_progress.get(work_id, (0, 0.0))
        recent = asyncio.get_running_loop().time() - at < PROGRESS_TIMEOUT_SECONDS
        return attempt == self.work[work_id].attempt and recent


@dataclass
class WorkGenerator:
    """Keeps trainers and taggers busy."""

    sender: CommandSender
    observer: LogObserver
    datasets: list[str]
    rng: random.Random
    min_jobs: int
    """Minimum number of trainings."""
    requested: dict[str, SentCommand] = field(default_factory=dict)
    """Each requested job and run by its id."""
    cancelled: set[str] = field(default_factory=set)
    _count: int = 0

    async def run(self, should_continue: Callable[[], bool]) -> None:
        """Until `should_continue` is false and at least `min_jobs` jobs were requested."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._request_jobs(should_continue), name="jobs")
            tasks.create_task(self._request_runs(should_continue), name="runs")

    async def wait_all_ended(self, timeout: float) -> bool:
        """Wait until all requested work has ended; False if that takes longer than `timeout` seconds."""
        deadline = asyncio.get_running_loop().time() + timeout
        while any(not self._has_ended(work_id) for work_id in self.requested):
            if asyncio.get_running_loop().time() > deadline:
                return False
            await asyncio.sleep(POLL_SECONDS)
        return True

    def _has_ended(self, work_id: str) -> bool:
        return work_id in self.observer.work and self.observer.work[work_id].ended

    async def _request_jobs(self, should_continue: Callable[[], bool]) -> None:
        number = 0
        while should_continue() or number < self.min_jobs:
            if len(self.observer.unfinished("train")) >= MAX_UNFINISHED:
                await asyncio.sleep(POLL_SECONDS)
                continue
            number += 1
            body = {"dataset": self.rng.choice(self.datasets), "name": f"job {number}", "changes": RECIPE}
            job = await self._request("job", f"job {number}", "/training/single", body)
            if job and number % CANCEL_EVERY == 0:
                await self._cancel(job, while_training=number % (2 * CANCEL_EVERY) == 0)

    async def _cancel(self, job: str, *, while_training: bool) -> None:
        while while_training and not self.observer.steps.get(job) and not self._has_ended(job):  # noqa: ASYNC110 - set by on_progress
            await asyncio.sleep(POLL_SECONDS)
        self._count += 1
        command = SentCommand(key=f"cancel-{self._count}", operation="cancel", value=job, target=job)
        self.cancelled.add(job)
        answer = await self.sender.send(command, "POST", f"/jobs/{job}/cancel", {})
        if answer is None and command.refusal[:3] == "409":
            self.sender.commands.remove(command)  # the job ended first; do not count this as a refusal

    async def _request_runs(self, should_continue: Callable[[], bool]) -> None:
        number = 0
        while should_continue():
            if len(self.observer.unfinished("tag")) >= MAX_UNFINISHED:
                await asyncio.sleep(POLL_SECONDS)
                continue
            number += 1
            body = {"dataset": self.rng.choice(self.datasets), "model": "demo"}
            await self._request("run", f"run {number}", "/tagging/runs", body)
            await asyncio.sleep(RUN_PAUSE_SECONDS)

    async def _request(self, kind: str, value: str, path: str, body: Mapping[str, object]) -> str:
        self._count += 1
        command = SentCommand(key=f"work-{self._count}", operation="job" if kind == "job" else "run", value=value)
        # The id is derived from the key, so an unanswered request can be found in the log, too.
        expected = derived(kind, keyed_command_id(ACTOR, command.key))
        result = await self.sender.send(command, "POST", path, body)
        work_id = result.id if result is not None else expected
        if result is not None or work_id in self.observer.work:
            self.requested[work_id] = command
            while work_id not in self.observer.work:  # noqa: ASYNC110 - set when the log is read
                await asyncio.sleep(POLL_SECONDS / 4)
        return work_id if result is not None else ""
