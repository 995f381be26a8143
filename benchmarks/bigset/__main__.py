"""A data set of 100,000 images, as its users meet it: `python -m benchmarks.bigset [--images N] [--part PART]`.

30 tags and 30 predictions an image, 1,000 edits and 50 undos of history, as `benchmarks.big_dataset` writes them; a
stack without workers, on a disk, on two cores. Medians, unless a row says otherwise; requests go over HTTP and include
the client. Limits are meant for a machine that computes 500,000 sha256 over 1 kB per second and scale with that. Work
that the API does not have yet is "not there". The data set is written into a temporary folder; or once with `--build
FOLDER` (on all cores), and then measured with `--use FOLDER`, also again: it keeps the history of the runs before. The
exit code is 1 if a limit was not met.
"""

import argparse
import asyncio
import os
import re
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf
from pathlib import Path

import httpx

from benchmarks.big_dataset import open_dataset, read_dataset
from benchmarks.bigset import work
from benchmarks.bigset.busy import measure_busy
from benchmarks.bigset.stack import Bench, RunningStack
from benchmarks.bigset.table import (
    Row,
    Yardstick,
    describe_load,
    file_system_of,
    measure_yardstick,
    median_of,
    print_table,
    require_disk,
    use_two_cores,
)

IMAGES = 100_000
REPLAYED_COMMITS = 1_000_000
MAX_MEMORY_MB = 600

Serving = Callable[[RunningStack], Awaitable[list[Row]]]

STARTING = {"start": work.measure_starts, "rebuild": work.measure_rebuild}
"""Parts that start stacks."""
SERVING: dict[str, Serving] = {
    "pages": work.measure_pages,
    "counts": work.measure_counts,
    "image": work.measure_image,
    "patch": work.measure_patches,
    "put": work.measure_puts,
    "bulk": work.measure_bulk,
    "versions": work.measure_versions,
    "busy": measure_busy,
}
"""Parts that use one running stack."""
REPLAY = "replay"
REPLAY_RATES = (
    r"^catalog: (\d+) commits/s, (.*)$",
    r"^read model rebuilt from the archive: (\d+) commits/s, (.*)$",
)
PARTS = (*STARTING, *SERVING, REPLAY)


async def measure_replay(folder: Path, commits: int) -> list[Row]:
    """By `benchmarks.replay`, on a log of its own."""
    command = (sys.executable, "-m", "benchmarks.replay", str(commits), "--rebuilds", "1", "--without-baseline")
    environ = {**os.environ, "TMPDIR": str(folder)}
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, env=environ)
    output = (await process.communicate())[0].decode()
    followed, rebuilt = (re.search(pattern, output, re.MULTILINE) for pattern in REPLAY_RATES)
    if followed is None or rebuilt is None:
        raise RuntimeError(f"benchmarks.replay printed no rate: {output[-500:]}")
    return [
        Row(f"replay of {commits:,} mixed commits", float(rebuilt[1]), "/s", 20_000, "rate", rebuilt[2]),
        Row("the same from the log, verified and archived", float(followed[1]), "/s", note=followed[2]),
    ]


@dataclass
class Report:
    """What was measured so far, and how fast the machine was before and after each part."""

    folder: Path
    rows: list[Row] = field(default_factory=list)
    yardsticks: list[Yardstick] = field(default_factory=list)

    async def note_machine(self, when: str) -> None:
        found = await asyncio.to_thread(measure_yardstick, self.folder)
        self.yardsticks.append(found)
        print(f"{when:<16}{found.describe()}, {describe_load()}", flush=True)

    async def add(self, part: str, rows: Awaitable[list[Row]]) -> None:
        self.rows += await rows
        await self.note_machine(part)


async def measure(report: Report, bench: Bench, parts: Sequence[str], replayed: int) -> None:
    for part in [part for part in STARTING if part in parts]:
        await report.add(part, STARTING[part](bench))
    if serving := [part for part in SERVING if part in parts]:
        async with bench.running() as running:
            for part in serving:
                await report.add(part, measure_part(part, running))
    if bench.peak_mb:
        report.rows.append(Row("memory of the catalog, peak of all", bench.peak_mb, "MB", MAX_MEMORY_MB, "none"))
    if REPLAY in parts:
        await report.add(REPLAY, measure_replay(report.folder, replayed))


async def measure_part(part: str, running: RunningStack) -> list[Row]:
    """What a part measures; a part whose requests fail is a row that is not met, and the others go on."""
    try:
        return await SERVING[part](running)
    except (httpx.HTTPError, TimeoutError) as error:
        return [Row(f"{part}: failed", inf, "", 0, "none", str(error) or type(error).__name__)]


@contextmanager
def open_folder(given: Path | None) -> Iterator[Path]:
    """The given folder, or a temporary one."""
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given
        return
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


async def build(folder: Path, images: int) -> None:
    """Write the data set unless it is there."""
    started = time.perf_counter()
    dataset, is_new = await open_dataset(folder / "data", images)
    source = f"written in {time.perf_counter() - started:.0f} s" if is_new else "from an earlier run"
    print(f"data set {source}: {dataset.sequence:,} commits, {dataset.undos} undos", flush=True)


async def run(options: argparse.Namespace) -> int:
    with open_folder(options.build or options.use) as folder:
        require_disk(folder)
        if options.use is None:
            await build(folder, options.images)
        if options.build is not None:
            return 0
        cores = use_two_cores()
        bench = Bench(folder / "data", read_dataset(folder / "data"))
        print(f"{bench.dataset.images:,} images on {file_system_of(folder)}, {cores} cores")
        report = Report(folder)
        await report.note_machine("before")
        await measure(report, bench, options.part or PARTS, options.commits)
    machine = median_of(report.yardsticks)
    print(f"\nmedian of these: {machine.describe()}; limits are scaled by {machine.speed:.2f}")
    print_table(report.rows, machine.speed)
    return int(any(row.verdict(machine.speed) == "NOT MET" for row in report.rows))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bigset", description=__doc__)
    parser.add_argument("--images", type=int, default=IMAGES)
    place = parser.add_mutually_exclusive_group()
    place.add_argument("--build", type=Path, metavar="FOLDER", help="only write the data set, into this folder")
    place.add_argument("--use", type=Path, metavar="FOLDER", help="measure the data set that was written here")
    parser.add_argument("--part", action="append", choices=PARTS, help="only this; several times for more")
    parser.add_argument("--commits", type=int, default=REPLAYED_COMMITS, help="of the replay")
    return asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
