"""Reading a few rows of a SQLite file: functions in threads and aiosqlite, `python -m benchmarks.readers [QUESTIONS]`.

A question is some statements in one transaction, each of which finds one of 100,000 rows of 300 bytes by its key. Both
have as many connections as the catalog has readers; aiosqlite one for each question, BEGIN and ROLLBACK included. They
take turns in each round; medians of rounds, milliseconds from asking to the result, and CPU time of the process.
"""

import asyncio
import contextlib
import random
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import aiosqlite
import uvloop

from catalog.database import READERS, Connection, Database, create_tables, open_reader, open_writer

ROWS = 100_000
ROUNDS = 9
STATEMENTS = (1, 2, 4)
CONCURRENT = (1, 8, 32)
TABLES = "CREATE TABLE IF NOT EXISTS item (id TEXT PRIMARY KEY, content BLOB) WITHOUT ROWID"
INSERT = "INSERT INTO item VALUES (?, ?)"
FIND = "SELECT id, content FROM item WHERE id = ?"

Ask = Callable[[list[str]], Awaitable[int]]
"""Finds the rows with these keys; returns their number."""


class AsyncReaders:
    """Connections of aiosqlite, each of which answers one question at a time."""

    def __init__(self, connections: list[aiosqlite.Connection]) -> None:
        self._idle = connections
        self._free = asyncio.Semaphore(len(connections))

    async def ask(self, keys: list[str]) -> int:
        async with self._free:
            connection = self._idle.pop()
            try:
                await connection.execute("BEGIN")
                try:
                    return len([row for key in keys for row in await connection.execute_fetchall(FIND, (key,))])
                finally:
                    await connection.execute("ROLLBACK")
            finally:
                self._idle.append(connection)


def find_all(keys: list[str], connection: Connection) -> int:
    return len([row for key in keys for row in connection.execute(FIND, (key,)).fetchall()])


async def measure(ask: Ask, questions: list[list[str]], concurrent: int) -> tuple[list[float], float]:
    """Milliseconds of each question, and of the processor for one."""
    times: list[float] = []
    left = iter(questions)

    async def ask_all() -> None:
        for keys in left:
            started = time.perf_counter()
            assert await ask(keys) == len(keys)
            times.append((time.perf_counter() - started) * 1000)

    cpu = time.process_time()
    await asyncio.gather(*(ask_all() for _ in range(concurrent)))
    return times, (time.process_time() - cpu) * 1000 / len(questions)


def percentile(values: list[float], percent: int) -> float:
    return sorted(values)[len(values) * percent // 100]


async def compare(ways: dict[str, Ask], questions: int) -> None:
    print(
        f"{'statements':>10} {'at once':>8}   "
        + "   ".join(f"{name}: p50, p95, CPU ms" for name in ways)
        + "   p50 ratio"
    )
    for statements in STATEMENTS:
        for concurrent in CONCURRENT:
            found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in ways}
            for _ in range(ROUNDS):
                asked = [[f"key-{random.randrange(ROWS)}" for _ in range(statements)] for _ in range(questions)]
                for name, ask in ways.items():
                    times, cpu = await measure(ask, asked, concurrent)
                    found[name].append((percentile(times, 50), percentile(times, 95), cpu))
            medians = {
                name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in found.items()
            }
            (first, *_), (second, *_) = medians.values()
            rows = "   ".join(f"{p50:10.3f} {p95:8.3f} {cpu:7.3f}" for p50, p95, cpu in medians.values())
            print(f"{statements:>10} {concurrent:>8}   {rows}   {second / first:.2f}", flush=True)


async def main() -> None:
    questions = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "items.db"
        writer = open_writer(path, partial(create_tables, TABLES))
        with contextlib.closing(writer):
            writer.execute("BEGIN")
            writer.executemany(INSERT, [(f"key-{number}", bytes(300)) for number in range(ROWS)])
            writer.execute("COMMIT")
        await measure_both(path, questions)


async def measure_both(path: Path, questions: int) -> None:
    def connector(opened: sqlite3.Connection) -> Callable[[], sqlite3.Connection]:
        return lambda: opened

    async with Database(path, open_writer(path, lambda _: None)) as database:
        connections = [await aiosqlite.Connection(connector(open_reader(path)), 64) for _ in range(READERS)]
        try:
            in_threads: Ask = lambda keys: database.read(partial(find_all, keys))  # noqa: E731 - next to the other
            await compare({"threads": in_threads, "aiosqlite": AsyncReaders(list(connections)).ask}, questions)
        finally:
            for connection in connections:
                await connection.close()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
