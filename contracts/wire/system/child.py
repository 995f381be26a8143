"""Child processes that end with their parent: by a signal of the kernel (Linux), `PipedChild` also by its pipe."""

import asyncio
import ctypes
import os
import signal
import sys
from abc import ABC, abstractmethod
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self, TypeVar

from contracts.wire.system.pipe import PREFIX_BYTES, Frames, PipeClosed

T = TypeVar("T")

_PR_SET_PDEATHSIG = 1


class ChildProcess(ABC):
    """A process that was started and leads a session of its own: what it started is killed after it, and Ctrl-C in a
    terminal reaches only its parent. All methods may be called again after it has ended.
    """

    def __init__(self, process: Process) -> None:
        self._process = process
        self._session_ended = False

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.returncode is None

    async def wait(self) -> int:
        """Waits until it and all it started end; its exit code, or the negative number of the signal that killed it."""
        code = await self._process.wait()
        if not self._session_ended:  # once: later the number may belong to another process
            self._session_ended = True
            self._kill_session()
        return code

    async def stop(self, timeout: float) -> int:
        """Asks it to end, kills it after `timeout` seconds; its exit code."""
        if self.is_running:
            self._ask_to_end()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                return await self.wait()
        return await self.kill()

    async def kill(self) -> int:
        """Kills it and all it started, whatever they are doing; its exit code."""
        if self.is_running:
            self._kill_session()
        return await self.wait()

    def _kill_session(self) -> None:
        with suppress(ProcessLookupError):  # no process is left in it
            if sys.platform == "win32":
                self._process.kill()
            else:
                os.killpg(self.pid, signal.SIGKILL)

    @abstractmethod
    def _ask_to_end(self) -> None: ...


class PipedChild(ChildProcess):
    """Receives frames on its stdin and sends frames on its stdout; its stderr is ours.

    It must exit when its stdin closes: that asks it to end. It happens too when this process is killed; on Linux the
    kernel then kills it as well, whatever it is doing.
    """

    def __init__(self, process: Process) -> None:
        super().__init__(process)
        assert process.stdin is not None and process.stdout is not None  # noqa: S101 - `start` creates both
        self._stdin, self._stdout = process.stdin, process.stdout
        self._body_length: int | None = None
        """Length of the body whose prefix was read by a call that was cancelled."""
        self._reading = False
        """Whether a call is reading its stdout: asyncio allows only one."""

    @classmethod
    async def start(cls, command: Sequence[str], environment: Mapping[str, str] | None = None) -> Self:
        """OSError if the program cannot be started. Call it from the main thread (see `_end_with_parent`)."""
        process = await asyncio.create_subprocess_exec(
            *command,
            env=environment,
            stdin=PIPE,
            stdout=PIPE,
            start_new_session=True,
            preexec_fn=_end_with_parent(os.getpid(), signal.SIGKILL),
        )
        return cls(process)

    async def send(self, frame: bytes) -> None:
        """PipeClosed if it has ended."""
        try:
            self._stdin.write(frame)
            await self._stdin.drain()
        except (ConnectionError, RuntimeError) as error:  # as raised by asyncio and uvloop
            raise PipeClosed from error

    async def receive(self, frames: Frames[T]) -> T:
        """The next message; PipeClosed or InvalidFrame. Cancel-safe: the next call continues in the same frame."""
        self._reading = True
        try:
            if self._body_length is None:
                self._body_length = frames.body_length(await self._stdout.readexactly(PREFIX_BYTES))
            message = frames.decode(await self._stdout.readexactly(self._body_length))
        except (EOFError, ConnectionError) as error:
            raise PipeClosed from error
        finally:
            self._reading = False
        self._body_length = None
        return message

    async def wait(self) -> int:
        """Waits until it ends; messages that were not received are discarded."""
        if not self._reading:
            await self._discard_output()
        return await super().wait()

    async def _discard_output(self) -> None:
        """asyncio reports the end only after that of the output, which it does not see while its buffer is full."""
        self._reading = True
        try:
            while await self._stdout.read(1 << 16):
                pass
        finally:
            self._reading = False

    def _ask_to_end(self) -> None:
        self._stdin.close()


class SessionChild(ChildProcess):
    """On Linux the kernel ends it with its parent; elsewhere it outlives a parent that was killed. POSIX."""

    @classmethod
    async def start(
        cls,
        command: Sequence[str | Path],
        *,
        environment: Mapping[str, str] | None = None,
        output: int | None = DEVNULL,
        inherited: Sequence[int] = (),
        death_signal: signal.Signals = signal.SIGKILL,
    ) -> Self:
        """OSError if the program cannot be started. Call it from the main thread (see `_end_with_parent`).

        `output`: descriptor of its stdout and stderr, None for our own. `inherited`: descriptors that stay open in it.
        """
        process = await asyncio.create_subprocess_exec(
            *command,
            env=environment,
            stdin=DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=inherited,
            start_new_session=True,
            preexec_fn=_end_with_parent(os.getpid(), death_signal),
        )
        return cls(process)

    def _ask_to_end(self) -> None:
        with suppress(ProcessLookupError):
            self._process.terminate()


def _end_with_parent(parent: int, death_signal: signal.Signals) -> Callable[[], None] | None:
    """Code that runs between fork and exec on Linux: asks the kernel for a signal when the parent dies.

    The kernel watches the *thread* that forked, hence the main thread.
    """
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl  # resolved before the fork: afterwards no locks may be taken and nothing imported

    def request_death_signal() -> None:
        prctl(_PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
        if os.getppid() != parent:  # the parent died before the call
            os._exit(1)

    return request_death_signal
