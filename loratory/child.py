"""One service as a child process: started, its words kept in a log, ended with all it started. POSIX.

On Linux the kernel ends the child with its parent (PR_SET_PDEATHSIG), so that a killed `up` leaves nothing behind.
"""

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from loratory.rotating import RotatingFile

STOP_WITHIN = 15.0
"""Seconds a child has to end politely."""
TAIL = 2000
"""Bytes of its last words that are kept for a message."""

_PR_SET_PDEATHSIG = 1


class Child:
    """`pid` of the current life, or none. A next life may start when the last has ended."""

    def __init__(self, name: str, command: Sequence[str], environ: Mapping[str, str], log: Path) -> None:
        self.name = name
        self._command = command
        self._environ = environ
        self._log = RotatingFile(log)
        self._tail = b""
        self._process: asyncio.subprocess.Process | None = None
        self._listening: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process and self._process.returncode is None else None

    @property
    def last_words(self) -> str:
        """The last line it said; not the frame that Python draws around the errors of a group."""
        lines = [line.strip(" |") for line in self._tail.decode(errors="replace").splitlines()]
        said = [line for line in lines if any(map(str.isalnum, line))]
        return said[-1][:500] if said else "it said nothing"

    async def start(self) -> None:
        """OSError when the program cannot be started at all. Call it from the main thread (`end_with`)."""
        # A pipe of our own: asyncio's would make `wait` wait for grandchildren that still hold the other end.
        ours, theirs = os.pipe()
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                env=dict(self._environ),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=theirs,
                stderr=theirs,
                start_new_session=True,  # Ctrl-C goes to the parent, which ends its children in order
                preexec_fn=end_with(os.getpid()),
            )
        except BaseException:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        self._tail = b""
        self._listening = asyncio.create_task(self._listen(ours), name=f"log of {self.name}")

    async def wait(self) -> int:
        """Until this life has ended, by itself or not, and nothing it started is left; its exit code."""
        assert self._process is not None and self._listening is not None  # noqa: S101 - only after start()
        code = await self._process.wait()
        with contextlib.suppress(ProcessLookupError):  # nobody left in its session: as it should be
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process = None  # its number may soon be somebody else's
        await asyncio.wait([self._listening], timeout=1)
        self._listening.cancel()
        return code

    async def stop(self) -> None:
        """SIGTERM, and after STOP_WITHIN seconds SIGKILL to it and all it started. Twice is once."""
        if self._process is None:
            return
        if self.pid is not None:
            self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), STOP_WITHIN)
            except TimeoutError:
                os.killpg(self._process.pid, signal.SIGKILL)
        await self.wait()

    async def _listen(self, pipe: int) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=1 << 16)
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(pipe, "rb"))
        try:
            while said := await reader.read(1 << 16):
                self._log.write(said)
                self._tail = (self._tail + said)[-TAIL:]
        finally:
            transport.close()


def end_with(parent: int) -> Callable[[], None] | None:
    """What the child does between fork and exec on Linux: ask the kernel to kill it when its parent ends.

    Kill, not SIGTERM: with the parent the bus dies too, and a polite end would wait for it. Strictly the kernel looks
    at the *thread* that forked, hence the main thread.
    """
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl  # looked up here: after the fork nothing may take a lock or import

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)

    return ask
