"""The bytes of an image as received, where only its picture and what was cut from it are stored."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing

from contracts.ids import Digest
from contracts.jpeg_cut import NotRebuildable, Span, rebuild, source_spans
from contracts.wire.blobs.io import Damaged
from contracts.wire.blobs.store import Blobs


async def read_source(blobs: Blobs, source: Digest, *, picture: Digest, cut: Digest) -> bytes:
    """Verified against `source`; Damaged if it differs. NotFound: a blob is missing."""
    return await asyncio.to_thread(_verified, source, await blobs.get(picture), await blobs.get(cut))


class RebuiltSource:
    """The same, in chunks: it holds one of the picture and one of the cut. `size` in bytes."""

    def __init__(self, blobs: Blobs, *, picture: Digest, cut: Digest, spans: list[Span]) -> None:
        self._blobs, self._digests, self._spans = blobs, {"picture": picture, "cut": cut}, spans
        self.size = sum(span.end - span.start for span in spans)

    @classmethod
    async def open(cls, blobs: Blobs, source: Digest, *, picture: Digest, cut: Digest) -> "RebuiltSource":
        """Verified against `source`, for which all is read once; the cut, of up to 64 MB, is in memory for a moment.

        Damaged if it differs. NotFound: a blob is missing.
        """
        size = await blobs.size(picture)
        spans = await asyncio.to_thread(_spans, size, await blobs.get(cut))
        opened = cls(blobs, picture=picture, cut=cut, spans=spans)
        hashed = hashlib.sha256()
        async with aclosing(opened.stream()) as chunks:
            async for chunk in chunks:
                hashed.update(chunk)
        if hashed.hexdigest() != source:
            raise _not_the_source()
        return opened

    async def stream(self, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes, None]:
        """Bytes `start` up to but excluding `end`. Damaged: a blob is shorter than it was."""
        spans = _clipped(self._spans, start, self.size if end is None else end)
        async with AsyncExitStack() as stack:
            readers: dict[str, _Reader] = {}
            for span in spans:
                if span.of not in readers:
                    chunks = self._blobs.stream(self._digests[span.of], span.start)
                    readers[span.of] = _Reader(await stack.enter_async_context(aclosing(chunks)), span.start)
                async with aclosing(readers[span.of].read(span)) as parts:
                    async for part in parts:
                        yield part


class _Reader:
    """Reads spans of a blob, in ascending order, from chunks that begin at `at`."""

    def __init__(self, chunks: AsyncGenerator[bytes, None], at: int) -> None:
        self._chunks, self._at, self._rest = chunks, at, memoryview(b"")

    async def read(self, span: Span) -> AsyncGenerator[bytes, None]:
        async for _ in self._take(span.start - self._at):
            pass  # what the source does not have
        async for part in self._take(span.end - span.start):
            yield part

    async def _take(self, count: int) -> AsyncGenerator[bytes, None]:
        while count:
            if not self._rest:
                self._rest = memoryview(await anext(self._chunks, b""))
            if not self._rest:
                raise _not_the_source()
            part, self._rest = self._rest[:count], self._rest[count:]
            self._at += len(part)
            count -= len(part)
            yield bytes(part)


def _clipped(spans: list[Span], start: int, end: int) -> list[Span]:
    """The spans of the source's bytes from `start` to `end` only."""
    clipped, at = [], 0
    for span in spans:
        length = span.end - span.start
        first, last = max(0, start - at), min(length, end - at)
        if first < last:
            clipped.append(Span(span.of, span.start + first, span.start + last))
        at += length
    return clipped


def _spans(picture_bytes: int, cut: bytes) -> list[Span]:
    try:
        return source_spans(picture_bytes, cut)
    except NotRebuildable as error:
        raise Damaged(str(error)) from error


def _verified(source: Digest, picture: bytes, cut: bytes) -> bytes:
    try:
        content = rebuild(picture, cut)
    except NotRebuildable as error:
        raise Damaged(str(error)) from error
    if hashlib.sha256(content).hexdigest() != source:
        raise _not_the_source()
    return content


def _not_the_source() -> Damaged:
    return Damaged("picture and cut no longer give the file that was received")
