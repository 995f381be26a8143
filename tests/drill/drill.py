"""One complete drill: start the services, generate load, inject faults, and check the outcome."""

import asyncio
import contextlib
import os
import shutil
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import get_args

import httpx
import nats.errors

from contracts.errors import LoratoryError
from contracts.telemetry import TaggingProgress, TrainingProgress
from contracts.wire.log.event_log import EventLog
from contracts.wire.log.follow import Follower, FollowPolicy
from contracts.wire.service.boot import leaf_errors
from contracts.wire.service.bus import Bus, connect
from contracts.wire.service.telemetry import subscribe
from tests.drill.checker import find_differences
from tests.drill.client_commands import API
from tests.drill.fault_injection import FaultInjector
from tests.drill.forging import FORGED_TAG, forge
from tests.drill.load import Load
from tests.drill.losses import Maintenance
from tests.drill.result import DrillConfig, DrillResult, InjectedFault
from tests.drill.schedule import Fault, Target, backup_moment, build_schedule, extra_faults
from tests.drill.stacks import READY_TIMEOUT_SECONDS, DrillStack, SmallDisk
from tests.drill.work_generator import LogObserver

ALL_ENDED_TIMEOUT_SECONDS = 600.0
"""Within this time after the last fault all requested work must have ended."""
CATCH_UP_TIMEOUT_SECONDS = 120.0
READ_TIMEOUT_SECONDS = 20.0
"""Time to read the rest of the log after a drill that ended early."""
LEASE_SECONDS = 6.0
DISK_MEGABYTES = 4096
ENVIRON = {
    **{name: value for name, value in os.environ.items() if not name.startswith("LORATORY_")},
    "OMP_NUM_THREADS": "1",
    "LORATORY_LEASE": str(LEASE_SECONDS),
}

Print = Callable[[str], None]


async def run_drill(config: DrillConfig, folder: Path, print_line: Print) -> DrillResult:
    """Run and check one drill; data and logs stay in `folder` for inspection.

    Whatever ends it early, also a cancellation, becomes `ended_early` of the result.
    """
    began, result = time.monotonic(), DrillResult(config)
    try:
        await _run(config, folder, print_line, result)
    except asyncio.CancelledError:
        result.ended_early = "interrupted"
    except Exception as error:  # noqa: BLE001 - the edge of the drill: its table is printed whatever happens
        result.ended_early = "; ".join(f"{type(leaf).__name__}: {leaf}" for leaf in leaf_errors(error))
    result.seconds = time.monotonic() - began
    return result


async def _run(config: DrillConfig, folder: Path, print_line: Print, result: DrillResult) -> None:
    data = folder / "data"
    async with _small_disk(config, data) as unavailable_reason:
        result.no_disk_reason = unavailable_reason
        async with (
            DrillStack(data, ENVIRON, print_line) as stack,
            _observe_log(stack) as (bus, observer),
            httpx.AsyncClient(base_url=stack.address, timeout=httpx.Timeout(20, connect=5)) as http,
        ):
            await stack.current.wait_ready(timeout=READY_TIMEOUT_SECONDS)
            load = Load.create(config, http, observer)
            async with _checked(load, bus, result):
                await stack.run(Drill(config, stack, load, result, folder, print_line).run())
                await _wait_caught_up(bus, observer, http)
                result.differences += await load.compare_images(http)
                result.differences += await _find_forged_tags(load, http)
        await _compare_files(folder, observer, result)


@asynccontextmanager
async def _checked(load: Load, bus: Bus, result: DrillResult) -> AsyncIterator[None]:
    """Check what was requested, also if the block ends with an error; then the log is read first, if possible."""
    try:
        yield
    except BaseException as error:
        result.ended_early = type(error).__name__
        with contextlib.suppress(LoratoryError, TimeoutError, nats.errors.Error):
            async with asyncio.timeout(READ_TIMEOUT_SECONDS):
                _, end = await EventLog(bus).end()
                while load.observer.last < end:  # noqa: ASYNC110 - read by another task
                    await asyncio.sleep(0.05)
        raise
    finally:
        load.check(result)


async def _compare_files(folder: Path, observer: LogObserver, result: DrillResult) -> None:
    """Once the stack is down: log, archive, read model and the folder of LoRAs."""
    result.differences += await find_differences(folder / "data" / "catalog", folder, observer.commits)
    completed = result.jobs.counts["completed"]
    files = len(list((folder / "data" / "loras").glob("[!.]*.safetensors")))
    if files != 2 * completed:  # two files for each completed training, and no others
        result.differences.append(f"{files} files are in loras/ after {completed} completed trainings")


