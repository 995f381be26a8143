"""Seconds from a cancel to its end in the log and to the end of the work: `python -m benchmarks.cancel [TREE ...]`.

Each TREE is a checkout with its own `.venv` (default: this one); two of them are compared side by side. A whole stack
runs on the demo world, and a job is cancelled in each phase TURNS times. A phase is held open by something slow: a
stopped process (SIGSTOP) for a computation that no message interrupts, a named pipe for a disk that does not answer, a
large picture, a long sample. `job`: until the job is `cancelled`; `engine`: until its process has ended, or waits for
the next job. Linux: reads /proc.
"""

import asyncio
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import inf
from pathlib import Path

from PIL import Image

from demo_world import pictures
from loratory.client import AsyncClient
from trainer.engine.tiny_random import make_tiny_random

TURNS = 5
LIMIT_SECONDS = 300.0
"""For a phase to be reached."""
END_LIMIT_SECONDS = 60.0
"""After a cancel; what takes longer is printed as infinite."""
LARGE_PICTURE = (7900, 7900)
RECIPE: dict[str, object] = {
    "base": {"type": "builtin", "name": "tiny-random"},
    "adapter": {"type": "lora", "rank": 4, "alpha": 4.0},
    "data": {"resolution": 64, "bucket_step": 64},
    "length": {"type": "steps", "count": 100_000},
    "save.every": 2,
    "sampling": {"prompts": ["momo"], "steps": 1},
}


@dataclass
class Bench:
    """A running stack with data sets, and its data folder."""

    client: AsyncClient
    data: Path
    up: int
    """Its process id."""

    async def train(self, dataset: str = "creatures", **changes: object) -> str:
        return (await self.client.train(dataset, changes={**RECIPE, **changes})).id

    async def wait(self, job: str, is_reached: Callable[[str], Awaitable[bool]]) -> None:
        async with asyncio.timeout(LIMIT_SECONDS):
            while not await is_reached(job):  # noqa: ASYNC110 - over HTTP
                await asyncio.sleep(0.005)

    async def has_checkpoint(self, job: str) -> bool:
        return (await self.client.job(job)).step > 0

    async def is_loading_base(self, job: str) -> bool:
        live = (await self.client.job(job)).live
        return live is not None and live.progress is not None and live.progress.message == "base"

    async def is_caching(self, job: str) -> bool:
        live = (await self.client.job(job)).live
        return live is not None and live.progress is not None and live.progress.phase == "caching"

    async def has_sample(self, job: str) -> bool:
        return bool(await self.client.samples(job))

    async def is_running(self, job: str) -> bool:
        return (await self.client.job(job)).status == "running"

    async def is_cancelled(self, job: str) -> bool:
        return (await self.client.job(job)).status == "cancelled"

    async def engine(self) -> int:
        """The process id of the engine, once there is one."""
        async with asyncio.timeout(LIMIT_SECONDS):
            while (found := self.find_engine()) is None:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.001)
        return found

    def find_engine(self) -> int | None:
        return next((pid for pid in descendants(self.up) if is_engine(pid)), None)

    async def freeze_engine(self) -> None:
        os.kill(await self.engine(), signal.SIGSTOP)


async def starting(bench: Bench) -> str:
    if (running := bench.find_engine()) is not None:
        os.kill(running, signal.SIGKILL)
        while bench.find_engine() == running:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.001)
    job = await bench.train()
    await bench.freeze_engine()
    await bench.wait(job, bench.is_running)
    return job


async def loading(bench: Bench) -> str:
    job = await bench.train(base={"type": "folder", "path": "slow"})
    await bench.wait(job, bench.is_loading_base)
    return job


async def encoding(bench: Bench) -> str:
    for cached in (bench.data / "cache" / "pictures").glob("*/*/*"):
        cached.unlink()
    job = await bench.train("large")
    await bench.wait(job, bench.is_caching)
    await bench.freeze_engine()
    return job


async def training(bench: Bench) -> str:
    job = await bench.train()
    await bench.wait(job, bench.has_checkpoint)
    return job


async def a_long_step(bench: Bench) -> str:
    job = await training(bench)
    await bench.freeze_engine()
    return job


async def rendering(bench: Bench) -> str:
    job = await bench.train(sampling={"prompts": ["momo"] * 16, "steps": 40, "every": 1})
    await bench.wait(job, bench.has_sample)
    return job


PHASES = (training, rendering, a_long_step, starting, loading, encoding)


