"""Duration of an audit: `python -m benchmarks.audit [COMMITS]` (default: 100,000 of benchmarks/synthetic_log.py).

Each step is compared with a baseline that does the minimum work, measured in the same round: reading the archive with a
plain SELECT, recomputing its hashes with plain sha256 over the same bodies, comparing it with the log with a plain
ordered consumer. Signatures are checked by several processes. Medians of ROUNDS rounds; commits per second by wall
clock and by CPU time of this process and its children.
"""

import asyncio
import hashlib
import os
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

from benchmarks.synthetic_log import key_of, write_log
from catalog.archive.archive import Archive
from catalog.archive.compare import compare
from catalog.archive.signatures import check_signatures
from contracts import subjects
from contracts.wire.log.event_log import EventLog
from contracts.wire.log.follow import Follower
from contracts.wire.log.migration import migrate
from contracts.wire.server.embedded import EmbeddedServer
from contracts.wire.service.bus import Bus, connect

ROUNDS = 5
COMMITS_PER_READ = 200
ENTRIES_PER_READ = 1000
BASELINES = (
    ("read the archive, decoded", "plain SELECT"),
    ("read the archive, raw", "plain SELECT"),
    ("recompute all hashes", "plain sha256"),
    ("compare with the log", "plain ordered consumer"),
    ("the whole audit", "plain ordered consumer"),
)
Step = Callable[[], Awaitable[object]]


class Bench:
    """A log with its archive, and the measured steps by name."""

    def __init__(self, bus: Bus, folder: Path, archive: Archive) -> None:
        self._bus = bus
        self._log = EventLog(bus)
        self._connection = sqlite3.connect(folder / "archive.db")
        self._archive = archive
        self._end = archive.tail.sequence
        self.steps: dict[str, Step] = {
            "read the archive, decoded": self.read,
            "read the archive, raw": self.read_raw,
            "recompute all hashes": self.verify_hashes,
            "compare with the log": self.compare,
            "check all signatures": self.check_signatures,
            "the whole audit": self.audit,
            "plain SELECT": self.select,
            "plain sha256": self.sha256,
            "plain ordered consumer": self.consume,
        }

    async def read(self) -> None:
        after = 0
        while batch := await self._archive.entries(after, COMMITS_PER_READ):
            after = batch[-1].sequence
        assert after == self._end

    async def read_raw(self) -> None:
        after = 0
        while batch := await self._archive.rows(after, after + ENTRIES_PER_READ):
            after = max(batch)
        assert after == self._end

    async def verify_hashes(self) -> None:
        state = await self._archive.verify_chains()
        assert state.damage is None and state.sequence == self._end

    async def compare(self) -> None:
        comparison = await compare(self._archive, self._log, self._archive.tail)
        assert comparison.compared == self._end and not comparison.damage

    async def check_signatures(self) -> None:
        assert not await check_signatures(self._archive, self._end)

    async def audit(self) -> None:
        await self.verify_hashes()
        await self.compare()

    async def select(self) -> None:
        assert sum(1 for _ in self._connection.execute("SELECT sequence, recorded, body FROM entry")) == self._end

    async def sha256(self) -> None:
        for (body,) in self._connection.execute("SELECT body FROM entry"):
            hashlib.sha256(body).digest()

    def mean_size(self) -> float:
        """Mean size of a commit's body in bytes."""
        return float(self._connection.execute("SELECT AVG(length(body)) FROM entry").fetchone()[0])

    async def consume(self) -> None:
        finished, last = asyncio.Event(), self._end

        async def count(message: object) -> None:
            if int(message.reply.split(".")[-4]) == last:  # type: ignore[attr-defined]
                finished.set()

        config = ConsumerConfig(deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=1)
        subscription = await self._bus.jetstream().subscribe(
            subjects.ALL_EVENTS, stream=subjects.EVENTS, cb=count, config=config, ordered_consumer=True
        )
        await finished.wait()
        await subscription.unsubscribe()


async def measure_step(step: Step) -> tuple[float, float]:
    """Seconds of wall clock and of CPU time."""
    clock, cpu = time.perf_counter(), _cpu_seconds()
    await step()
    return time.perf_counter() - clock, _cpu_seconds() - cpu


def _cpu_seconds() -> float:
    return sum(os.times()[:4])


async def measure(bench: Bench) -> dict[str, tuple[float, float]]:
    durations: dict[str, list[tuple[float, float]]] = {name: [] for name in bench.steps}
    for _ in range(ROUNDS):
        for name, step in bench.steps.items():
            durations[name].append(await measure_step(step))
    return {
        name: (statistics.median(clock for clock, _ in values), statistics.median(cpu for _, cpu in values))
        for name, values in durations.items()
    }


@asynccontextmanager
async def open_bench(folder: Path, commits: int) -> AsyncIterator[Bench]:
    async with EmbeddedServer(folder / "nats", durable=False) as server:
        admin = await connect(server.url, *server.credentials("admin"), "bench-admin")
        await migrate(admin, at=datetime.now(UTC), lease=15)
        end = await write_log(admin, commits)
        await admin.close()
        bus = await connect(server.url, *server.credentials("admin"), "bench")  # the only one with consumers
        archive = Archive(folder / "catalog")
        await archive.verify_on_start(EventLog(bus))
        await archive.begin(key_of("root").public)
        async with aclosing(Follower(bus, 0).batches()) as batches:
            async for batch in batches:
                await archive.receive(batch)
                if archive.tail.sequence == end:
                    break
        try:
            yield Bench(bus, folder / "catalog", archive)
        finally:
            await archive.close()
            await bus.close()


async def main(commits: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with open_bench(Path(folder), commits) as bench:
            medians = await measure(bench)
            size = bench.mean_size()
    print(f"{commits} commits of {size:.0f} bytes; medians of {ROUNDS}")
    for name, (clock, cpu) in medians.items():
        print(f"{name:<30}{clock:7.2f} s  {commits / clock:10,.0f}/s   CPU {cpu:6.2f} s  {commits / cpu:10,.0f}/s")
    for name, baseline in BASELINES:
        clock, cpu = (theirs / ours for theirs, ours in zip(medians[baseline], medians[name], strict=True))
        print(f"{name}: {clock:.2f} x the speed of {baseline} (by CPU time {cpu:.2f} x)")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000))
