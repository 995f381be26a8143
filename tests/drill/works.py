"""Trainings and tagging runs: some always under way, some cancelled; and the log as it comes, folded piece by piece."""

import asyncio
import random
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from contracts.events import Cancelled, Failed, JobSucceeded, Stored, TaggingSucceeded
from contracts.ids import derived, keyed_command_id
from contracts.jobs import Work, evolve
from contracts.subjects import CLASS_OF, WorkClass
from contracts.telemetry import Progress, TrainingProgress
from contracts.wire.follow import Follower
from tests.drill.wishes import Counter, Wish

ACTOR = "user:local"
UNDER_WAY = 2
"""So many jobs, and so many runs, wait or run at a time."""
CANCELLED = 6
"""Every so-many-th job is cancelled, in turn while it waits and while it trains."""
POLL = 0.2
SILENT = 2.5
"""Seconds: who works tells of it every second."""
REST = 1.0
"""Seconds between two tagging runs: they are short, and others want the machine too."""
STEPS = 24
RECIPE: dict[str, object] = {
    "adapter": {"type": "lora", "rank": 1, "alpha": 1.0},  # nine hundred jobs leave their checkpoints behind
    "data": {"resolution": 64, "bucket_step": 8},
    "length": {"type": "steps", "count": STEPS},
    "save.every": 4,
    "sampling": {"prompts": ["a creature"], "steps": 1},
}
END = Cancelled | Failed | JobSucceeded | TaggingSucceeded


class Watch:
    """Every commit as it comes, and where each piece of work stands."""

    def __init__(self) -> None:
        self.commits: list[Stored] = []
        self.works: dict[str, Work] = {}
        self.kinds: dict[str, WorkClass] = {}
        self.ends: dict[str, list[str]] = defaultdict(list)
        self.reasons: dict[str, str] = {}
        self.steps: dict[str, int] = {}
        self._told: dict[str, tuple[int, float]] = {}
        """The attempt that spoke last of each piece of work, and when."""

    async def read(self, follower: Follower) -> None:
        async for batch in follower.batches():
            self.take(batch)

    async def hear(self, told: Progress) -> None:
        if isinstance(told, TrainingProgress):
            self.steps[told.job_id] = told.step
        thing = told.job_id if isinstance(told, TrainingProgress) else told.run_id
        self._told[thing] = told.attempt, asyncio.get_running_loop().time()

    def take(self, batch: list[Stored]) -> None:
        for stored in batch:
            self.commits.append(stored)
            if (work_class := CLASS_OF.get(stored.commit.kind)) is not None:
                self._move(stored, work_class)

    def _move(self, stored: Stored, work_class: WorkClass) -> None:
        thing = stored.commit.thing
        self.kinds[thing] = work_class
        for fact in stored.commit.facts:
            self.works[thing] = evolve(self.works.get(thing, Work()), fact, stored.sequence)
            if isinstance(fact, END):
                self.ends[thing].append(type(fact).__name__)
            if isinstance(fact, Failed):
                self.reasons[thing] = f"{fact.code}: {fact.reason}"

    def unfinished(self, work_class: WorkClass) -> list[str]:
        return [thing for thing, work in self.works.items() if self.kinds[thing] == work_class and not work.ended]

    def held(self, work_class: WorkClass) -> bool:
        """Is somebody alive at work of this class, and has already kept something of it that was new?

        A worker that dies before three times in a row ends its work as poison, as it should: so no fault aims there.
        """
        return any(
            work.open and work.kept > work.kept_before and self._speaks(thing)
            for thing, work in self.works.items()
            if self.kinds[thing] == work_class and not work.ended
        )

    def _speaks(self, thing: str) -> bool:
        attempt, at = self._told.get(thing, (0, 0.0))
        return attempt == self.works[thing].attempt and asyncio.get_running_loop().time() - at < SILENT


@dataclass
class Foreman:
    """Keeps trainers and taggers busy."""

    counter: Counter
    watch: Watch
    datasets: list[str]
    chance: random.Random
    jobs: int
    """So many trainings at least."""
    asked: dict[str, Wish] = field(default_factory=dict)
    """Each job and run by its id."""
    cancelled: set[str] = field(default_factory=set)
    _count: int = 0

    async def work(self, wanted: Callable[[], bool]) -> None:
        """Until it is wanted no longer and there were enough jobs."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._train(wanted), name="jobs")
            tasks.create_task(self._tag(wanted), name="runs")

    async def all_ended(self, within: float) -> bool:
        """Does everything that was asked end within so many seconds?"""
        until = asyncio.get_running_loop().time() + within
        while any(not self._ended(thing) for thing in self.asked):
            if asyncio.get_running_loop().time() > until:
                return False
            await asyncio.sleep(POLL)
        return True

    def _ended(self, thing: str) -> bool:
        return thing in self.watch.works and self.watch.works[thing].ended

    async def _train(self, wanted: Callable[[], bool]) -> None:
        number = 0
        while wanted() or number < self.jobs:
            if len(self.watch.unfinished("train")) >= UNDER_WAY:
                await asyncio.sleep(POLL)
                continue
            number += 1
            body = {"dataset": self.chance.choice(self.datasets), "name": f"job {number}", "changes": RECIPE}
            job = await self._ask("job", f"job {number}", "/training/single", body)
            if job and number % CANCELLED == 0:
                await self._cancel(job, while_it_runs=number % (2 * CANCELLED) == 0)

    async def _cancel(self, job: str, *, while_it_runs: bool) -> None:
        while while_it_runs and not self.watch.steps.get(job) and not self._ended(job):  # noqa: ASYNC110 - as told
            await asyncio.sleep(POLL)
        self._count += 1
        wish = Wish(key=f"cancel-{self._count}", what="cancel", value=job, thing=job)
        self.cancelled.add(job)
        if await self.counter.send(wish, "POST", f"/jobs/{job}/cancel", {}) is None and wish.refused[:3] == "409":
            self.counter.wishes.remove(wish)  # it was quicker; that is no refusal to count

    async def _tag(self, wanted: Callable[[], bool]) -> None:
        number = 0
        while wanted():
            if len(self.watch.unfinished("tag")) >= UNDER_WAY:
                await asyncio.sleep(POLL)
                continue
            number += 1
            await self._ask("run", f"run {number}", "/tagging/runs", {"dataset": self.chance.choice(self.datasets)})
            await asyncio.sleep(REST)

    async def _ask(self, what: str, value: str, path: str, body: Mapping[str, object]) -> str:
        self._count += 1
        wish = Wish(key=f"work-{self._count}", what="job" if what == "job" else "run", value=value)
        # Its id follows from the key: so one that nobody answered is looked for, too.
        expected = derived(what, keyed_command_id(ACTOR, wish.key))
        receipt = await self.counter.send(wish, "POST", path, body)
        thing = receipt.id if receipt is not None else expected
        if receipt is not None or thing in self.watch.works:
            self.asked[thing] = wish
            while thing not in self.watch.works:  # noqa: ASYNC110 - the log comes in its own time
                await asyncio.sleep(POLL / 4)
        return thing if receipt is not None else ""
