"""One complete drill: start the services, generate load, inject faults, and check the outcome."""

import asyncio
import os
import random
import shutil
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from contracts.telemetry import TaggingProgress, TrainingProgress
from contracts.wire.log.event_log import EventLog
from contracts.wire.log.follow import Follower, FollowPolicy
from contracts.wire.service.bus import Bus, connect
from contracts.wire.service.telemetry import subscribe
from tests.drill.checker import Verdict, check_commands, check_work, find_differences
from tests.drill.client_commands import API, CommandSender, Writer
from tests.drill.fault_injection import FaultInjector, ProxiedStack, SmallDisk
from tests.drill.schedule import Fault, Target, build_schedule
from tests.drill.work_generator import ACTOR, LogObserver, WorkGenerator

READY_TIMEOUT_SECONDS = 300.0
ALL_ENDED_TIMEOUT_SECONDS = 600.0
"""Within this time after the last fault all requested work must have ended."""
CATCH_UP_TIMEOUT_SECONDS = 120.0
MIN_BUSY_SHARE = 0.6
"""Minimum share of faults that must hit a busy target."""
LEASE_SECONDS = 6.0
DISK_MEGABYTES = 4096
ENVIRON = {
    **{name: value for name, value in os.environ.items() if not name.startswith("LORATORY_")},
    "OMP_NUM_THREADS": "1",
    "LORATORY_LEASE": str(LEASE_SECONDS),
}


@dataclass(frozen=True, kw_only=True)
class DrillConfig:
    """`writes` and `jobs` are minimums; `seconds` is the duration, `longest` the longest fault in seconds."""

    seed: int
    faults: int
    seconds: float
    writers: int = 4
    writes: int
    jobs: int
    longest: float = 60.0
    small_disk: bool = True


@dataclass
class InjectedFault:
    """One fault as injected. `was_busy`: whether its target had unfinished work; None: it was down already."""

    fault: Fault
    at: float
    was_busy: bool | None


@dataclass
class DrillResult:
    config: DrillConfig
    injected: list[InjectedFault] = field(default_factory=list)
    commands: Verdict = field(default_factory=Verdict)
    jobs: Verdict = field(default_factory=Verdict)
    runs: Verdict = field(default_factory=Verdict)
    differences: list[str] = field(default_factory=list)
    """Between copies of the same data, such as log and archive."""
    server_errors: list[str] = field(default_factory=list)
    no_disk_reason: str = ""
    """Why the disk was not filled; empty if it was."""
    commits: int = 0
    seconds: float = 0.0

    @property
    def busy_share(self) -> float:
        """Share of the faults that hit a busy target."""
        return sum(one.was_busy is True for one in self.injected) / max(len(self.injected), 1)

    @property
    def writes(self) -> int:
        return self.commands.counts["kept"]

    @property
    def failures(self) -> list[str]:
        """Why this drill did not pass; empty if it did."""
        failures = [
            *self.commands.errors,
            *self.jobs.errors,
            *self.runs.errors,
            *self.differences,
            *self.server_errors,
        ]
        if self.writes < self.config.writes:
            failures.append(f"only {self.writes} writes were acknowledged, {self.config.writes} are required")
        if self.jobs.counts.total() < self.config.jobs:
            failures.append(f"only {self.jobs.counts.total()} jobs were requested, {self.config.jobs} are required")
        if self.busy_share < MIN_BUSY_SHARE:
            failures.append(f"only {self.busy_share:.0%} of the faults hit a busy target")
        return failures


Print = Callable[[str], None]


async def run_drill(config: DrillConfig, folder: Path, print_line: Print) -> DrillResult:
    """Run and check one drill; data and logs stay in `folder` for inspection."""
    began, result = time.monotonic(), DrillResult(config)
    data = folder / "data"
    async with _small_disk(config, data) as unavailable_reason:
        result.no_disk_reason = unavailable_reason
        without: frozenset[Target] = frozenset({"disk"}) if unavailable_reason else frozenset()
        schedule = build_schedule(
            config.seed, faults=config.faults, seconds=config.seconds, longest=config.longest, without=without
        )
        async with (
            ProxiedStack(data, environ=ENVIRON, port=0, print_line=print_line) as stack,
            _observe_log(stack) as (bus, observer),
        ):
            await stack.wait_ready(timeout=READY_TIMEOUT_SECONDS)
            async with httpx.AsyncClient(base_url=stack.address, timeout=httpx.Timeout(20, connect=5)) as http:
                load = Load.create(config, http, observer)
                await stack.run(_run_load_with_faults(schedule, stack, load, result, print_line))
                await _wait_caught_up(bus, observer, http)
                result.differences += await load.compare_images(http)
        load.check(result)
        result.differences += await find_differences(data / "catalog", folder, observer.commits)
        result.differences += _check_lora_files(data / "loras", result.jobs.counts["completed"])
    result.commits, result.seconds = len(observer.commits), time.monotonic() - began
    return result


