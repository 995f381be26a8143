"""Serving blobs over HTTP: ranges, HEAD, strong ETags, and headers that prevent user files from running as pages."""

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
from gateway.http.problems import MEDIA_TYPE, Problem, RangeNotSatisfiable, problem_responses

OCTET_STREAM = "application/octet-stream"
CACHE_FOREVER = "max-age=31536000, immutable"
CACHE_ONE_HOUR = "max-age=3600"
"""For images, which can be erased: a browser may show its copy for an hour, then revalidates it (304, few bytes)."""
MAGIC_BYTES: tuple[tuple[bytes, str], ...] = (
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
class ByteRange:
    """Bytes `start` up to but not including `end`, of a file of `size`."""

    start: int
    end: int
    size: int


def parse_range(header: str | None, size: int) -> ByteRange | None:
    """A single byte range (RFC 9110 §14). None: the whole file, also for several ranges or other units."""
    found = _RANGE.match(header.strip()) if header else None
    if found is None or found.groups() == ("", ""):
        return None
    first, last = found.groups()
    if not first:  # a suffix: the last bytes
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < int(first):
            return None
    if start >= size or start >= end:
        raise RangeNotSatisfiable(f"the file has {size} bytes", size=size)
    return ByteRange(start, end, size)


def etag_matches(header: str | None, etag: str) -> bool:
    """If-None-Match: weak comparison, a list, or `*`."""
    if header is None:
        return False
    given = [one.strip().removeprefix("W/") for one in header.split(",")]
    return etag in given or "*" in given


def content_disposition(name: str) -> str:
    """`attachment` with this file name, in ASCII and in full (RFC 6266)."""
    plain = "".join(one if one.isascii() and one.isprintable() and one not in '"\\/;%' else "_" for one in name)
    return f"attachment; filename=\"{plain or 'file'}\"; filename*=UTF-8''{quote(name, safe='')}"


async def blob_response(
    request: Request[Any, Any, Any],
    blobs: Blobs,
    digest: Digest,
    *,
    attachment_name: str | None = None,
    caching: str = CACHE_FOREVER,
) -> Response[Any]:
    """The whole blob, a range of it, only its headers, or 304 if the client has it.

    `caching`: how long browsers may use their copy without revalidating it.
    """
    etag = f'"{digest}"'
    size = await blobs.size(digest)
    head = b"".join([chunk async for chunk in blobs.stream(digest, 0, min(16, size))])
    headers = {
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Cache-Control": f"private, {caching}",
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "Repr-Digest": f"sha-256=:{b64encode(bytes.fromhex(digest)).decode()}:",
    }
    if attachment_name is not None:
        headers["Content-Disposition"] = content_disposition(attachment_name)
    if etag_matches(request.headers.get("if-none-match"), etag):
        return Response(b"", status_code=304, headers=headers)
    requested = request.headers.get("range") if request.headers.get("if-range", etag) == etag else None
    byte_range = parse_range(requested, size)
    status = 200
    if byte_range is not None:
        status = 206
        headers["Content-Range"] = f"bytes {byte_range.start}-{byte_range.end - 1}/{byte_range.size}"
    else:
        byte_range = ByteRange(0, size, size)
    headers["Content-Length"] = str(byte_range.end - byte_range.start)
    chunks = _read_range(blobs, digest, byte_range)
    return Stream(chunks, status_code=status, headers=headers, media_type=sniff_media_type(head))


async def _read_range(blobs: Blobs, digest: Digest, byte_range: ByteRange) -> AsyncIterator[bytes]:
    async for chunk in blobs.stream(digest, byte_range.start, byte_range.end):
        yield chunk


def sniff_media_type(head: bytes) -> str:
    """The media type of an image by its first bytes; anything else is `application/octet-stream`."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    return next((media_type for magic, media_type in MAGIC_BYTES if head.startswith(magic)), OCTET_STREAM)


def file_responses(media_type: str = "image/*") -> dict[int, ResponseSpec]:
    """For the OpenAPI document: the responses of a route that serves a file."""
    return {
        200: ResponseSpec(bytes, description="The file", media_type=media_type, generate_examples=False),
        206: ResponseSpec(bytes, description="The requested range", media_type=media_type, generate_examples=False),
        304: ResponseSpec(None, description="Not modified", generate_examples=False),
        416: ResponseSpec(
            Problem, description="The range begins after the end", media_type=MEDIA_TYPE, generate_examples=False
        ),
        **problem_responses(404),
    }
