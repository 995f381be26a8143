"""A service as a child process: output in a log file, stopped together with everything it started. POSIX.

On Linux the kernel kills the child with its parent (PR_SET_PDEATHSIG), so a killed `up` leaves no processes behind.
"""

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from loratory.rotating_file import RotatingFile

STOP_TIMEOUT_SECONDS = 15.0
"""Time between SIGTERM and SIGKILL."""
TAIL_BYTES = 2000
"""Size of the end of the output that is kept for error messages."""
MAX_LINE_CHARACTERS = 500

_PR_SET_PDEATHSIG = 1


class Child:
    """A restartable child process. `pid` is None while it does not run; start it again only after it has ended."""

    def __init__(self, name: str, command: Sequence[str], environ: Mapping[str, str], log: Path) -> None:
        self.name = name
        self._command = command
        self._environ = environ
        self._log = RotatingFile(log)
        self._tail = b""
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process and self._process.returncode is None else None

    @property
    def last_line(self) -> str:
        """The last line of its output, without the frame Python draws around exception groups."""
        lines = [line.strip(" |") for line in self._tail.decode(errors="replace").splitlines()]
        printed = [line for line in lines if any(map(str.isalnum, line))]
        return printed[-1][:MAX_LINE_CHARACTERS] if printed else "it printed nothing"

    async def start(self) -> None:
        """OSError if the program cannot be started. Call it from the main thread (see `kill_with_parent`)."""
        # Our own pipe: with asyncio's, `wait` would also wait for grandchildren that still hold the other end.
        ours, theirs = os.pipe()
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                env=dict(self._environ),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=theirs,
                stderr=theirs,
                start_new_session=True,  # Ctrl-C reaches only the parent, which stops its children in order
                preexec_fn=kill_with_parent(os.getpid()),
            )
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
        with contextlib.suppress(ProcessLookupError):  # the normal case: no process left in its session
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process = None  # the pid may be reused by another process
        await asyncio.wait([self._reading], timeout=1)
        self._reading.cancel()
        return code

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL to it and its descendants after STOP_TIMEOUT_SECONDS. Idempotent."""
        if self._process is None:
            return
        if self.pid is not None:
            self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), STOP_TIMEOUT_SECONDS)
            except TimeoutError:
                os.killpg(self._process.pid, signal.SIGKILL)
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


def kill_with_parent(parent: int) -> Callable[[], None] | None:
    """Code that runs between fork and exec on Linux: asks the kernel to kill the child when its parent dies.

    SIGKILL rather than SIGTERM: the bus dies with the parent, and a graceful shutdown would wait for it. The kernel
    watches the *thread* that forked, hence the main thread.
    """
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl  # resolved before the fork: afterwards no locks may be taken and nothing imported

    def request_parent_death_signal() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # the parent died before the call
            os._exit(1)

    return request_parent_death_signal
