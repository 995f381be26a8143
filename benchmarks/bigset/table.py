"""The table of `benchmarks.bigset`: what was measured, its limit, and the limit scaled to the speed of this machine."""

import hashlib
import math
import os
import sqlite3
import statistics
import time
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

REFERENCE_SHA256 = 500_000
"""sha256 over 1 kB a second of the machine that the limits are meant for."""
ROUNDS = 3
BODY = b"." * 1000
HASHES, INSERTS = 50_000, 20_000
NO_DISK = frozenset({"tmpfs", "ramfs"})

Scale = Literal["time", "rate", "none"]
"""A slower machine may take longer, or do fewer a second; memory and counts do not depend on it."""


@dataclass(frozen=True)
class Row:
    """A figure with its unit; none: there is no such work yet. Without a limit it is only printed."""

    work: str
    measured: float | None
    unit: str
    limit: float | None = None
    scale: Scale = "time"
    note: str = ""

    def scaled_limit(self, speed: float) -> float | None:
        """`speed`: of this machine, 1 for that of the limits."""
        if self.limit is None:
            return None
        return {"time": self.limit / speed, "rate": self.limit * speed, "none": self.limit}[self.scale]

    def verdict(self, speed: float) -> str:
        limit = self.scaled_limit(speed)
        if self.measured is None:
            return "not there"
        if limit is None:
            return ""
        is_met = self.measured >= limit if self.scale == "rate" else self.measured <= limit
        return "met" if is_met else "NOT MET"


def print_table(rows: Iterable[Row], speed: float) -> None:
    print(f"\n{'work':<58}{'measured':>14}{'limit':>12}{'scaled':>12}  met?")
    for row in rows:
        figures = (row.measured, row.limit, row.scaled_limit(speed))
        measured, limit, scaled = (_format(figure, row) for figure in figures)
        print(f"{row.work:<58}{measured:>14}{limit:>12}{scaled:>12}  {row.verdict(speed):<10}{row.note}".rstrip())


def _format(figure: float | None, row: Row) -> str:
    if figure is None:
        return "-"
    if math.isinf(figure):
        return "never"
    return f"{figure:,.{0 if figure >= 100 else 2}f} {row.unit}".rstrip()


@dataclass(frozen=True)
class Yardstick:
    """What this machine does in a second, on one core: sha256 over 1 kB, inserts of 1 kB into SQLite."""

    sha256: float
    inserts: float

    @property
    def speed(self) -> float:
        return self.sha256 / REFERENCE_SHA256

    def describe(self) -> str:
        return f"{self.sha256:,.0f} sha256 over 1 kB per second, {self.inserts:,.0f} SQLite inserts of 1 kB per second"


def measure_yardstick(folder: Path) -> Yardstick:
    """Medians of ROUNDS. `folder` is on the disk that is measured."""
    return median_of(Yardstick(_hash_rate(), _insert_rate(folder / "yardstick.db")) for _ in range(ROUNDS))


def median_of(found: Iterable[Yardstick]) -> Yardstick:
    hashes, inserts = zip(*((one.sha256, one.inserts) for one in found), strict=True)
    return Yardstick(statistics.median(hashes), statistics.median(inserts))


def _hash_rate() -> float:
    started = time.perf_counter()
    for _ in range(HASHES):
        hashlib.sha256(BODY).digest()
    return HASHES / (time.perf_counter() - started)


def _insert_rate(file: Path) -> float:
    """One statement a row, one durable transaction for all."""
    try:
        with closing(sqlite3.connect(file, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("CREATE TABLE entry (sequence INTEGER PRIMARY KEY, body BLOB)")
            started = time.perf_counter()
            connection.execute("BEGIN")
            for number in range(INSERTS):
                connection.execute("INSERT INTO entry VALUES (?, ?)", (number, BODY))
            connection.execute("COMMIT")
            return INSERTS / (time.perf_counter() - started)
    finally:
        for used in file.parent.glob(f"{file.name}*"):
            used.unlink()


def file_system_of(folder: Path) -> str:
    """`ext4 on /dev/vda`. Linux: reads /proc."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    inside = [mount for mount in mounts if folder.resolve().is_relative_to(mount[1])]
    device, _, kind, *_ = max(inside, key=lambda mount: len(mount[1]))
    return f"{kind} on {device}"


def require_disk(folder: Path) -> None:
    """ValueError: the folder is in memory."""
    if file_system_of(folder).split()[0] in NO_DISK:
        raise ValueError(f"{folder} is in memory; name a folder on a disk with --folder")


def use_two_cores() -> int:
    """Run this process and its children on two cores of those that it may use; returns how many they are."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    os.sched_setaffinity(0, cores)
    return len(cores)


def describe_load() -> str:
    return "load " + ", ".join(f"{average:.1f}" for average in os.getloadavg())
