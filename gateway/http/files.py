"""Bytes by digest over HTTP: ranges, HEAD, strong ETags, and headers that keep a user's file from acting as a page."""

import re
from base64 import b64encode
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from litestar import Request, Response
from litestar.openapi.datastructures import ResponseSpec
from litestar.response import Stream

from contracts.ids import Digest
from contracts.wire.blobs import Blobs
from gateway.http.problems import MEDIA_TYPE, Problem, RangeNotSatisfiable, problems

OCTETS = "application/octet-stream"
FOR_EVER = "max-age=31536000, immutable"
AN_HOUR = "max-age=3600"
"""Of what can be erased: so long a browser may go on showing it; then it asks, which costs few bytes (304)."""
SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"BM", "image/bmp"),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
)
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})\Z")


@dataclass(frozen=True)
class Span:
    """Bytes `start` up to but not including `end`, of a file of `size`."""

    start: int
    end: int
    size: int


def span_of(header: str | None, size: int) -> Span | None:
    """One range of bytes (RFC 9110 §14). None: the whole file, also for what we may ignore (several ranges, units)."""
    found = _RANGE.match(header.strip()) if header else None
    if found is None or found.groups() == ("", ""):
        return None
    first, last = found.groups()
    if not first:  # the last so many bytes
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < int(first):
            return None
    if start >= size or start >= end:
        raise RangeNotSatisfiable(f"the file has {size} bytes", size=size)
    return Span(start, end, size)


def matches(header: str | None, etag: str) -> bool:
    """If-None-Match: weak comparison, a list, or `*`."""
    if header is None:
        return False
    given = [one.strip().removeprefix("W/") for one in header.split(",")]
    return etag in given or "*" in given


def disposition(name: str) -> str:
    """`attachment` under this name, in ASCII and in full (RFC 6266)."""
    plain = "".join(one if one.isascii() and one.isprintable() and one not in '"\\/;%' else "_" for one in name)
    return f"attachment; filename=\"{plain or 'file'}\"; filename*=UTF-8''{quote(name, safe='')}"


async def blob_answer(
    request: Request[Any, Any, Any],
    blobs: Blobs,
    digest: Digest,
    *,
    attach: str | None = None,
    keep: str = FOR_EVER,
) -> Response[Any]:
    """The blob as it was asked for: whole, a range, only its headers, or the word that it is known already.

    `keep`: how long browsers may show it without asking.
    """
    etag = f'"{digest}"'
    size = await blobs.size(digest)
    head = b"".join([piece async for piece in blobs.stream(digest, 0, min(16, size))])
    headers = {
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Cache-Control": f"private, {keep}",
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "Repr-Digest": f"sha-256=:{b64encode(bytes.fromhex(digest)).decode()}:",
    }
    if attach is not None:
        headers["Content-Disposition"] = disposition(attach)
    if matches(request.headers.get("if-none-match"), etag):
        return Response(b"", status_code=304, headers=headers)
    asked = request.headers.get("range") if request.headers.get("if-range", etag) == etag else None
    span = span_of(asked, size)
    status = 200
    if span is not None:
        status = 206
        headers["Content-Range"] = f"bytes {span.start}-{span.end - 1}/{span.size}"
    else:
        span = Span(0, size, size)
    headers["Content-Length"] = str(span.end - span.start)
    return Stream(_pieces(blobs, digest, span), status_code=status, headers=headers, media_type=sniffed(head))


async def _pieces(blobs: Blobs, digest: Digest, span: Span) -> AsyncIterator[bytes]:
    async for piece in blobs.stream(digest, span.start, span.end):
        yield piece


def sniffed(head: bytes) -> str:
    """The type by its first bytes; what is no picture is only bytes."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for signature, kind in SIGNATURES if head.startswith(signature)), OCTETS)


def file_answers(media_type: str = "image/*") -> dict[int, ResponseSpec]:
    """For the OpenAPI document: what every route that serves a file may answer."""
    return {
        200: ResponseSpec(bytes, description="The file", media_type=media_type, generate_examples=False),
        206: ResponseSpec(bytes, description="The range asked for", media_type=media_type, generate_examples=False),
        304: ResponseSpec(None, description="You have it already", generate_examples=False),
        416: ResponseSpec(
            Problem, description="The file ends before that range", media_type=MEDIA_TYPE, generate_examples=False
        ),
        **problems(404),
    }