@dataclass
class Load:
    """The simulated users: writers of data sets, and a generator of jobs and tagging runs."""

    config: DrillConfig
    sender: CommandSender
    writers: list[Writer]
    generator: WorkGenerator
    observer: LogObserver

    @classmethod
    def create(cls, config: DrillConfig, http: httpx.AsyncClient, observer: LogObserver) -> "Load":
        rng = random.Random(config.seed)
        sender = CommandSender(http, random.Random(rng.random()))
        pause = config.seconds * config.writers / max(config.writes, 1) / 3
        writers = [Writer(f"w{number}", sender, random.Random(rng.random()), pause) for number in range(config.writers)]
        datasets = [writer.dataset for writer in writers]
        generator = WorkGenerator(sender, observer, datasets, random.Random(rng.random()), config.jobs)
        return cls(config, sender, writers, generator, observer)

    async def run(self, faults_remain: Callable[[], bool]) -> None:
        """Until no faults remain and the required minimum of writes and jobs is reached."""

        def writers_continue() -> bool:
            acknowledged = sum(command.sequence is not None for command in self.sender.commands)
            return faults_remain() or acknowledged < self.config.writes

        async with asyncio.TaskGroup() as tasks:
            for writer in self.writers:
                tasks.create_task(writer.run(writers_continue), name=writer.name)
            tasks.create_task(self.generator.run(faults_remain), name="generator")

    def is_busy(self, target: str) -> bool:
        """Whether this target has unfinished work right now; a core service has while a request is unanswered."""
        match target:
            case "trainer" | "engine":
                return self.observer.is_busy("train")
            case "tagger":
                return self.observer.is_busy("tag")
            case _:
                return self.sender.in_flight > 0

    async def compare_images(self, http: httpx.AsyncClient) -> list[str]:
        """Images whose tags or caption differ from the last acknowledged ones."""
        differences: list[str] = []
        for writer in self.writers:
            for image in set(writer.images) - writer.uncertain_images:
                current = (await http.get(f"{API}/images/{image}")).raise_for_status().json()
                tags = {tag["tag"] for tag in current["tags"] if tag["tag"].startswith(f"{writer.name}-")}
                if tags != {writer.tags.get(image, "")} - {""}:
                    differences.append(f"image {image} has the tags {tags}, not {writer.tags.get(image)}")
                if image in writer.captions and current["caption"] != writer.captions[image]:
                    differences.append(
                        f"image {image} has the caption {current['caption']!r}, not {writer.captions[image]!r}"
                    )
        return differences

    def check(self, result: DrillResult) -> None:
        observer, generator = self.observer, self.generator
        result.commands = check_commands(self.sender.commands, observer.commits, ACTOR)
        result.server_errors = self.sender.server_errors
        jobs = [work_id for work_id in generator.requested if observer.work_classes[work_id] == "train"]
        runs = [work_id for work_id in generator.requested if observer.work_classes[work_id] == "tag"]
        result.jobs = check_work(jobs, observer, generator.cancelled)
        result.runs = check_work(runs, observer, generator.cancelled)


async def _run_load_with_faults(
    schedule: list[Fault], stack: ProxiedStack, load: Load, result: DrillResult, print_line: Print
) -> None:
    for writer in load.writers:
        await writer.set_up()
    injector = FaultInjector(stack, load.is_busy)
    injecting = asyncio.create_task(_inject_all(schedule, injector, result, print_line), name="faults")
    await load.run(lambda: not injecting.done())
    await injecting
    print_line("all faults injected; waiting for the requested work to end")
    await load.generator.wait_all_ended(ALL_ENDED_TIMEOUT_SECONDS)


async def _inject_all(schedule: list[Fault], injector: FaultInjector, result: DrillResult, print_line: Print) -> None:
    """Inject each fault at its time; a fault waits while another one on the same target lasts."""
    loop = asyncio.get_running_loop()
    began, locks = loop.time(), defaultdict[str, asyncio.Lock](asyncio.Lock)

    async def inject(fault: Fault) -> None:
        await asyncio.sleep(began + fault.at - loop.time())
        async with locks["trainer" if fault.target == "engine" else fault.target]:
            was_busy = await injector.inject(fault)
        result.injected.append(InjectedFault(fault, loop.time() - began, was_busy))
        state = {True: "busy", False: "idle", None: "already down"}[was_busy]
        print_line(f"{len(result.injected):>4}/{len(schedule)}  {fault}  ({state})")

    async with asyncio.TaskGroup() as tasks:
        for fault in schedule:
            tasks.create_task(inject(fault), name=str(fault))


@asynccontextmanager
async def _observe_log(stack: ProxiedStack) -> AsyncIterator[tuple[Bus, LogObserver]]:
    """Read the log over a direct connection that no proxy disturbs."""
    observer = LogObserver()
    bus = await connect(stack.nats.url, *stack.nats.credentials("gateway"), "drill")  # may read, and append nothing
    reading = asyncio.create_task(observer.read(Follower(bus, 0, policy=FollowPolicy(poll=0.05))))
    try:
        await subscribe(bus, TrainingProgress, observer.on_progress)
        await subscribe(bus, TaggingProgress, observer.on_progress)
        yield bus, observer
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await bus.close()


@asynccontextmanager
async def _small_disk(config: DrillConfig, data: Path) -> AsyncIterator[str]:
    """Yields why the disk cannot be filled; empty if it can."""
    if not config.small_disk:
        yield "not requested"
        return
    async with SmallDisk(data, DISK_MEGABYTES) as disk:
        try:
            yield disk.unavailable_reason
        finally:  # unmounting removes everything on the disk
            shutil.copytree(data / "logs", data.with_name("logs"), dirs_exist_ok=True)


async def _wait_caught_up(bus: Bus, observer: LogObserver, http: httpx.AsyncClient) -> None:
    """Until both this drill and the read model have processed the whole log."""
    _, end = await EventLog(bus).end()
    async with asyncio.timeout(CATCH_UP_TIMEOUT_SECONDS):
        while len(observer.commits) < end or (await http.get(f"{API}/datasets", params={"min_seq": end})).is_error:  # noqa: ASYNC110 - other processes do the work
            await asyncio.sleep(0.05)


def _check_lora_files(folder: Path, completed: int) -> list[str]:
    """There must be two files for each completed training, and no others."""
    files = len(list(folder.glob("[!.]*.safetensors")))
    return [] if files == 2 * completed else [f"{files} files are in loras/ after {completed} completed trainings"]
