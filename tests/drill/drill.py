"""One drill from its beginning to its verdict."""

import asyncio
import os
import random
import shutil
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from contracts import subjects
from contracts.telemetry import Progress
from contracts.wire.bus import Bus, connect
from contracts.wire.follow import Follower
from contracts.wire.log import EventLog
from contracts.wire.telling import hear
from tests.drill.checker import Verdict, differences, judged_wishes, judged_works
from tests.drill.house import Hand, LinedStack, SmallDisk
from tests.drill.schedule import Fault, Target, drawn
from tests.drill.wishes import Counter, P, Writer
from tests.drill.works import ACTOR, Foreman, Watch

READY_WITHIN = 300.0
ALL_END_WITHIN = 600.0
"""Seconds after the last fault in which all that was asked must have ended."""
CAUGHT_UP_WITHIN = 120.0
LEASE = 6.0
DISK_MEGABYTES = 4096
ENVIRON = {
    **{name: value for name, value in os.environ.items() if not name.startswith("LORATORY_")},
    "OMP_NUM_THREADS": "1",
    "LORATORY_LEASE": str(LEASE),
}


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a drill is to be: `writes` and `jobs` at least, `longest` and `seconds` in seconds."""

    seed: int
    faults: int
    seconds: float
    writers: int = 4
    writes: int
    jobs: int
    longest: float = 60.0
    small_disk: bool = True


@dataclass
class Struck:
    """One fault as it came. `held`: did its target hold work? None: it was down already."""

    fault: Fault
    at: float
    held: bool | None


@dataclass
class Outcome:
    asked: Asked
    struck: list[Struck] = field(default_factory=list)
    wishes: Verdict = field(default_factory=Verdict)
    jobs: Verdict = field(default_factory=Verdict)
    runs: Verdict = field(default_factory=Verdict)
    found: list[str] = field(default_factory=list)
    """Differences between what must be the same."""
    broken: list[str] = field(default_factory=list)
    skipped: str = ""
    commits: int = 0
    took: float = 0.0

    @property
    def on_work(self) -> float:
        """The part of the faults that hit who held work."""
        return sum(struck.held is True for struck in self.struck) / max(len(self.struck), 1)

    @property
    def writes(self) -> int:
        return self.wishes.counts["kept"]

    @property
    def failures(self) -> list[str]:
        """Why this drill is not passed; empty when it is."""
        wrong = [*self.wishes.wrong, *self.jobs.wrong, *self.runs.wrong, *self.found, *self.broken]
        if self.writes < self.asked.writes:
            wrong.append(f"only {self.writes} writes were acknowledged, {self.asked.writes} were asked for")
        if self.jobs.counts.total() < self.asked.jobs:
            wrong.append(f"only {self.jobs.counts.total()} jobs were asked, {self.asked.jobs} were wanted")
        if self.on_work < 0.6:
            wrong.append(f"only {self.on_work:.0%} of the faults hit who held work")
        return wrong


Say = Callable[[str], None]


async def drilled(asked: Asked, folder: Path, say: Say) -> Outcome:
    """Everything started, troubled, ended and judged; `folder` may be looked through afterwards."""
    began, outcome = time.monotonic(), Outcome(asked)
    data = folder / "data"
    async with _disk(asked, data) as why_not:
        outcome.skipped = why_not
        without: frozenset[Target] = frozenset({"disk"}) if why_not else frozenset()
        plan = drawn(asked.seed, faults=asked.faults, seconds=asked.seconds, longest=asked.longest, without=without)
        async with LinedStack(data, environ=ENVIRON, port=0, say=say) as stack, _watched(stack) as (bus, watch):
            await stack.wait_ready(timeout=READY_WITHIN)
            async with httpx.AsyncClient(base_url=stack.address, timeout=httpx.Timeout(20, connect=5)) as http:
                crew = Crew.of(asked, http, watch)
                await _unless_it_fails(stack, _troubled(plan, stack, crew, outcome, say))
                await _caught_up(bus, watch, http)
                outcome.found += await crew.looked_at(http)
        crew.judge(outcome)
        outcome.found += await differences(data / "catalog", folder, watch.commits)
        outcome.found += _laid_out(data / "loras", outcome.jobs.counts["completed"])
    outcome.commits, outcome.took = len(watch.commits), time.monotonic() - began
    return outcome


@dataclass
class Crew:
    """Who works while it is troubled."""

    asked: Asked
    counter: Counter
    writers: list[Writer]
    foreman: Foreman
    watch: Watch

    @classmethod
    def of(cls, asked: Asked, http: httpx.AsyncClient, watch: Watch) -> "Crew":
        chance = random.Random(asked.seed)
        counter = Counter(http, random.Random(chance.random()))
        pause = asked.seconds * asked.writers / max(asked.writes, 1) / 3
        writers = [
            Writer(f"w{number}", counter, random.Random(chance.random()), pause) for number in range(asked.writers)
        ]
        datasets = [writer.dataset for writer in writers]
        foreman = Foreman(counter, watch, datasets, random.Random(chance.random()), asked.jobs)
        return cls(asked, counter, writers, foreman, watch)

    async def work(self, wanted: Callable[[], bool]) -> None:
        """Until it is wanted no longer and enough was done."""

        def more() -> bool:
            acknowledged = sum(wish.sequence is not None for wish in self.counter.wishes)
            return wanted() or acknowledged < self.asked.writes

        async with asyncio.TaskGroup() as tasks:
            for writer in self.writers:
                tasks.create_task(writer.work(more), name=writer.name)
            tasks.create_task(self.foreman.work(wanted), name="foreman")

    def holds(self, target: str) -> bool:
        """Does this process hold work right now? Those that serve hold what was asked and not answered yet."""
        match target:
            case "trainer" | "engine":
                return self.watch.held("train")
            case "tagger":
                return self.watch.held("tag")
            case _:
                return self.counter.in_flight > 0

    async def looked_at(self, http: httpx.AsyncClient) -> list[str]:
        """Images that do not look as their writer was last told they do."""
        wrong: list[str] = []
        for writer in self.writers:
            for image in set(writer.images) - writer.unsure:
                seen = (await http.get(f"{P}/images/{image}")).raise_for_status().json()
                tags = {tag["tag"] for tag in seen["tags"] if tag["tag"].startswith(f"{writer.name}-")}
                if tags != {writer.tags.get(image, "")} - {""}:
                    wrong.append(f"image {image} has the tags {tags}, not {writer.tags.get(image)}")
                if image in writer.captions and seen["caption"] != writer.captions[image]:
                    wrong.append(f"image {image} has the caption {seen['caption']!r}, not {writer.captions[image]!r}")
        return wrong

    def judge(self, outcome: Outcome) -> None:
        watch, foreman = self.watch, self.foreman
        outcome.wishes = judged_wishes(self.counter.wishes, watch.commits, ACTOR)
        outcome.broken = self.counter.broken
        jobs = [thing for thing in foreman.asked if watch.kinds[thing] == "train"]
        runs = [thing for thing in foreman.asked if watch.kinds[thing] == "tag"]
        outcome.jobs = judged_works(jobs, watch, foreman.cancelled)
        outcome.runs = judged_works(runs, watch, foreman.cancelled)


async def _troubled(plan: list[Fault], stack: LinedStack, crew: Crew, outcome: Outcome, say: Say) -> None:
    for writer in crew.writers:
        await writer.begin()
    striking = asyncio.create_task(_strike_all(plan, Hand(stack, crew.holds), outcome, say), name="faults")
    await crew.work(lambda: not striking.done())
    await striking
    say("all faults have struck; what was asked comes to its end")
    await crew.foreman.all_ended(ALL_END_WITHIN)


async def _strike_all(plan: list[Fault], hand: Hand, outcome: Outcome, say: Say) -> None:
    """Each in its time; one on a target where another lasts waits for that."""
    loop = asyncio.get_running_loop()
    began, turns = loop.time(), defaultdict[str, asyncio.Lock](asyncio.Lock)

    async def strike(fault: Fault) -> None:
        await asyncio.sleep(began + fault.at - loop.time())
        async with turns["trainer" if fault.target == "engine" else fault.target]:
            held = await hand.strike(fault)
        outcome.struck.append(Struck(fault, loop.time() - began, held))
        on = {True: "at work", False: "idle", None: "down already"}[held]
        say(f"{len(outcome.struck):>4}/{len(plan)}  {fault}  ({on})")

    async with asyncio.TaskGroup() as tasks:
        for fault in plan:
            tasks.create_task(strike(fault), name=str(fault))


async def _unless_it_fails(stack: LinedStack, work: Coroutine[None, None, None]) -> None:
    """The work, to its end; StackFailed when the workshop cannot be kept alive meanwhile."""
    working, standing = asyncio.create_task(work), asyncio.create_task(stack.watch())
    try:
        await asyncio.wait({working, standing}, return_when=asyncio.FIRST_COMPLETED)
        if standing.done():
            await standing
        await working
    finally:
        for task in (working, standing):
            task.cancel()
        await asyncio.gather(working, standing, return_exceptions=True)


@asynccontextmanager
async def _watched(stack: LinedStack) -> AsyncIterator[tuple[Bus, Watch]]:
    """The log, read past all proxies."""
    user, password = stack.nats.credentials("gateway")  # may read all and write nothing
    bus, watch = await connect(stack.nats.url, user, password, "drill"), Watch()
    reading = asyncio.create_task(watch.read(Follower(bus, 0)))
    try:
        await hear(bus, subjects.ALL_PROGRESS, Progress, watch.hear)
        yield bus, watch
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await bus.close()


@asynccontextmanager
async def _disk(asked: Asked, data: Path) -> AsyncIterator[str]:
    """Why the disk cannot be filled; empty where it can."""
    if not asked.small_disk:
        yield "not asked for"
        return
    async with SmallDisk(data, DISK_MEGABYTES) as disk:
        try:
            yield disk.why_not
        finally:  # the disk goes, with all that is on it
            shutil.copytree(data / "logs", data.with_name("logs"), dirs_exist_ok=True)


async def _caught_up(bus: Bus, watch: Watch, http: httpx.AsyncClient) -> None:
    """The drill has read the whole log, and so has the read model."""
    _, end = await EventLog(bus).end()
    async with asyncio.timeout(CAUGHT_UP_WITHIN):
        while len(watch.commits) < end or (await http.get(f"{P}/datasets", params={"min_seq": end})).is_error:  # noqa: ASYNC110 - as told
            await asyncio.sleep(0.05)


def _laid_out(folder: Path, completed: int) -> list[str]:
    """Two files for each finished training, and no other."""
    files = len(list(folder.glob("[!.]*.safetensors")))
    return [] if files == 2 * completed else [f"{files} files lie in loras/, of {completed} finished trainings"]
