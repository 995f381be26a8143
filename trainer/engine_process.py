"""The parent's handle of the engine process: requests in, updates out, guaranteed termination."""

import asyncio
import sys
from collections.abc import Mapping

from contracts.wire.system.child import PipedChild
from contracts.wire.system.pipe import PipeError
from contracts.wire.workers.worker import Crash
from trainer.engine_pipe import REQUESTS, UPDATES
from trainer.messages import DeviceMemory, EngineRequest, Update

EXIT_TIMEOUT_SECONDS = 5.0


class EngineProcess:
    """One `python -m trainer.engine` process. It exits when its pipe closes, so also when this process is killed."""

    def __init__(self, child: PipedChild) -> None:
        self._child = child
        self.memory: DeviceMemory | None = None
        """As the engine last reported it."""

    @classmethod
    async def start(cls, environment: Mapping[str, str]) -> "EngineProcess":
        """Start the process. It sends Loading, then Ready once it accepts requests; its logs go to our own stderr."""
        command = (sys.executable, "-P", "-m", "trainer.engine")
        return cls(await PipedChild.start(command, engine_environment(environment)))

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def is_running(self) -> bool:
        return self._child.is_running

    async def send(self, request: EngineRequest) -> None:
        """Crash if the process has ended."""
        frame = REQUESTS.encode(request)
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
        return update

    async def close(self) -> None:
        """Close the pipe and wait; kill the process after a timeout."""
        await self._child.stop(EXIT_TIMEOUT_SECONDS)

    async def kill(self) -> None:
        await self._child.kill()

    async def _exit_reason(self) -> str:
        try:
            async with asyncio.timeout(EXIT_TIMEOUT_SECONDS):
                code = await self._child.wait()
        except TimeoutError:
            await self.kill()
            return "the training process broke the protocol and was killed"
        if code < 0:
            return f"the training process was killed by signal {-code}"
        return f"the training process exited with code {code}"


def engine_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The parent's environment without Loratory's settings, which contain passwords."""
    # OpenMP threads sleep while waiting. By default they spin, and when other processes use the same cores a step of
    # the tiny-random base on two threads takes 2 s instead of 0.1 s.
    inherited = {name: value for name, value in environment.items() if not name.startswith("LORATORY_")}
    return {"OMP_WAIT_POLICY": "PASSIVE"} | inherited
