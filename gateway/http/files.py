"""Serving blobs over HTTP: ranges, HEAD, strong ETags, and headers that prevent user files from running as pages."""

import asyncio
import re
from base64 import b64encode
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import quote

from litestar import Request, Response
from litestar.response import Stream

from contracts.errors import BlobMissing, NotFound
from contracts.ids import Digest
from contracts.image_names import last_part
from contracts.queries.datasets import ImageView
from contracts.queries.losses import GetBlob
from contracts.wire.blobs.source import RebuiltSource
from contracts.wire.blobs.store import Blobs, Damaged
from gateway.clients import CatalogClient
from gateway.http.problems import MEDIA_TYPE, Problem, RangeNotSatisfiable, Responses, problem_responses, response_spec

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
CONCURRENTLY_REBUILT = 2
"""Files as received that are rebuilt at once, until their first byte: each holds in memory what was cut."""
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})\Z")


def parse_range(header: str | None, size: int) -> range | None:
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
    return range(start, end)


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


@dataclass(frozen=True)
class BlobFiles:
    """Blobs to serve. When one is missing the catalog is asked: it makes a derived one again, or says what is wrong."""

    blobs: Blobs
    catalog: CatalogClient
    rebuilding: asyncio.Semaphore = field(default_factory=partial(asyncio.Semaphore, CONCURRENTLY_REBUILT))

    async def size(self, digest: Digest) -> int:
        """In bytes. NotFound: nothing names it. BlobMissing: it is missing. Lost: its loss was accepted."""
        try:
            return await self.blobs.size(digest)
        except NotFound:
            return (await self.catalog.query(GetBlob(blob=digest))).size


async def blob_response(
    request: Request[Any, Any, Any],
    files: BlobFiles,
    digest: Digest,
    *,
    attachment_name: str | None = None,
    caching: str = CACHE_FOREVER,
) -> Response[Any]:
    """The whole blob, a range of it, only its headers, or 304 if the client has it.

    `caching`: how long browsers may use their copy without revalidating it.
    """
    size, blobs = await files.size(digest), files.blobs
    head = b"".join([chunk async for chunk in blobs.stream(digest, 0, min(16, size))])
    headers = _headers(digest, attachment_name, caching)
    if etag_matches(request.headers.get("if-none-match"), headers["ETag"]):
        return Response(b"", status_code=304, headers=headers)
    served, status = _served(request, headers, size)
    chunks = blobs.stream(digest, served.start, served.stop)
    return Stream(chunks, status_code=status, headers=headers, media_type=sniff_media_type(head))


async def source_response(request: Request[Any, Any, Any], files: BlobFiles, image: ImageView) -> Response[Any]:
    """The file of an image as received, as an attachment of its name, without folders."""
    if image.cut is None:
        return await blob_response(
            request, files, image.source, attachment_name=last_part(image.name), caching=CACHE_ONE_HOUR
        )
    headers = _headers(image.source, last_part(image.name), CACHE_ONE_HOUR)
    if etag_matches(request.headers.get("if-none-match"), headers["ETag"]):
        return Response(b"", status_code=304, headers=headers)
    for digest in (image.picture, image.cut):
        await files.size(digest)
    try:
        async with files.rebuilding:
            source = await RebuiltSource.open(files.blobs, image.source, picture=image.picture, cut=image.cut)
    except Damaged as error:
        raise BlobMissing(f"the file as received cannot be rebuilt: {error.detail}") from error
    served, status = _served(request, headers, source.size)
    chunks = source.stream(served.start, served.stop)
    return Stream(chunks, status_code=status, headers=headers, media_type="image/jpeg")  # only these are cut


def _headers(digest: Digest, attachment_name: str | None, caching: str) -> dict[str, str]:
    headers = {
        "ETag": f'"{digest}"',
        "Accept-Ranges": "bytes",
        "Cache-Control": f"private, {caching}",
        "Repr-Digest": f"sha-256=:{b64encode(bytes.fromhex(digest)).decode()}:",
    }
    if attachment_name is not None:
        headers["Content-Disposition"] = content_disposition(attachment_name)
    return headers


def _served(request: Request[Any, Any, Any], headers: dict[str, str], size: int) -> tuple[range, int]:
    """The bytes to serve, and the status; completes the headers."""
    etag = headers["ETag"]
    requested = request.headers.get("range") if request.headers.get("if-range", etag) == etag else None
    byte_range = parse_range(requested, size)
    if byte_range is not None:
        headers["Content-Range"] = f"bytes {byte_range[0]}-{byte_range[-1]}/{size}"
    served = range(size) if byte_range is None else byte_range
    headers["Content-Length"] = str(len(served))
    return served, 200 if byte_range is None else 206


def sniff_media_type(head: bytes) -> str:
    """The media type of an image by its first bytes; anything else is `application/octet-stream`."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    return next((media_type for magic, media_type in MAGIC_BYTES if head.startswith(magic)), OCTET_STREAM)


def file_responses(media_type: str = "image/*") -> Responses:
    """For the OpenAPI document: the responses of a route that serves a file."""
    return {
        **response_spec(200, bytes, "The file", media_type),
        **response_spec(206, bytes, "The requested range", media_type),
        **response_spec(304, None, "Not modified"),
        **response_spec(416, Problem, "The range begins after the end", MEDIA_TYPE),
        **problem_responses(404, 409),
    }
