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
from litestar import Request
from multipart import (  # type: ignore[import-untyped]
    MultipartError,
    MultipartSegment,
    ParserLimitReached,
    PushMultipartParser,
)

from contracts.commands import ImportedFile, StagedFile, Tags, Text
from contracts.errors import Invalid, LogFull, TooLarge, Unavailable
from contracts.ids import Digest, ImageId
from contracts.validation import describe_decode_error

T = TypeVar("T")

MAX_FILE_BYTES = 64 << 20
MAX_REQUEST_BYTES = 2 << 30
MAX_FILES = 1000
MAX_TEXT_BYTES = 16 << 20
"""Maximum size of the JSON fields of one form together."""
WRITE_CHUNK_BYTES = 1 << 20
STALE_FILE_SECONDS = 3600.0
"""Staged files older than this belong to a gateway that was killed."""


class UploadTexts(msgspec.Struct, frozen=True):
    """The captions and tags of an upload, by file name."""

    captions: dict[str, Text] = {}
    tags: dict[str, Tags] = {}


@dataclass
class Upload:
    """The content of a request: staged files, files that are too large, and texts."""

    files: list[StagedFile] = field(default_factory=list)
    refused: list[ImportedFile] = field(default_factory=list)
    texts: UploadTexts = field(default_factory=UploadTexts)

    def files_with_texts(self) -> list[StagedFile]:
        """The staged files with the caption and tags given for their name."""
        return [
            msgspec.structs.replace(
                file, caption=self.texts.captions.get(file.name), tags=self.texts.tags.get(file.name, ())
            )
            for file in self.files
        ]


class Staging:
    """The folder from which the catalog ingests uploaded files. A request's files are removed when it ends."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

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
        upload = Upload()
        texts: dict[str, bytes] = {}
        async with _read_parts(request) as parts:
            async for segment, chunks in parts:
                if segment.name == "files" and segment.filename:
                    if len(tokens) >= MAX_FILES:
                        raise TooLarge(f"more than {MAX_FILES} files in one request; send them in several")
                    await self._stage(segment.filename, chunks, upload, tokens)
                elif segment.name in ("captions", "tags"):
                    texts[segment.name] = await _read_limited(chunks, MAX_TEXT_BYTES - sum(map(len, texts.values())))
                else:
                    raise Invalid(f"the form fields are files, captions and tags, not {segment.name!r}")
        if not upload.files and not upload.refused:
            raise Invalid("the request contains no file; send at least one in the field `files`")
        upload.texts = _decode_texts(texts)
        return upload

    async def _stage(self, name: str, chunks: AsyncIterator[bytes], upload: Upload, tokens: list[str]) -> None:
        token = secrets.token_hex(16)
        tokens.append(token)
        name = name[-1000:]
        try:
            digest, size = await _write_file(self._folder / token, chunks)
        except OSError as error:
            if error.errno == 28:  # ENOSPC
                raise LogFull("the disk of the staging folder is full") from error
            raise Unavailable(f"the staging folder cannot be written to: {error.strerror}") from error
        if size > MAX_FILE_BYTES:
            (self._folder / token).unlink(missing_ok=True)
            upload.refused.append(_too_large_result(name))
        else:
            upload.files.append(StagedFile(token=token, name=name, digest=digest, size=size))

    def _remove(self, tokens: Sequence[str]) -> None:
        for token in tokens:
            (self._folder / token).unlink(missing_ok=True)


@asynccontextmanager
async def _read_parts(
    request: Request[Any, Any, Any],
) -> AsyncIterator[AsyncIterator[tuple[MultipartSegment, AsyncIterator[bytes]]]]:
    """The parts of the form; each must be read to its end before the next."""
    boundary = _boundary(request.headers.get("content-type", ""))
    try:
        with PushMultipartParser(boundary, max_segment_count=MAX_FILES + 3, strict=False) as parser:
            yield _split_parts(_parse(parser, request))
    except ParserLimitReached as error:
        raise TooLarge(f"the form has too many parts; the maximum is {MAX_FILES} files") from error
    except MultipartError as error:
        raise Invalid(f"the form is malformed: {error}") from error


async def _parse(
    parser: PushMultipartParser, request: Request[Any, Any, Any]
) -> AsyncIterator[MultipartSegment | bytes | None]:
    async for chunk in request.stream():
        if chunk:
            for event in parser.parse(chunk):
                yield bytes(event) if isinstance(event, bytearray | memoryview) else event


async def _split_parts(
    events: AsyncIterator[MultipartSegment | bytes | None],
) -> AsyncIterator[tuple[MultipartSegment, AsyncIterator[bytes]]]:
    async def body() -> AsyncIterator[bytes]:
        async for event in events:
            if event is None:
                return
            assert isinstance(event, bytes)  # noqa: S101 - for the type checker; a part's body is bytes
            yield event

    async for event in events:
        if isinstance(event, MultipartSegment):
            yield event, body()


def _boundary(content_type: str) -> str:
    for option in content_type.split(";")[1:]:
        name, _, value = option.strip().partition("=")
        if name.lower() == "boundary" and 0 < len(value.strip('"')) <= 70:
            return value.strip('"')
    raise Invalid("Content-Type has no boundary")


async def _write_file(file: Path, chunks: AsyncIterator[bytes]) -> tuple[Digest, int]:
    """Digest and size. Above the size limit bytes are only counted, so that the remaining files can be received."""
    sha256, size = hashlib.sha256(), 0
    buffer = bytearray()
    with await asyncio.to_thread(file.open, "xb") as out:
        async for chunk in chunks:
            size += len(chunk)
            if size <= MAX_FILE_BYTES:
                buffer += chunk
            if len(buffer) >= WRITE_CHUNK_BYTES:
                await asyncio.to_thread(_write_chunk, out, sha256, bytes(buffer))
                buffer.clear()
        await asyncio.to_thread(_write_chunk, out, sha256, bytes(buffer))
    return Digest(sha256.hexdigest()), size


def _write_chunk(out: BinaryIO, sha256: Any, chunk: bytes) -> None:
    sha256.update(chunk)
    out.write(chunk)


async def _read_limited(chunks: AsyncIterator[bytes], limit: int) -> bytes:
    text = bytearray()
    async for chunk in chunks:
        text += chunk
        if len(text) > limit:
            raise TooLarge(f"captions and tags of one request may have at most {MAX_TEXT_BYTES >> 20} MiB")
    return bytes(text)


def _decode_texts(fields: dict[str, bytes]) -> UploadTexts:
    return UploadTexts(
        captions=_decode_field("captions", fields, dict[str, Text]), tags=_decode_field("tags", fields, dict[str, Tags])
    )


def _decode_field(name: str, fields: dict[str, bytes], kind: type[T]) -> T:
    try:
        return msgspec.json.decode(fields.get(name, b"{}"), type=kind)
    except msgspec.DecodeError as error:
        raise Invalid(describe_decode_error(error, parent=name)) from error


def _too_large_result(name: str) -> ImportedFile:
    detail = f"the file is larger than {MAX_FILE_BYTES >> 20} MiB"
    return ImportedFile(name=name, outcome="refused", image=ImageId(""), reason="too-large", detail=detail)
