"""A pool of decoder processes that examine untrusted picture files within fixed limits.

Processes start when first needed and are reused. One that hangs, grows too large or crashes affects only its file.
"""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self, TypeVar

import msgspec

from catalog.ingest.decoder_messages import (
    READY,
    REQUESTS,
    RESULTS,
    RULES,
    DecodingFailed,
    Examine,
    ExamineMask,
    Request,
    Result,
)
from catalog.ingest.outcomes import Accepted, AcceptedMask, Limits, MaskInfo, Outcome, PictureInfo, Reason, Refused
from contracts.errors import Unavailable
from contracts.ids import ulid
from contracts.wire.system.child import PipedChild
from contracts.wire.system.pipe import PipeError

START_TIMEOUT_SECONDS = 60.0  # a child is ready within 0.1 s; on a machine that swaps it may take long
REASONS_TO_RETRY: frozenset[Reason] = frozenset({"decoder-crashed", "too-much-memory"})
"""After these the file is tried again in a new child, as the first may have died idle or grown large over time."""

Info = TypeVar("Info", PictureInfo, MaskInfo)

_CPU_TIME_SIGNAL = getattr(signal, "SIGPROF", 0)  # by which the kernel ends a child; Windows has no such limit


class CpuTimeSpent(Exception):
    """The child was killed because it took more CPU time than it may."""


class Decoder:
    """`async with Decoder(limits, workers=2) as decoder`: decodes at most `workers` files at a time, others wait."""

    def __init__(self, limits: Limits, workers: int = 2) -> None:
        self._limits = limits
        self._children = [_Child(limits) for _ in range(workers)]
        # Last in, first out: the warm child is used first, and the second starts only when two are needed.
        self._idle: asyncio.LifoQueue[_Child] = asyncio.LifoQueue()
        for child in self._children:
            self._idle.put_nowait(child)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for child in self._children:
            await child.stop()

    async def examine(self, path: Path, *, into: Path, rules: int = RULES) -> Outcome:
        """Examine a file; writes its thumbnail, and the picture unless it is the source itself, into the folder `into`.

        `rules`: an older version makes the files of images that were imported by it. Files written for a refused file
        are deleted again. OSError: `path` cannot be read or `into` not be written. Unavailable: no child starts.
        Neither is a verdict on the picture.
        """
        stem = into / ulid()
        picture, thumbnail, cut = (stem.with_suffix(suffix) for suffix in (".picture", ".webp", ".cut"))
        request = Examine(source=str(path), picture=str(picture), thumbnail=str(thumbnail), cut=str(cut), rules=rules)
        result = await self._examine(request, PictureInfo, (picture, thumbnail, cut))
        if isinstance(result, Refused):
            return result
        return Accepted(
            **msgspec.structs.asdict(result),
            picture_path=path if result.source_is_picture else picture,
            thumbnail_path=thumbnail,
            cut_path=None if result.cut_sha256 is None else cut,
        )

    async def examine_mask(self, path: Path, *, into: Path, width: int, height: int) -> AcceptedMask | Refused:
        """Examine the mask of a picture of this size; writes it as a grey PNG into the folder `into`. Raises as
        `examine`."""
        mask = into / f"{ulid()}.mask"
        request = ExamineMask(source=str(path), mask=str(mask), width=width, height=height)
        result = await self._examine(request, MaskInfo, (mask,))
        return result if isinstance(result, Refused) else AcceptedMask(**msgspec.structs.asdict(result), path=mask)

    async def _examine(self, request: Request, accepted: type[Info], written: Sequence[Path]) -> Info | Refused:
        """The files `written` are deleted again unless the file is accepted."""
        result = None
        try:
            result = await self._examine_with_retry(request)
            if not isinstance(result, accepted | Refused):
                raise Unavailable("the picture decoder answered something else than it was asked")
            return result
        finally:
            if not isinstance(result, accepted):
                for file in written:
                    file.unlink(missing_ok=True)

    async def _examine_with_retry(self, request: Request) -> PictureInfo | MaskInfo | Refused:
        async with self._idle_child() as child:
            result = await self._examine_once(child, request)
            if isinstance(result, Refused) and result.reason in REASONS_TO_RETRY:
                await child.kill()
                result = await self._examine_once(child, request)
        return result

    async def _examine_once(self, child: "_Child", request: Request) -> PictureInfo | MaskInfo | Refused:
        try:
            result = await child.request(request)
        except TimeoutError:
            detail = f"decoding it did not end within {self._limits.hang_seconds:g} seconds"
            return Refused(reason="took-too-long", detail=detail)
        except CpuTimeSpent:
            return Refused(reason="took-too-long", detail="decoding it took more CPU time than a file of its size may")
        except PipeError:
            return Refused(reason="decoder-crashed", detail="decoding it crashed the decoder")
        if isinstance(result, DecodingFailed):
            raise OSError(result.errno, result.message, result.path)
        return result

    @asynccontextmanager
    async def _idle_child(self) -> AsyncIterator["_Child"]:
        child = await self._idle.get()
        try:
            yield child
        finally:
            self._idle.put_nowait(child)


class _Child:
    """One process, started by its first request and restarted after it ended."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._process: PipedChild | None = None
        self._stopped = False

    async def request(self, request: Request) -> Result:
        """The result. CpuTimeSpent, or TimeoutError: it waited for too long, and was killed; PipeError: it ended."""
        if self._process is None or not self._process.is_running:
            self._process = await self._start()
        try:
            async with _killed_on_failure(self._process), asyncio.timeout(self._limits.hang_seconds):
                await self._process.send(REQUESTS.encode(request))
                return await self._process.receive(RESULTS)
        except PipeError as error:
            if await self._process.wait() == -_CPU_TIME_SIGNAL:
                raise CpuTimeSpent from error
            raise

    async def kill(self) -> None:
        """End the process; the next request starts another."""
        if self._process is not None:
            await self._process.kill()

    async def stop(self) -> None:
        """End the process and start no other."""
        self._stopped = True
        await self.kill()

    async def _start(self) -> PipedChild:
        if self._stopped:
            raise Unavailable("the picture decoder is closed")
        limits = msgspec.json.encode(self._limits).decode()
        process = await PipedChild.start((sys.executable, "-m", "catalog.ingest.decoder", limits))
        try:
            async with _killed_on_failure(process), asyncio.timeout(START_TIMEOUT_SECONDS):
                await process.receive(READY)
        except (TimeoutError, PipeError) as error:
            raise Unavailable("the picture decoder does not start; its log says why") from error
        return process


@asynccontextmanager
async def _killed_on_failure(process: PipedChild) -> AsyncIterator[None]:
    """Also when cancelled: the next message of the child would be the late result."""
    try:
        yield
    except BaseException:
        await process.kill()
        raise
