"""The parent's handle of the engine process: requests in, updates out, guaranteed termination."""

import asyncio
import sys
from collections.abc import Mapping
from contextlib import suppress

from contracts.wire.worker import Crash
from trainer.messages import PREFIX_BYTES, EngineRequest, InvalidFrame, Update, body_length, decode_update, encode_frame

EXIT_TIMEOUT_SECONDS = 5.0


class EngineProcess:
    """One `python -m trainer.engine` process. It exits when its pipe closes, so also when this process is killed."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._body_length: int | None = None
        """Length of the update whose prefix has already been read."""

    @classmethod
    async def start(cls, environment: Mapping[str, str]) -> "EngineProcess":
        """Start the process. It sends Loading, then Ready once it accepts requests; its logs go to our own stderr."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-P", "-m", "trainer.engine"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=engine_environment(environment),
        )
        return cls(process)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.returncode is None

    async def send(self, request: EngineRequest) -> None:
        """Crash if the process has ended."""
        assert self._process.stdin is not None  # noqa: S101 - start() creates a pipe
        try:
            self._process.stdin.write(encode_frame(request))
            await self._process.stdin.drain()
        except (BrokenPipeError, ConnectionResetError) as error:
            raise Crash(await self._exit_reason()) from error

    async def next_update(self) -> Update:
        """The next update; Crash if the process ended. Cancel-safe: the next call continues in the same frame."""
        assert self._process.stdout is not None  # noqa: S101 - start() creates a pipe
        try:
            if self._body_length is None:
                self._body_length = body_length(await self._process.stdout.readexactly(PREFIX_BYTES))
            update = decode_update(await self._process.stdout.readexactly(self._body_length))
        except (asyncio.IncompleteReadError, InvalidFrame) as error:
            raise Crash(await self._exit_reason()) from error
        self._body_length = None
        return update

    async def close(self) -> None:
        """Close the pipe and wait; kill the process after a timeout."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            async with asyncio.timeout(EXIT_TIMEOUT_SECONDS):
                await self._process.wait()
        except TimeoutError:
            await self.kill()

    async def kill(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()

    async def _exit_reason(self) -> str:
        try:
            async with asyncio.timeout(EXIT_TIMEOUT_SECONDS):
                code = await self._process.wait()
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