async def measure(bench: Bench, phase: Callable[[Bench], Awaitable[str]]) -> tuple[float, float]:
    """Seconds until the job is cancelled, and until its engine has ended or is idle."""
    job = await phase(bench)
    engine = await bench.engine()
    started = time.perf_counter()
    cancelled = asyncio.create_task(timed(started, bench.wait(job, bench.is_cancelled)))
    ended = asyncio.create_task(timed(started, wait_idle(engine)))
    await bench.client.cancel_job(job)
    times = await cancelled, await ended
    if inf in times:  # it would keep the next job waiting
        with suppress(ProcessLookupError):
            os.kill(engine, signal.SIGKILL)
    return times


async def timed(started: float, work: Awaitable[None]) -> float:
    """Seconds until the work is done; infinite if it is not done in time."""
    try:
        async with asyncio.timeout(END_LIMIT_SECONDS):
            await work
    except TimeoutError:
        return inf
    return time.perf_counter() - started


async def wait_idle(pid: int) -> None:
    """Until a process has ended, or uses no CPU time for a tenth of a second although it is not stopped."""
    while (before := cpu_ticks(pid)) is not None:
        await asyncio.sleep(0.1)
        if state_of(pid) == "S" and cpu_ticks(pid) == before and not is_blocked_by_pipe(pid):
            return


def is_blocked_by_pipe(pid: int) -> bool:
    """Whether one of its threads waits for the other end of a named pipe."""
    channels = (task / "wchan" for task in Path(f"/proc/{pid}/task").glob("*"))
    with suppress(OSError):
        return any("partner" in channel.read_text() for channel in channels)
    return False


def descendants(pid: int) -> Iterator[int]:
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            children.setdefault(int(stat_of(int(folder.name))[1]), []).append(int(folder.name))
    waiting = [pid]
    while waiting:
        waiting += (found := children.get(waiting.pop(), []))
        yield from found


def is_engine(pid: int) -> bool:
    with suppress(OSError):
        return b"trainer.engine" in Path(f"/proc/{pid}/cmdline").read_bytes() and state_of(pid) != "Z"
    return False


def stat_of(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the third on: state, parent, …"""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def state_of(pid: int) -> str:
    with suppress(OSError):
        return stat_of(pid)[0]
    return "Z"


def cpu_ticks(pid: int) -> int | None:
    """CPU time of all threads; None if it has ended."""
    with suppress(OSError):
        fields = stat_of(pid)
        return None if fields[0] == "Z" else int(fields[11]) + int(fields[12])
    return None


@contextmanager
def running_stack(tree: Path, folder: Path) -> Iterator[tuple[str, int]]:
    """Address and process id of a stack that runs from a checkout."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [str(tree / ".venv" / "bin" / "python"), "-m", "loratory", "up"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--data", str(folder / "data"), "--port", str(port)],
            cwd=tree,
            stdout=log,
            stderr=log,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    try:
        while b"Loratory is at " not in (folder / "log").read_bytes():
            if process.poll() is not None:
                raise RuntimeError((folder / "log").read_text())
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}", process.pid
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


async def prepare(bench: Bench, folder: Path) -> None:
    """The data sets, and a base on a disk that does not answer."""
    pictures.write_pictures(folder / "pictures", count=12, seed=0)
    await bench.client.ensure_dataset("creatures")
    await bench.client.import_folder("creatures", folder / "pictures")
    for number in range(3):
        Image.new("RGB", LARGE_PICTURE, (number, 90, 90)).save(folder / "pictures" / f"large-{number}.png")
    await bench.client.ensure_dataset("large")
    await bench.client.import_folder("large", folder / "pictures")
    tiny, slow = make_tiny_random(folder / "tiny-random"), bench.data / "bases" / "slow"
    shutil.copytree(tiny, slow)
    os.mkfifo(slow / "tokenizer" / "slow.txt")


async def measure_tree(tree: Path) -> None:
    with tempfile.TemporaryDirectory() as name, running_stack(tree, Path(name)) as (address, pid):
        async with AsyncClient(address) as client:
            bench = Bench(client, Path(name) / "data", pid)
            await prepare(bench, Path(name))
            for phase in PHASES:
                times = [await measure(bench, phase) for _ in range(TURNS)]
                job, engine = ([turn[index] for turn in times] for index in (0, 1))
                figures = [f"{statistics.median(one):6.2f} ({max(one):6.2f})" for one in (job, engine)]
                print(f"{tree.name:12} {phase.__name__:12}  job {figures[0]}  engine {figures[1]}", flush=True)


def main() -> None:
    trees = [Path(argument).resolve() for argument in sys.argv[1:]] or [Path(__file__).resolve().parents[1]]
    print(f"seconds after a cancel, median (worst) of {TURNS}")
    for tree in trees:
        asyncio.run(measure_tree(tree))


if __name__ == "__main__":
    main()
