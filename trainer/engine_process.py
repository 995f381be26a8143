"""The parent's handle of the engine process: requests in, updates out, guaranteed termination."""

import asyncio
import sys
from collections.abc import Mapping
from contextlib import suppress

import msgspec
import structlog

from contracts.wire.system.child import PipedChild
from contracts.wire.system.pipe import PipeError
from contracts.wire.workers.worker import Crash
from trainer.engine_pipe import REQUESTS, UPDATES
from trainer.messages import DeviceMemory, EngineRequest, Finished, RequestFailed, Stop, Stopped, Train, Update

_log = structlog.get_logger()


class EngineTimings(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds. `start`: extra time before an attempt counts as stalled while a new engine imports torch.

    `stop`: an engine whose request was cancelled is killed if it has not stopped between two steps by then; a cancelled
    job is promised to end within a second. `checkpoint`: time to write a checkpoint when the trainer is stopped.
    `exit`: time to end by itself when its pipe closes.
    """

    start: float = 300.0
    stop: float = 0.5
    checkpoint: float = 8.0
    exit: float = 1.0


DEFAULT_TIMINGS = EngineTimings()


class EngineProcess:
    """One `python -m trainer.engine` process. It exits when its pipe closes, so also when this process is killed."""

    def __init__(self, child: PipedChild, timings: EngineTimings = DEFAULT_TIMINGS) -> None:
        self._child = child
        self.timings = timings
        self._is_busy = False
        """Whether it works on a request."""
        self.memory: DeviceMemory | None = None
        """As the engine last reported it."""

    @classmethod
    async def start(cls, environment: Mapping[str, str], timings: EngineTimings = DEFAULT_TIMINGS) -> "EngineProcess":
        """Start the process. It sends Loading, then Ready once it accepts requests; its logs go to our own stderr."""
        command = (sys.executable, "-P", "-m", "trainer.engine")
        return cls(await PipedChild.start(command, engine_environment(environment)), timings)

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def is_running(self) -> bool:
        return self._child.is_running

    async def send(self, request: EngineRequest) -> None:
        """Crash if the process has ended."""
        frame = REQUESTS.encode(request)
        self._is_busy = self._is_busy or isinstance(request, Train)
        try:
            await self._child.send(frame)
        except PipeError as error:
            raise Crash(await self._exit_reason()) from error

    async def next_update(self) -> Update:
        """The next update; Crash if the process ended. Cancel-safe: the next call continues in the same frame."""
        try:
            while isinstance(update := await self._child.receive(UPDATES), DeviceMemory):
                self.memory = update
        except PipeError as error:
            raise Crash(await self._exit_reason()) from error
        self._is_busy = self._is_busy and not _ends_request(update)
        return update

    async def cancel_request(self) -> None:
        """End the current request: between two steps, and then the process stays; otherwise the process is killed."""
        if not self.is_running:
            self._is_busy = False
        try:
            with suppress(TimeoutError, Crash):
                async with asyncio.timeout(self.timings.stop):
                    await self._stop_between_steps()
        finally:
            if self._is_busy:
                _log.info("engine_killed", pid=self.pid)
                await self.kill()

    async def _stop_between_steps(self) -> None:
        if self._is_busy:
            await self.send(Stop(save=False))
        while self._is_busy:
            await self.next_update()

    async def close(self) -> None:
        """Close the pipe and wait; kill the process after a timeout."""
        await self._child.stop(self.timings.exit)

    async def kill(self) -> None:
        await self._child.kill()

    async def _exit_reason(self) -> str:
        try:
            async with asyncio.timeout(self.timings.exit):
                code = await self._child.wait()
        except TimeoutError:
            await self.kill()
            return "the training process broke the protocol and was killed"
        if code < 0:
            return f"the training process was killed by signal {-code}"
        return f"the training process exited with code {code}"


def _ends_request(update: Update) -> bool:
    """Not an internal error: the process exits after it."""
    match update:
        case RequestFailed(code=code):
            return code != "internal"
        case _:
            return isinstance(update, Finished | Stopped)


def engine_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The parent's environment without Loratory's settings, which contain passwords."""
    # OpenMP threads sleep while waiting. By default they spin, and when other processes use the same cores a step of
    # the tiny-random base on two threads takes 2 s instead of 0.1 s.
    inherited = {name: value for name, value in environment.items() if not name.startswith("LORATORY_")}
    return {"OMP_WAIT_POLICY": "PASSIVE"} | inherited
