"""The pool of decoding children: files go in, outcomes come out, and no file takes more than its share.

Children start when first needed and stay. One that hangs, bloats or dies costs only the file it was at.
"""

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self, TypeVar

import msgspec

from catalog.ingest.frames import LENGTH_BYTES, Examine, Failed, Ready, Result, length_of, packed
from catalog.ingest.outcomes import Accepted, Facts, Limits, Outcome, Reason, Refused
from contracts.errors import Unavailable
from contracts.ids import ulid

T = TypeVar("T")
STANDS = msgspec.msgpack.Decoder(Ready)
RESULTS: msgspec.msgpack.Decoder[Result] = msgspec.msgpack.Decoder(Result)
START_SECONDS = 60.0  # a child stands within 0.1 s; on a machine that swaps it may take long
MAYBE_THE_CHILD: frozenset[Reason] = frozenset({"decoder-crashed", "too-much-memory"})
"""A child may die of other causes, even while idle, and swell with age; so the file is tried again in a fresh one."""


class Decoder:
    """`async with Decoder(limits, workers=2) as decoder`: at most `workers` files are decoded at once, others wait."""

    def __init__(self, limits: Limits, workers: int = 2) -> None:
        self._limits = limits
        self._children = [_Child(limits) for _ in range(workers)]
        # Last in, first out: the child that is warm goes first, and the second starts only when two are needed.
        self._idle: asyncio.LifoQueue[_Child] = asyncio.LifoQueue()
        for child in self._children:
            self._idle.put_nowait(child)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for child in self._children:
            await child.stop()

    async def examine(self, path: Path, *, into: Path) -> Outcome:
        """What is this file? New files (thumbnail, and picture where the source is none) are written into `into`.

        Those of a refused file are deleted again. OSError when `path` cannot be read or `into` not be written;
        Unavailable when no child starts: neither says anything about the picture.
        """
        stem = into / ulid()
        picture, thumbnail = stem.with_suffix(".png"), stem.with_suffix(".webp")
        request = Examine(source=str(path), picture=str(picture), thumbnail=str(thumbnail))
        answer = None
        try:
            answer = await self._answer(request)
        finally:
            if not isinstance(answer, Facts):
                picture.unlink(missing_ok=True)
                thumbnail.unlink(missing_ok=True)
        if isinstance(answer, Refused):
            return answer
        return Accepted(
            **msgspec.structs.asdict(answer),
            picture_path=path if answer.source_is_picture else picture,
            thumbnail_path=thumbnail,
        )

    async def _answer(self, request: Examine) -> Facts | Refused:
        async with self._borrowed() as child:
            answer = await self._tried(child, request)
            if isinstance(answer, Refused) and answer.reason in MAYBE_THE_CHILD:
                await child.end()
                answer = await self._tried(child, request)
        return answer

    async def _tried(self, child: "_Child", request: Examine) -> Facts | Refused:
        try:
            answer = await child.ask(request)
        except TimeoutError:
            sentence = f"decoding it took longer than {self._limits.seconds:g} seconds"
            return Refused(reason="took-too-long", sentence=sentence)
        except _Died:
            return Refused(reason="decoder-crashed", sentence="decoding it ended the decoder")
        if isinstance(answer, Failed):
            raise OSError(answer.errno, answer.message, answer.path)
        return answer

    @asynccontextmanager
    async def _borrowed(self) -> AsyncIterator["_Child"]:
        child = await self._idle.get()
        try:
            yield child
        finally:
            self._idle.put_nowait(child)


class _Died(Exception):
    """The child ended, or spoke nonsense, before it had answered."""


class _Child:
    """One process, started when asked the first time and again after every death."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._process: Process | None = None
        self._stopped = False

    async def ask(self, request: Examine) -> Result:
        """The answer; TimeoutError when the child was killed for being late, _Died when it ended by itself."""
        if self._process is None or self._process.returncode is not None:
            self._process = await self._started()
        return await _exchange(self._process, packed(request), self._limits.seconds, RESULTS)

    async def end(self) -> None:
        """End the process; the next question starts another."""
        if self._process is not None:
            await _kill(self._process)

    async def stop(self) -> None:
        """End it for good."""
        self._stopped = True
        await self.end()

    async def _started(self) -> Process:
        if self._stopped:
            raise Unavailable("the picture decoder is closed")
        limits = msgspec.json.encode(self._limits).decode()
        program = (sys.executable, "-m", "catalog.ingest.decoder", limits)
        process = await asyncio.create_subprocess_exec(*program, stdin=PIPE, stdout=PIPE)
        try:
            await _exchange(process, b"", START_SECONDS, STANDS)
        except (TimeoutError, _Died) as error:
            raise Unavailable("the picture decoder does not start; its log says why") from error
        return process


async def _exchange(process: Process, frame: bytes, seconds: float, answers: msgspec.msgpack.Decoder[T]) -> T:
    """Send a frame, read the answer. However else this ends, the child is killed: its next answer would be to this."""
    answer = None
    try:
        async with asyncio.timeout(seconds):
            answer = answers.decode(await _told(process, frame))
    except (asyncio.IncompleteReadError, ConnectionError, ValueError) as error:
        raise _Died from error
    finally:
        if answer is None:
            await _kill(process)
    return answer


async def _told(process: Process, frame: bytes) -> bytes:
    stdin, stdout = process.stdin, process.stdout
    if stdin is None or stdout is None:
        raise ConnectionError("started without pipes")
    stdin.write(frame)
    await stdin.drain()
    return await stdout.readexactly(length_of(await stdout.readexactly(LENGTH_BYTES)))


async def _kill(process: Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.wait()
