"""Hundreds of hostile and odd files: each is taken, or refused with its reason, at a small price, and the same ones on
a busy machine as on an idle one."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, get_args

import pytest

from catalog.ingest.outcomes import Accepted, Limits, Reason
from catalog.ingest.pool import Decoder
from tests.catalog.hostile_files import HostileFile, hostile_files
from tests.catalog.test_ingest_pool import cpu_seconds, running_decoders

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="needs /proc"),
]

LIMITS = Limits()
MIN_FILES = 200
BUSY_LOOPS = 2
START_SECONDS = 1.0
"""CPU time of the starts of children, which come before a file or after a crash."""


class Examined(NamedTuple):
    """`outcome`: the digest of the pixels, or the reason; `seconds` of CPU; `memory`: the child's peak, in bytes."""

    outcome: str
    taken: bool
    seconds: float
    memory: int


def peak_bytes(child: int) -> int:
    try:
        status = Path(f"/proc/{child}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmHWM")), 0)


def spent_seconds(children: set[int]) -> float:
    """CPU time of all decoders so far, also of those that ended."""
    ended = os.times()
    return ended.children_user + ended.children_system + sum(map(cpu_seconds, children))


async def examine_all(files: list[HostileFile], folder: Path) -> dict[str, Examined]:
    examined: dict[str, Examined] = {}
    spent = spent_seconds(running_decoders())
    async with Decoder(LIMITS, workers=1) as decoder:
        for number, file in enumerate(files):
            path = folder / f"{number}.png"
            path.write_bytes(file.content)
            outcome = await decoder.examine(path, into=folder)
            children, before = running_decoders(), spent
            spent = spent_seconds(children)
            taken = isinstance(outcome, Accepted)
            if isinstance(outcome, Accepted):
                verdict = str(outcome.pixels_sha256)
            else:
                verdict = outcome.reason
                assert verdict in get_args(Reason) and verdict != "decoder-crashed" and outcome.detail, file.name
            examined[file.name] = Examined(verdict, taken, spent - before, max(map(peak_bytes, children), default=0))
            for left in folder.iterdir():
                left.unlink()
    return examined


@contextmanager
def busy_loops(number: int) -> Iterator[None]:
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


async def test_every_file_is_taken_or_refused_cheaply_and_the_same_on_a_busy_machine(tmp_path: Path) -> None:
    files = list(hostile_files())
    assert len({hashlib.sha256(file.content).digest() for file in files}) >= MIN_FILES
    idle = await examine_all(files, tmp_path)
    for file in files:
        found = idle[file.name]
        allowed = {"taken": {True}, "refused": {False}, "any": {True, False}}[file.expected]
        assert found.taken in allowed, (file.name, found)
        assert found.memory <= LIMITS.memory_bytes, (file.name, found)
        assert found.seconds <= LIMITS.cpu_seconds_of(len(file.content)) + START_SECONDS, (file.name, found)
    with busy_loops(BUSY_LOOPS):
        busy = await examine_all(files, tmp_path)
    assert {name: one.outcome for name, one in busy.items()} == {name: one.outcome for name, one in idle.items()}
    taken = sum(one.taken for one in idle.values())
    most = max(idle.items(), key=lambda item: item[1].seconds)
    sys.stdout.write(  # figures for people: pytest -s
        f"\n{len(files)} files, {taken} taken; at most {max(one.memory for one in idle.values()) >> 20} MB, "
        f"{most[1].seconds:.2f} s of CPU ({most[0]}); all {sum(one.seconds for one in idle.values()):.1f} s\n"
    )