class Drill:
    """The load with its faults, in one run."""

    def __init__(  # noqa: PLR0917 - the parts of a drill
        self, config: DrillConfig, stack: DrillStack, load: Load, result: DrillResult, folder: Path, print_line: Print
    ) -> None:
        self._config, self._stack, self._load, self._result = config, stack, load, result
        self._print = print_line
        self._injector = FaultInjector(stack, load.is_busy)
        self._maintenance = Maintenance(stack, folder, result.losses)
        self._locks = defaultdict[str, asyncio.Lock](asyncio.Lock)
        self._has_backup = asyncio.Event()
        self._total = 0

    async def run(self) -> None:
        for writer in self._load.writers:
            await writer.set_up()
        injecting = asyncio.create_task(self._inject_all(), name="faults")
        try:
            await self._load.run(lambda: not injecting.done())
            await injecting
        finally:
            injecting.cancel()
            await asyncio.gather(injecting, return_exceptions=True)
        self._print("all faults injected; waiting for the requested work to end")
        await self._load.generator.wait_all_ended(ALL_ENDED_TIMEOUT_SECONDS)

    async def _inject_all(self) -> None:
        """Inject each fault at its time; a fault waits while another one on the same target lasts."""
        config, began = self._config, time.monotonic()
        without: frozenset[Target] = frozenset({"disk"}) if self._result.no_disk_reason else frozenset()
        schedule = build_schedule(
            config.seed, faults=config.faults, seconds=config.seconds, longest=config.longest, without=without
        )
        schedule += extra_faults(config.seed, config.extras, faults=config.faults, seconds=config.seconds)
        self._total = len(schedule)
        async with asyncio.TaskGroup() as tasks:
            for fault in schedule:
                tasks.create_task(self._inject(fault, began), name=str(fault))
            if config.extras - {"forged"}:
                tasks.create_task(self._back_up(began), name="backup")

    async def _inject(self, fault: Fault, began: float) -> None:
        await asyncio.sleep(began + fault.at - time.monotonic())
        match fault.target:
            case "log":
                was_busy = await self._forge(fault)
            case "blobs" | "keys":
                was_busy = await self._damage(fault)
            case _:
                async with self._locks["trainer" if fault.target == "engine" else fault.target]:
                    was_busy = await self._injector.inject(fault)
        result = self._result
        result.injected.append(InjectedFault(fault, time.monotonic() - began, was_busy))
        state = {True: "busy", False: "idle", None: "already down"}[was_busy]
        self._print(f"{len(result.injected):>4}/{self._total}  {fault}  ({state})")

    async def _forge(self, fault: Fault) -> bool | None:
        async with self._locks["log"]:
            was_busy = await self._injector.wait_busy(fault.target)
            commits = self._load.observer.commits
            return was_busy if await forge(self._stack.current, commits, self._result.forged, fault.variant) else None

    async def _damage(self, fault: Fault) -> bool:
        """No other fault lasts meanwhile: each would only disturb the healing."""
        await self._has_backup.wait()
        async with AsyncExitStack() as alone:
            for target in get_args(Target):
                await alone.enter_async_context(self._locks[target])
            was_busy = await self._injector.wait_busy(fault.target)
            loss = await self._maintenance.inject(fault)
            self._print(loss.describe())
            self._load.abandon(self._result.losses.affected(self._load.observer.commits))
        return was_busy

    async def _back_up(self, began: float) -> None:
        await asyncio.sleep(began + backup_moment(self._config.seed, self._config.seconds) - time.monotonic())
        await self._maintenance.back_up(began)
        self._print("the backup is complete")
        self._has_backup.set()


@asynccontextmanager
async def _observe_log(stack: DrillStack) -> AsyncIterator[tuple[Bus, LogObserver]]:
    """Read the log over a direct connection that no proxy disturbs."""
    observer = LogObserver()
    bus = await connect(
        stack.current.nats.url, *stack.current.nats.credentials("gateway"), "drill"
    )  # may read, and append nothing
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
        while observer.last < end or (await http.get(f"{API}/datasets", params={"min_seq": end})).is_error:  # noqa: ASYNC110 - other processes do the work
            await asyncio.sleep(0.05)


async def _find_forged_tags(load: Load, http: httpx.AsyncClient) -> list[str]:
    """Tags of forged edits that are shown."""
    shown: list[str] = []
    for writer in load.writers:
        tags = (await http.get(f"{API}/datasets/{writer.dataset}/tags")).raise_for_status().json()
        shown += [one["tag"] for one in tags["items"] if one["tag"].startswith(FORGED_TAG)]
    return [f"the forged tag {tag} is shown" for tag in shown]
