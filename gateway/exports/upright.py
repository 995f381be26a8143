"""Pictures for programs that ignore the orientation of a file: turned in a child process, while they pass."""

import asyncio
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Self

from contracts.errors import LoratoryError
from contracts.wire.system.child import PipedChild
from contracts.wire.system.pipe import PipeError
from gateway.exports.turning_messages import PART_BYTES, PARTS, TURNED, CannotTurn, Part

TURNER = (sys.executable, "-m", "gateway.exports.turner")
TIMEOUT_SECONDS = 330.0
"""Of one picture, should even the child's own timer not end it."""


class NotTurned(LoratoryError):
    """A stored picture cannot be decoded, or its process ended."""


class Turner:
    """`async with Turner(slots) as turner`: one child process, started by its first picture, ended at the end.

    `slots`: how many pictures are decoded at once, of all turners together.
    """

    def __init__(self, slots: asyncio.Semaphore) -> None:
        self._slots = slots
        self._child: PipedChild | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._child is not None:
            await self._child.kill()

    async def turn(self, chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        """The upright picture, of which no more than a part is held here. NotTurned; then the turner is of no more use.

        The slot is free again when the picture is encoded: a client may take its time to read it.
        """
        if self._child is None:
            self._child = await PipedChild.start(TURNER)
        async with self._slots, _not_turned_on_failure():
            await _send(self._child, chunks)
            part = await self._child.receive(TURNED)
        while isinstance(part, Part) and part.content:
            yield part.content
            async with _not_turned_on_failure():
                part = await self._child.receive(TURNED)
        if isinstance(part, CannotTurn):
            raise NotTurned(f"it cannot be decoded ({part.error})")


async def _send(child: PipedChild, chunks: AsyncIterator[bytes]) -> None:
    async for chunk in chunks:
        for start in range(0, len(chunk), PART_BYTES):
            await child.send(PARTS.encode(Part(chunk[start : start + PART_BYTES])))
    await child.send(PARTS.encode(Part(b"")))


@asynccontextmanager
async def _not_turned_on_failure() -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            yield
    except (PipeError, TimeoutError) as error:
        raise NotTurned("the process that turns it ended") from error
