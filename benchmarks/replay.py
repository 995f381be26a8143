"""Replay speed of the log into read models and archive: `python -m benchmarks.replay [COMMITS]` (default: 1 million).

Options: `--rebuilds N`, `--without-baseline`.

The log: see `benchmarks.synthetic_log`. Two child processes read it in turns of TURN_COMMITS commits: the catalog's own
follower, archive and read model, and a baseline (nats-py's ordered consumer, decode, one INSERT per commit, the same
batches and durability). Then the catalog rebuilds the read model from its archive, as after an upgrade (median of
REBUILDS); signatures were verified when the commits were archived. Printed for each: commits per second (wall clock),
CPU microseconds per commit, and peak resident memory.
"""

import argparse
import asyncio
import itertools
import resource
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from nats.aio.msg import Msg
from nats.js.api import ConsumerConfig, DeliverPolicy

from benchmarks.synthetic_log import START_TIME, key_of, write_log
from catalog import views
from catalog.archive.archive import Archive
from catalog.image_sets import SetReader
from catalog.projection import catch_up, project
from catalog.store import Store
from contracts import subjects
from contracts.commits import decode
from contracts.telemetry import Applied
from contracts.wire.blobs.store import LocalBlobs
from contracts.wire.log.event_log import EventLog
from contracts.wire.log.migration import migrate
from contracts.wire.server.accounts import Role
from contracts.wire.server.embedded import EmbeddedServer
from contracts.wire.service.bus import Bus, connect
from contracts.wire.service.credentials import SeedFile
from contracts.wire.service.telemetry import publish

TURN_COMMITS = 50_000
MAX_BATCH_COMMITS = 8000
REBUILD = "rebuild"
REBUILDS = 3
CATALOG = "catalog"
ROLES: tuple[tuple[str, Role], ...] = ((CATALOG, "catalog"), ("baseline", "admin"))
"""The child processes, and the roles that they log in with."""


class CatalogReplay:
    """The catalog's projection loop, as `catalog.app` runs it."""

    def __init__(self, bus: Bus, folder: Path) -> None:
        self.bus = bus
        self.archive = Archive(folder)
        self.folder = folder
        self.store: Store | None = None
        self.sets = SetReader(self.archive, [LocalBlobs(self.folder / "blobs")])

    async def follow(self, until: int) -> int:
        """Replay up to this sequence or a few commits further; returns the last sequence applied."""
        if self.store is None:
            self.store = Store(self.folder / "read.db", await self.archive.verify_on_start(EventLog(self.bus)), views)
            await self.archive.begin(key_of("root").public)
        reached = asyncio.Event()

        async def announce(applied: Applied) -> None:
            await publish(self.bus, applied)
            if applied.sequence >= until:
                reached.set()

        task = asyncio.create_task(project(self.bus, self.store, self.archive, announce, self.sets.read))
        await asyncio.wait({task, asyncio.create_task(reached.wait())}, return_when=asyncio.FIRST_COMPLETED)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return self.store.applied

    async def rebuild(self) -> int:
        """Apply the whole archive to an empty read model."""
        assert self.store is not None
        await self.store.reset()
        await catch_up(self.store, self.archive, self.sets.read)
        return self.store.applied


class BaselineReplay:
    """The minimum work: an ordered consumer, decode, one INSERT per commit; one transaction per batch received."""

    def __init__(self, bus: Bus, folder: Path) -> None:
        self.bus = bus
        self.sequence = 0
        self.connection = sqlite3.connect(folder / "baseline.db", isolation_level=None)
        self.connection.execute("PRAGMA journal_mode = WAL")
        self.connection.execute("PRAGMA synchronous = FULL")
        self.connection.execute(
            "CREATE TABLE entry (sequence INTEGER PRIMARY KEY, aggregate_kind, aggregate_id, id, at, body)"
        )

    async def follow(self, until: int) -> int:
        queue: asyncio.Queue[Msg] = asyncio.Queue(MAX_BATCH_COMMITS)
        config = ConsumerConfig(deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=self.sequence + 1)
        subscription = await self.bus.jetstream().subscribe(
            subjects.ALL_EVENTS,
            stream=subjects.EVENTS,
            cb=queue.put,
            config=config,
            ordered_consumer=True,
            idle_heartbeat=0.5,
        )
        while self.sequence < until:
            messages = [await queue.get()]
            while len(messages) < MAX_BATCH_COMMITS and not queue.empty():
                messages.append(queue.get_nowait())
            batch = [baseline_row(message) for message in messages]
            assert batch[0][0] == self.sequence + 1
            self.connection.execute("BEGIN")
            self.connection.executemany("INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?)", batch)
            self.connection.execute("COMMIT")
            self.sequence = batch[-1][0]
        await subscription.unsubscribe()
        return self.sequence


def baseline_row(message: Msg) -> tuple[int, str, str, str, float, bytes]:
    tokens = message.reply.split(".")
    recorded = datetime.fromtimestamp(int(tokens[-2]) / 1e9, UTC)
    stored = decode(int(tokens[-4]), recorded, message.data)
    commit = stored.commit
    return stored.sequence, commit.aggregate_kind, commit.aggregate_id, commit.id, recorded.timestamp(), stored.body


