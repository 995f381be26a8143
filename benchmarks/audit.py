"""How long does an audit take? `python -m benchmarks.audit [COMMITS]` (100,000, in the mix of benchmarks/replay.py).

Each figure stands beside the least that could be done, measured in the same round: a bare select loop beside reading
the archive, a bare loop of sha256 over the same bodies beside computing its hashes again, a bare ordered consumer
beside laying the log next to it. Medians of ROUNDS; commits a second by the clock, and by the CPU time of this process.
"""

import asyncio
import hashlib
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from nats.js.api import ConsumerConfig, DeliverPolicy

from benchmarks.replay import write_log
from catalog.archive import Archive, compare
from contracts import subjects
from contracts.wire.bus import Bus, connect
from contracts.wire.follow import Follower
from contracts.wire.log import EventLog
from contracts.wire.server import EmbeddedServer
from contracts.wire.streams import migrate

ROUNDS = 5
DECODED_AT_ONCE = 200
RAW_AT_ONCE = 1000
PAIRS = (
    ("read the archive, decoded", "a bare select loop"),
    ("read the archive, as it lies", "a bare select loop"),
    ("compute all hashes again", "a bare sha256 loop"),
    ("lay the log beside it", "a bare ordered consumer"),
    ("the whole audit", "a bare ordered consumer"),
)
Work = Callable[[], Awaitable[object]]


class Bench:
    """One log, its archive, and everything that is measured, by name."""

    def __init__(self, bus: Bus, folder: Path, archive: Archive) -> None:
        self._bus = bus
        self._log = EventLog(bus)
        self._plain = sqlite3.connect(folder / "archive.db")
        self._archive = archive
        self._end = archive.tail.sequence
        self.works: dict[str, Work] = {
            "read the archive, decoded": self.read,
            "read the archive, as it lies": self.read_raw,
            "compute all hashes again": self.walk,
            "lay the log beside it": self.compare,
            "the whole audit": self.audit,
            "a bare select loop": self.select,
            "a bare sha256 loop": self.sha256,
            "a bare ordered consumer": self.consume,
        }

    async def read(self) -> None:
        after = 0
        while batch := await self._archive.commits(after, DECODED_AT_ONCE):
            after = batch[-1].sequence
        assert after == self._end

    async def read_raw(self) -> None:
        after = 0
        while batch := await self._archive.entries(after, after + RAW_AT_ONCE):
            after = max(batch)
        assert after == self._end

    async def walk(self) -> None:
        walked = await self._archive.walk()
        assert walked.damage is None and walked.sequence == self._end

    async def compare(self) -> None:
        comparison = await compare(self._archive, self._log, self._archive.tail)
        assert comparison.compared == self._end and not comparison.damage

    async def audit(self) -> None:
        await self.walk()
        await self.compare()

    async def select(self) -> None:
        assert sum(1 for _ in self._plain.execute("SELECT sequence, recorded, body FROM entry")) == self._end

    async def sha256(self) -> None:
        for (body,) in self._plain.execute("SELECT body FROM entry"):
            hashlib.sha256(body).digest()

    def mean_size(self) -> float:
        """Of a commit's body, in bytes."""
        return float(self._plain.execute("SELECT AVG(length(body)) FROM entry").fetchone()[0])

    async def consume(self) -> None:
        come, last = asyncio.Event(), self._end

        async def count(message: object) -> None:
            if int(message.reply.split(".")[-4]) == last:  # type: ignore[attr-defined]
                come.set()

        config = ConsumerConfig(deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=1)
        subscription = await self._bus.jetstream().subscribe(
            subjects.ALL_FACTS, stream=subjects.FACTS, cb=count, config=config, ordered_consumer=True
        )
        await come.wait()
        await subscription.unsubscribe()


async def seconds_of(work: Work) -> tuple[float, float]:
    """By the clock, by the CPU."""
    clock, cpu = time.perf_counter(), time.process_time()
    await work()
    return time.perf_counter() - clock, time.process_time() - cpu


async def measured(bench: Bench) -> dict[str, tuple[float, float]]:
    took: dict[str, list[tuple[float, float]]] = {name: [] for name in bench.works}
    for _ in range(ROUNDS):
        for name, work in bench.works.items():
            took[name].append(await seconds_of(work))
    return {
        name: (statistics.median(clock for clock, _ in all_), statistics.median(cpu for _, cpu in all_))
        for name, all_ in took.items()
    }


@asynccontextmanager
async def archived(folder: Path, commits: int) -> AsyncIterator[Bench]:
    async with EmbeddedServer(folder / "nats", durable=False) as server:
        admin = await connect(server.url, *server.credentials("admin"), "bench-admin")
        await migrate(admin, at=datetime.now(UTC), lease=15)
        end = await write_log(admin, commits)
        await admin.close()
        bus = await connect(server.url, *server.credentials("catalog"), "bench")
        archive = Archive(folder / "catalog")
        await archive.judge(EventLog(bus))
        async with aclosing(Follower(bus, 0).batches()) as batches:
            async for batch in batches:
                await archive.append(batch)
                if archive.tail.sequence == end:
                    break
        try:
            yield Bench(bus, folder / "catalog", archive)
        finally:
            await archive.close()
            await bus.close()


async def main(commits: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with archived(Path(folder), commits) as bench:
            took = await measured(bench)
            size = bench.mean_size()
    print(f"{commits} commits of {size:.0f} bytes; medians of {ROUNDS}")
    for name, (clock, cpu) in took.items():
        print(f"{name:<30}{clock:7.2f} s  {commits / clock:10,.0f}/s   CPU {cpu:6.2f} s  {commits / cpu:10,.0f}/s")
    for name, bare in PAIRS:
        clock, cpu = (least / ours for least, ours in zip(took[bare], took[name], strict=True))
        print(f"{name} is {clock:.2f} x as fast as {bare} (by CPU {cpu:.2f} x)")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000))
