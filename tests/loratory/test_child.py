"""A service as a child process: its output is kept, and nothing it started survives it."""

import asyncio
import os
import sys
from pathlib import Path

from loratory.child import Child, OutputLog
from tests.limits import WAIT
from tests.loratory.processes import alive

PARENT_OF_ONE = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""


def python(code: str, log: Path) -> Child:
    return Child("test", [sys.executable, "-c", code], dict(os.environ), log)


async def test_the_output_of_a_child_is_kept_and_its_last_line_known(tmp_path: Path) -> None:
    log = tmp_path / "log"
    child = python("import sys; print('hello'); sys.exit('no such base')", log)
    await child.start()
    assert await child.wait() == 1
    assert sorted(log.read_text().split("\n")) == ["", "hello", "no such base"]
    assert child.last_line in ("hello", "no such base")
    assert child.pid is None


async def test_the_frame_around_an_exception_group_is_not_the_last_line(tmp_path: Path) -> None:
    child = python("raise ExceptionGroup('many', [OSError(28, 'No space left')])", tmp_path / "log")
    await child.start()
    assert await child.wait() == 1
    assert child.last_line == "OSError: [Errno 28] No space left"


async def test_stopping_a_child_also_stops_what_it_started(tmp_path: Path) -> None:
    child = python(PARENT_OF_ONE, tmp_path / "log")
    await child.start()
    async with asyncio.timeout(WAIT):
        while not (line := child.last_line).isdecimal():  # noqa: ASYNC110 - printed by another process
            await asyncio.sleep(0.02)
    grandchild = int(line)
    assert alive(grandchild)
    await child.stop()
    await child.stop()
    async with asyncio.timeout(WAIT):
        while alive(grandchild):  # noqa: ASYNC110 - killed by the kernel
            await asyncio.sleep(0.02)
    assert child.pid is None


def test_a_log_file_never_exceeds_its_limit(tmp_path: Path) -> None:
    log = OutputLog(tmp_path / "log", limit=100, old=2)
    for number in range(50):
        log.write(f"line {number:04}\n".encode())
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["log", "log.1", "log.2"]
    assert all(file.stat().st_size <= 100 for file in files)
    assert files[0].read_text().endswith("line 0049\n")


def test_a_log_that_cannot_be_written_is_skipped_and_reported_later(tmp_path: Path) -> None:
    log = OutputLog(tmp_path / "logs" / "log")
    log.write(b"lost\n")
    (tmp_path / "logs").mkdir()
    log.write(b"kept\n")
    assert (tmp_path / "logs" / "log").read_text() == "(5 bytes could not be written here)\nkept\n"