@dataclass
class ReplayProcess:
    """One of the two child processes, with its totals so far (seconds, CPU seconds, peak memory in MB)."""

    name: str
    process: asyncio.subprocess.Process
    commits: int = 0
    seconds: float = 0.0
    cpu: float = 0.0
    memory: float = 0.0

    async def replay_until(self, until: int) -> float:
        """Commits per second of this turn."""
        reached, seconds, cpu = await self._run(str(until))
        speed = (reached - self.commits) / seconds
        self.commits = reached
        self.seconds += seconds
        self.cpu += cpu
        return speed

    async def rebuild(self) -> tuple[float, float]:
        """Commits per second, and CPU microseconds per commit."""
        commits, seconds, cpu = await self._run(REBUILD)
        return commits / seconds, cpu / commits * 1e6

    async def _run(self, command: str) -> tuple[int, float, float]:
        """The last sequence, seconds, CPU seconds."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{command}\n".encode())
        while not (line := await self.process.stdout.readline()).startswith(b"turn "):
            if not line:
                raise RuntimeError(f"the {self.name} process ended early")
        _, reached, seconds, cpu, memory = line.split()
        self.memory = float(memory)
        return int(reached), float(seconds), float(cpu)


@asynccontextmanager
async def start_process(name: str, server: EmbeddedServer, role: Role, folder: Path) -> AsyncIterator[ReplayProcess]:
    _, key = server.credentials(role)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.replay", "--child", name, server.url, role, str(key.path), str(folder)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield ReplayProcess(name, process)
    finally:
        process.kill()
        await process.wait()


async def main(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with EmbeddedServer(folder / "nats") as server:
            end = await fill(server, options.commits)
            async with AsyncExitStack() as stack:
                children = [
                    await stack.enter_async_context(start_process(name, server, role, make_folder(folder / name)))
                    for name, role in ROLES
                    if name == CATALOG or not options.without_baseline
                ]
                await run_turns(children, end)
                await run_rebuilds(children[0], options.rebuilds)


async def fill(server: EmbeddedServer, commits: int) -> int:
    """Write the log; returns its last sequence."""
    bus = await connect(server.url, *server.credentials("admin"), "benchmark")
    await migrate(bus, at=START_TIME, lease=15)
    end = await write_log(bus, commits)
    await bus.close()
    print(f"{end} commits written: {commits} of the mix, {end - commits} that open data sets and tagging runs")
    return end


def make_folder(folder: Path) -> Path:
    folder.mkdir()
    return folder


async def run_turns(children: Sequence[ReplayProcess], end: int) -> None:
    for until in itertools.chain(range(TURN_COMMITS, end - TURN_COMMITS // 2, TURN_COMMITS), [end]):
        speeds = [f"{await child.replay_until(until):8.0f}/s {child.name}" for child in children]
        print(f"up to {until:>9}: {', '.join(speeds)}", flush=True)
    for child in children:
        speed, cpu = child.commits / child.seconds, child.cpu / child.commits * 1e6
        print(f"{child.name}: {speed:.0f} commits/s, {cpu:.1f} CPU µs per commit, peak memory {child.memory:.0f} MB")
    catalog, *others = children
    for child in others:
        print(f"ratio {child.seconds / catalog.seconds:.2f}")


async def run_rebuilds(catalog: ReplayProcess, number: int) -> None:
    rebuilds = [await catalog.rebuild() for _ in range(number)]
    if rebuilds:
        speed, cpu = (statistics.median(values) for values in zip(*rebuilds, strict=True))
        print(f"read model rebuilt from the archive: {speed:.0f} commits/s, {cpu:.1f} CPU µs per commit")


async def run_process(name: str, url: str, role: str, key: str, folder: str) -> None:
    """Read sequences from stdin and replay up to each, or REBUILD; not subscribed in between."""
    bus = await connect(url, role, SeedFile(Path(key)), f"benchmark-{name}")
    loop = CatalogReplay(bus, Path(folder)) if name == CATALOG else BaselineReplay(bus, Path(folder))
    while command := (await asyncio.to_thread(sys.stdin.readline)).strip():
        wall, cpu = time.perf_counter(), time.process_time()
        if command == REBUILD and isinstance(loop, CatalogReplay):
            reached = await loop.rebuild()
        else:
            reached = await loop.follow(int(command))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print("turn", reached, wall, cpu, memory, flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        asyncio.run(run_process(*sys.argv[2:]))
    else:
        parser = argparse.ArgumentParser(prog="python -m benchmarks.replay", description=__doc__)
        parser.add_argument("commits", type=int, nargs="?", default=1_000_000)
        parser.add_argument("--rebuilds", type=int, default=REBUILDS)
        parser.add_argument("--without-baseline", action="store_true")
        asyncio.run(main(parser.parse_args()))
