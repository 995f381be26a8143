"""Uploads: a multipart body streamed into the staging folder, bounded and hashed on the way, and cleared away after."""

import asyncio
import hashlib
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

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

FILE_BYTES = 64 << 20
REQUEST_BYTES = 2 << 30
MOST_FILES = 1000
WORDS_BYTES = 16 << 20
"""The JSON fields beside the files, all of them together."""
PIECE = 1 << 20
LEFT_SECONDS = 3600.0
"""Staged files older than this belong to a gateway that was killed."""


class Words(msgspec.Struct, frozen=True):
    """The texts beside the files, by file name."""

    captions: dict[str, Text] = {}
    tags: dict[str, Tags] = {}


@dataclass
class Upload:
    """What a request brought: staged files, files that were too large to take, and words."""

    files: list[StagedFile] = field(default_factory=list)
    refused: list[ImportedFile] = field(default_factory=list)
    words: Words = field(default_factory=Words)

    def with_words(self) -> list[StagedFile]:
        """The staged files with the caption and tags that came under their name."""
        return [
            msgspec.structs.replace(
                file, caption=self.words.captions.get(file.name), tags=self.words.tags.get(file.name, ())
            )
            for file in self.files
        ]


class Staging:
    """The folder that the catalog takes uploaded files from. Nothing of a request stays in it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def prepare(self) -> None:
        """Make the folder, and clear away what a killed gateway left."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for file in self._folder.iterdir():
            with suppress(FileNotFoundError):
                if file.is_file() and time.time() - file.stat().st_mtime > LEFT_SECONDS:
                    file.unlink()

    @asynccontextmanager
    async def received(self, request: Request[Any, Any, Any]) -> AsyncIterator[Upload]:
        """The request's files, there for as long as the block lasts. Invalid: it is no form of files."""
        tokens: list[str] = []
        try:
            yield await self._receive(request, tokens)
        finally:
            await asyncio.to_thread(self._remove, tokens)

    async def _receive(self, request: Request[Any, Any, Any], tokens: list[str]) -> Upload:
        upload = Upload()
        words: dict[str, bytes] = {}
        async with _parts(request) as parts:
            async for segment, pieces in parts:
                if segment.name == "files" and segment.filename:
                    if len(tokens) >= MOST_FILES:
                        raise TooLarge(f"more than {MOST_FILES} files in one request; send them in several")
                    await self._stage(segment.filename, pieces, upload, tokens)
                elif segment.name in ("captions", "tags"):
                    words[segment.name] = await _small(pieces, WORDS_BYTES - sum(map(len, words.values())))
                else:
                    raise Invalid(f"a form of images has the fields files, captions and tags, not {segment.name!r}")
        if not upload.files and not upload.refused:
            raise Invalid("there is no file in this request; send at least one in the field `files`")
        upload.words = _words(words)
        return upload

    async def _stage(self, name: str, pieces: AsyncIterator[bytes], upload: Upload, tokens: list[str]) -> None:
        token = secrets.token_hex(16)
        tokens.append(token)
        name = name[-1000:]
        try:
            digest, size = await _written(self._folder / token, pieces)
        except OSError as error:
            if error.errno == 28:  # ENOSPC
                raise LogFull("the disk of the staging folder is full") from error
            raise Unavailable(f"the staging folder cannot be written: {error.strerror}") from error
        if size > FILE_BYTES:
            (self._folder / token).unlink(missing_ok=True)
            upload.refused.append(_too_large(name))
        else:
            upload.files.append(StagedFile(token=token, name=name, digest=digest, size=size))

    def _remove(self, tokens: Sequence[str]) -> None:
        for token in tokens:
            (self._folder / token).unlink(missing_ok=True)


@asynccontextmanager
async def _parts(
    request: Request[Any, Any, Any],
) -> AsyncIterator[AsyncIterator[tuple[MultipartSegment, AsyncIterator[bytes]]]]:
    """The parts of the form, one after another; each must be read to its end before the next."""
    boundary = _boundary(request.headers.get("content-type", ""))
    try:
        with PushMultipartParser(boundary, max_segment_count=MOST_FILES + 3, strict=False) as parser:
            yield _split(_parsed(parser, request))
    except ParserLimitReached as error:
        raise TooLarge(f"too many parts in the form; {MOST_FILES} files are the most") from error
    except MultipartError as error:
        raise Invalid(f"the form cannot be read: {error}") from error


async def _parsed(
    parser: PushMultipartParser, request: Request[Any, Any, Any]
) -> AsyncIterator[MultipartSegment | bytes | None]:
    async for chunk in request.stream():
        if chunk:
            for event in parser.parse(chunk):
                yield bytes(event) if isinstance(event, bytearray | memoryview) else event


async def _split(
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
    raise Invalid("Content-Type names no boundary between the parts of the form")


async def _written(file: Path, pieces: AsyncIterator[bytes]) -> tuple[Digest, int]:
    """Digest and size; past the limit only the counting goes on, so that the files behind it still arrive."""
    hashed, size = hashlib.sha256(), 0
    waiting = bytearray()
    with await asyncio.to_thread(file.open, "xb") as out:
        async for piece in pieces:
            size += len(piece)
            if size <= FILE_BYTES:
                waiting += piece
            if len(waiting) >= PIECE:
                await asyncio.to_thread(_keep, out, hashed, bytes(waiting))
                waiting.clear()
        await asyncio.to_thread(_keep, out, hashed, bytes(waiting))
    return Digest(hashed.hexdigest()), size


def _keep(out: BinaryIO, hashed: Any, piece: bytes) -> None:
    hashed.update(piece)
    out.write(piece)


async def _small(pieces: AsyncIterator[bytes], limit: int) -> bytes:
    text = bytearray()
    async for piece in pieces:
        text += piece
        if len(text) > limit:
            raise TooLarge(f"captions and tags of one request may have {WORDS_BYTES >> 20} MiB at most")
    return bytes(text)


def _words(fields: dict[str, bytes]) -> Words:
    try:
        return Words(
            captions=msgspec.json.decode(fields.get("captions", b"{}"), type=dict[str, Text]),
            tags=msgspec.json.decode(fields.get("tags", b"{}"), type=dict[str, Tags]),
        )
    except msgspec.DecodeError as error:
        raise Invalid(f"the captions or tags beside the files do not fit: {error}") from error


def _too_large(name: str) -> ImportedFile:
    detail = f"the file has more than {FILE_BYTES >> 20} MiB"
    return ImportedFile(name=name, outcome="refused", image=ImageId(""), reason="too-large", detail=detail)
