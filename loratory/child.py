"""Child processes: a service that logs into a file and ends with all it started (POSIX); a program that runs once."""

import asyncio
import contextlib
import logging
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import Mapping, Sequence
from logging.handlers import RotatingFileHandler
from pathlib import Path

from contracts.errors import LoratoryError
from contracts.wire.system.child import SessionChild

STOP_TIMEOUT_SECONDS = 15.0
"""Time between SIGTERM and SIGKILL."""
TAIL_BYTES = 2000
"""Size of the end of the output that is kept for error messages."""
MAX_LINE_CHARACTERS = 500
MAX_LOG_BYTES = 4 << 20
MAX_OLD_LOGS = 3


class Child:
    """A restartable child process. `pid` is None while it does not run; start it again only after it has ended."""

    def __init__(self, name: str, command: Sequence[str], environ: Mapping[str, str], log: Path) -> None:
        self.name = name
        self._command = command
        self._environ = environ
        self._log = OutputLog(log)
        self._tail = b""
        self._process: SessionChild | None = None
        self._reading: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process and self._process.is_running else None

    @property
    def last_line(self) -> str:
        """The last line of its output, without the frame Python draws around exception groups."""
        lines = [line.strip(" |") for line in self._tail.decode(errors="replace").splitlines()]
        printed = [line for line in lines if any(map(str.isalnum, line))]
        return _shorten(printed[-1]) if printed else "it printed nothing"

    async def start(self) -> None:
        """OSError if the program cannot be started. Call it from the main thread (see `SessionChild`)."""
        # Our own pipe: with asyncio's, `wait` would also wait for grandchildren that still hold the other end.
        ours, theirs = os.pipe()
        try:
            self._process = await SessionChild.start(self._command, environment=dict(self._environ), output=theirs)
        except BaseException:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        self._tail = b""
        self._reading = asyncio.create_task(self._read_output(ours), name=f"log of {self.name}")

    async def wait(self) -> int:
        """Wait until the process and everything it started have ended; its exit code."""
        assert self._process is not None and self._reading is not None  # noqa: S101 - only after start()
        code = await self._process.wait()
        await asyncio.wait([self._reading], timeout=1)
        self._reading.cancel()
        return code

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL to it and its descendants after STOP_TIMEOUT_SECONDS. Idempotent."""
        if self._process is not None:
            await self._process.stop(STOP_TIMEOUT_SECONDS)
            await self.wait()

    async def _read_output(self, pipe: int) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=1 << 16)
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(pipe, "rb"))
        try:
            while output := await reader.read(1 << 16):
                self._log.write(output)
                self._tail = (self._tail + output)[-TAIL_BYTES:]
        finally:
            transport.close()


class OutputLog(RotatingFileHandler):
    """The output of a process in files of bounded size.

    Bytes that cannot be written (disk full) are dropped and counted, never raised: logging must not stop the service.
    """

    terminator = ""  # output comes in chunks, not in records

    def __init__(self, path: Path, *, limit: int = MAX_LOG_BYTES, old: int = MAX_OLD_LOGS) -> None:
        # With latin-1 one byte is one character, so whatever a process prints is kept as it is.
        super().__init__(path, maxBytes=limit, backupCount=old, encoding="latin-1", delay=True)
        self._dropped = 0

    def write(self, output: bytes) -> None:
        text = output.decode("latin-1")
        if self._dropped:
            text = f"({self._dropped} bytes could not be written here)\n{text}"
        before = self._dropped
        self.emit(logging.makeLogRecord({"msg": text, "bytes": len(output)}))
        if self._dropped == before:
            self._dropped = 0
        with contextlib.suppress(OSError):  # reported by the write itself
            self.close()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name is logging's
        self._dropped += vars(record)["bytes"]


def _shorten(line: str) -> str:
    """At most MAX_LINE_CHARACTERS: a message begins with what is wrong, and ends with what cures it."""
    half = MAX_LINE_CHARACTERS // 2
    return line if len(line) <= MAX_LINE_CHARACTERS else f"{line[: half - 3]} … {line[-half:]}"


async def run_python(
    *arguments: str, timeout: float, environ: Mapping[str, str] | None = None, stdin: bytes = b""
) -> bytes:
    """Run a Python program to its end and return its stdout.

    LoratoryError with the last line of its stderr if it fails; TimeoutError after `timeout` seconds.
    """
    command = (sys.executable, "-P", *arguments)
    process = await asyncio.create_subprocess_exec(*command, env=environ, stdin=PIPE, stdout=PIPE, stderr=PIPE)
    try:
        async with asyncio.timeout(timeout):
            output, errors = await process.communicate(stdin)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        last_line = errors.decode(errors="replace").strip().rpartition("\n")[2]
        raise LoratoryError(last_line or f"exit code {process.returncode}")
    return output
