"""Child processes that read pictures, while the model computes."""

import asyncio
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from contracts.wire.system.child import PipedChild
from contracts.wire.system.pipe import PipeError
from tagger.wd.decoder_messages import REQUESTS, RESULTS, Read, Square, Unreadable

DECODER = (sys.executable, "-m", "tagger.wd.decoder")
TIMEOUT_SECONDS = 330.0
"""Of one picture, should even the child's own timer not end it."""
_ATTEMPTS = 2  # the first child may have died for a reason of its own


class Decoders:
    """`async with Decoders(workers) as decoders`: at most so many processes, each started when it is first needed."""

    def __init__(self, workers: int) -> None:
        self._children: set[PipedChild] = set()
        # Last in, first out: a running child is used first, and the second starts only when two are needed.
        self._idle: asyncio.LifoQueue[PipedChild | None] = asyncio.LifoQueue()
        for _ in range(workers):
            self._idle.put_nowait(None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for child in list(self._children):
            await self._ended(child)

    async def read(self, path: Path, size: int) -> Square | Unreadable:
        """The picture in a file. A picture that ends its process twice is unreadable."""
        request = Read(str(path), size)
        for _ in range(_ATTEMPTS):
            child = await self._idle.get()
            try:
                if child is None:
                    child = await PipedChild.start(DECODER)
                    self._children.add(child)
                async with asyncio.timeout(TIMEOUT_SECONDS):
                    await child.send(REQUESTS.encode(request))
                    return await child.receive(RESULTS)
            except (PipeError, TimeoutError):
                await self._ended(child)
                child = None
            except BaseException:
                await self._ended(child)  # its next message would be the late result
                child = None
                raise
            finally:
                self._idle.put_nowait(child)
        return Unreadable("the picture cannot be read (reading it takes too much memory or time)")

    async def _ended(self, child: PipedChild | None) -> None:
        """Killed; none takes its place until one is needed."""
        if child is not None:
            self._children.discard(child)
            await child.kill()
