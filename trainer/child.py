"""The engine's process, seen from the parent: orders in, updates out, and an end for sure."""

import asyncio
import sys
from collections.abc import Mapping
from contextlib import suppress

from contracts.wire.work import Crash
from trainer.messages import PREFIX, BadFrame, Order, Update, frame, length, update_in

END_SECONDS = 5.0


class Child:
    """One life of `python -m trainer.engine`. It ends when its pipe closes, so also when this process is killed."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._body: int | None = None
        """Length of the update whose prefix was read already."""

    @classmethod
    async def start(cls, environment: Mapping[str, str]) -> "Child":
        """The child says Loading and Ready when it can take an order; its words for people go to our own stderr."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-P", "-m", "trainer.engine"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=without_settings(environment),
        )
        return cls(process)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    async def order(self, order: Order) -> None:
        """Crash when the child is gone."""
        assert self._process.stdin is not None  # noqa: S101 - start() asked for a pipe
        try:
            self._process.stdin.write(frame(order))
            await self._process.stdin.drain()
        except (BrokenPipeError, ConnectionResetError) as error:
            raise Crash(await self._how_it_ended()) from error

    async def next(self) -> Update:
        """The next thing it tells. Crash says how it died. Cancelling loses nothing: the next call goes on there."""
        assert self._process.stdout is not None  # noqa: S101 - start() asked for a pipe
        try:
            if self._body is None:
                self._body = length(await self._process.stdout.readexactly(PREFIX))
            update = update_in(await self._process.stdout.readexactly(self._body))
        except (asyncio.IncompleteReadError, BadFrame) as error:
            raise Crash(await self._how_it_ended()) from error
        self._body = None
        return update

    async def end(self) -> None:
        """Close its pipe and wait; kill it when it takes too long."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            async with asyncio.timeout(END_SECONDS):
                await self._process.wait()
        except TimeoutError:
            await self.kill()

    async def kill(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()

    async def _how_it_ended(self) -> str:
        try:
            async with asyncio.timeout(END_SECONDS):
                code = await self._process.wait()
        except TimeoutError:
            await self.kill()
            return "the training process spoke nonsense and was ended"
        return (
            f"the training process was ended by signal {-code}" if code < 0 else f"the training process ended: {code}"
        )


def without_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """The parent's environment for the engine: passwords are none of its business."""
    # Threads that wait for each other sleep. By default they spin, and where others want the same cores a step of the
    # stand-in base on two threads then takes 2 s instead of 0.1 s.
    ours = {name: value for name, value in environment.items() if not name.startswith("LORATORY_")}
    return {"OMP_WAIT_POLICY": "PASSIVE"} | ours
