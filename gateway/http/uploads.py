"""Uploads: a multipart body is streamed into the staging folder, size-limited and hashed, and removed afterwards."""

import asyncio
import hashlib
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import msgspec
import multipart  # type: ignore[import-untyped]
from litestar import Request

from contracts.commands.base import Tags, Text
from contracts.commands.datasets import ImportedFile, StagedFile
from contracts.errors import Invalid, LogFull, TooLarge, Unavailable
from contracts.ids import Digest, ImageId
from contracts.validation import describe_decode_error
from contracts.wire.system.files import NO_SPACE
from gateway.limits import UPLOAD_LIMITS, UploadLimits

T = TypeVar("T")

MAX_REQUEST_BYTES = 2 << 30
WRITE_CHUNK_BYTES = 1 << 20
STALE_FILE_SECONDS = 3600.0
"""Staged files older than this belong to a gateway that was killed."""


@dataclass
class Upload:
    """The content of a request: staged files with their captions and tags, and files that are too large."""

    files: list[StagedFile] = field(default_factory=list)
    refused: list[ImportedFile] = field(default_factory=list)


class Staging:
    """The folder from which the catalog ingests uploaded files. A request's files are removed when it ends."""

    def __init__(self, folder: Path, limits: UploadLimits = UPLOAD_LIMITS) -> None:
        self._folder = folder
        self._limits = limits

    def prepare(self) -> None:
        """Create the folder, and remove files left by a killed gateway."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for file in self._folder.iterdir():
            with suppress(FileNotFoundError):
                if file.is_file() and time.time() - file.stat().st_mtime > STALE_FILE_SECONDS:
                    file.unlink()

    @asynccontextmanager
    async def receive(self, request: Request[Any, Any, Any]) -> AsyncIterator[Upload]:
        """The request's files, which exist until the block ends. Invalid: not a form of files."""
        tokens: list[str] = []
        try:
            yield await self._receive(request, tokens)
        finally:
            await asyncio.to_thread(self._remove, tokens)

    async def _receive(self, request: Request[Any, Any, Any], tokens: list[str]) -> Upload:
        upload, texts, limits = Upload(), dict[str, bytes](), self._limits
        async for segment, chunks in _split_parts(_parse(request, limits.files)):
            if segment.name == "files" and segment.filename:
                if len(tokens) >= limits.files:
                    raise TooLarge(f"more than {limits.files} files in one request; send them in several")
                await self._stage(segment.filename, chunks, upload, tokens)
            elif segment.name in ("captions", "tags"):
                texts[segment.name] = await _read_limited(chunks, limits.text_bytes, sum(map(len, texts.values())))
            else:
                raise Invalid(f"the form fields are files, captions and tags, not {segment.name!r}")
        if not upload.files and not upload.refused:
            raise Invalid("the request contains no file; send at least one in the field `files`")
        upload.files = with_texts(upload.files, texts)
        return upload

    async def _stage(self, name: str, chunks: AsyncIterator[bytes], upload: Upload, tokens: list[str]) -> None:
        name, token, limit = name[-1000:], secrets.token_hex(16), self._limits.file_bytes
        tokens.append(token)
        try:
            digest, size = await _write_file(self._folder / token, chunks, limit)
        except OSError as error:
            if error.errno in NO_SPACE:
                raise LogFull("the disk of the staging folder is full") from error
            raise Unavailable(f"the staging folder cannot be written to: {error.strerror}") from error
        if size <= limit:
            upload.files.append(StagedFile(token=token, name=name, digest=digest, size=size))
            return
        (self._folder / token).unlink(missing_ok=True)
        detail = f"the file is larger than {limit >> 20} MiB"
        upload.refused.append(
            ImportedFile(name=name, outcome="refused", image=ImageId(""), reason="too-large", detail=detail)
        )

    def _remove(self, tokens: Sequence[str]) -> None:
        for token in tokens:
            (self._folder / token).unlink(missing_ok=True)


async def _parse(request: Request[Any, Any, Any], max_files: int) -> AsyncIterator[Any]:
    """The parser's events: the header of a part, its bytes in chunks, None at its end."""
    _, options = multipart.parse_options_header(request.headers.get("content-type", ""))
    if not 0 < len(options.get("boundary", "")) <= 70:
        raise Invalid("Content-Type has no boundary")
    stream = request.stream()
    try:
        parser = multipart.PushMultipartParser(options["boundary"], max_segment_count=max_files + 3)
        async for event in parser.parse_async(lambda _size: anext(stream, b"")):
            yield event
    except multipart.ParserLimitReached as error:
        raise TooLarge(f"the form has too many parts; the maximum is {max_files} files") from error
    except multipart.MultipartError as error:
        raise Invalid(f"the form is malformed: {error}") from error


async def _split_parts(
    events: AsyncIterator[Any],
) -> AsyncIterator[tuple[multipart.MultipartSegment, AsyncIterator[bytes]]]:
    """The parts of the form; each must be read to its end before the next."""

    async def body() -> AsyncIterator[bytes]:
        async for chunk in events:
            if chunk is None:
                return
            yield bytes(chunk)

    async for segment in events:
        yield segment, body()


async def _write_file(file: Path, chunks: AsyncIterator[bytes], limit: int) -> tuple[Digest, int]:
    """Digest and size. Above the limit bytes are only counted, so that the remaining files can be received."""
    sha256, size = hashlib.sha256(), 0
    buffer = bytearray()
    with await asyncio.to_thread(file.open, "xb") as out:
        async for chunk in chunks:
            size += len(chunk)
            if size <= limit:
                buffer += chunk
            if len(buffer) >= WRITE_CHUNK_BYTES:
                await asyncio.to_thread(_write_chunk, out, sha256, bytes(buffer))
                buffer.clear()
        await asyncio.to_thread(_write_chunk, out, sha256, bytes(buffer))
    return Digest(sha256.hexdigest()), size


def _write_chunk(out: BinaryIO, sha256: Any, chunk: bytes) -> None:
    sha256.update(chunk)
    out.write(chunk)


async def _read_limited(chunks: AsyncIterator[bytes], limit: int, already: int) -> bytes:
    text = bytearray()
    async for chunk in chunks:
        text += chunk
        if already + len(text) > limit:
            raise TooLarge(f"captions and tags of one request may have at most {limit >> 20} MiB")
    return bytes(text)


def with_texts(files: list[StagedFile], texts: dict[str, bytes]) -> list[StagedFile]:
    """The files with the caption and tags that the JSON fields of the form give for their name."""
    captions, tags = _decode_field("captions", texts, dict[str, Text]), _decode_field("tags", texts, dict[str, Tags])
    return [
        msgspec.structs.replace(file, caption=captions.get(file.name), tags=tags.get(file.name, ())) for file in files
    ]


def _decode_field(name: str, texts: dict[str, bytes], kind: type[T]) -> T:
    try:
        return msgspec.json.decode(texts.get(name, b"{}"), type=kind)
    except msgspec.DecodeError as error:
        raise Invalid(describe_decode_error(error, parent=name)) from error
