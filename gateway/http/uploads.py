"""Uploads: a multipart body is streamed into the staging folder, size-limited and hashed, and removed afterwards."""

import asyncio
import hashlib
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast, get_args

import msgspec
import multipart  # type: ignore[import-untyped]
from litestar import Request

from contracts.commands.base import Repeats, Tags, Text
from contracts.commands.datasets import ImportedFile, StagedFile, StagedMask
from contracts.errors import Invalid, LogFull, TooLarge, Unavailable
from contracts.events.base import ReadAs
from contracts.ids import Digest, ImageId
from contracts.image_names import MAX_NAME_CHARACTERS, image_name
from contracts.validation import describe_decode_error
from contracts.wire.system.files import NO_SPACE
from gateway.limits import UPLOAD_LIMITS, UploadLimits

MAX_REQUEST_BYTES = 2 << 30
WRITE_CHUNK_BYTES = 1 << 20
FIELDS = ("captions", "tags", "texts", "repeats", "read_as")
"""Of the form, beside `files` and `masks`."""
NAMES = {"captions": "caption", "tags": "tags", "texts": "text", "repeats": "repeats"}
"""The fields with a value for each file, and the names of these in the command."""
KINDS: dict[str, Any] = {"caption": Text, "tags": Tags, "text": Text, "repeats": Repeats}
SAME_NAME_ADVICE = "name files by their paths, or send them in several requests"
MAX_UNMATCHED = 100
STALE_FILE_SECONDS = 3600.0
"""Staged files older than this belong to a gateway that was killed."""


@dataclass
class Upload:
    """The content of a request: staged files with their texts, and files that cannot be taken, each with the reason.

    `masks` by the name of the picture's file. `unmatched`: names in `captions`, `tags`, `texts`, `repeats` or `masks`
    that no file of the request has.
    """

    files: list[StagedFile] = field(default_factory=list)
    masks: dict[str, list[StagedMask]] = field(default_factory=dict)
    refused: list[ImportedFile] = field(default_factory=list)
    unmatched: list[str] = field(default_factory=list)
    read_as: ReadAs | None = None

    def refuse(self, name: str, reason: str, detail: str) -> None:
        refused = ImportedFile(
            name=image_name(name), outcome="refused", image=ImageId(""), reason=reason, detail=detail
        )
        self.refused.append(refused)


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
            if segment.name in {"files", "masks"} and segment.filename:
                if len(tokens) >= limits.files:
                    raise TooLarge(f"more than {limits.files} files in one request; send them in several")
                await self._stage(segment, chunks, upload, tokens)
            elif segment.name in FIELDS:
                texts[segment.name] = await _read_limited(chunks, limits.text_bytes, sum(map(len, texts.values())))
            else:
                raise Invalid(f"the form fields are files, masks, {', '.join(FIELDS)}; not {segment.name!r}")
        if not upload.files and not upload.refused:
            raise Invalid("the request contains no file; send at least one in the field `files`")
        upload.read_as = _decode_read_as(texts.pop("read_as", None))
        add_values(upload, texts)
        return upload

    async def _stage(
        self, segment: multipart.MultipartSegment, chunks: AsyncIterator[bytes], upload: Upload, tokens: list[str]
    ) -> None:
        name, token, limit = segment.filename[-MAX_NAME_CHARACTERS:], secrets.token_hex(16), self._limits.file_bytes
        tokens.append(token)
        try:
            digest, size = await _write_file(self._folder / token, chunks, limit)
        except OSError as error:
            if error.errno in NO_SPACE:
                raise LogFull("the disk of the staging folder is full") from error
            raise Unavailable(f"the staging folder cannot be written to: {error.strerror}") from error
        if size > limit:
            (self._folder / token).unlink(missing_ok=True)
            what = "file" if segment.name == "files" else "mask of this file"
            upload.refuse(name, "too-large", f"the {what} is larger than {limit >> 20} MiB")
        elif segment.name == "files":
            upload.files.append(StagedFile(token=token, name=name, digest=digest, size=size))
        else:
            upload.masks.setdefault(name, []).append(StagedMask(token=token, digest=digest, size=size))

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
        parser = multipart.PushMultipartParser(options["boundary"], max_segment_count=max_files + len(FIELDS) + 1)
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
            raise TooLarge(f"the texts of one request may have at most {limit >> 20} MiB")
    return bytes(text)


def add_values(upload: Upload, fields: dict[str, bytes]) -> None:
    """Give each file its mask, and what the JSON fields of the form have for its name.

    A file whose value is invalid, or of which nobody can say whether it is meant, is refused by itself.
    """
    given = {name: _decode(name, content, dict[str, msgspec.Raw]) for name, content in fields.items()}
    names = Counter(file.name for file in upload.files)
    named = dict.fromkeys(name for values in (*given.values(), upload.masks) for name in values)
    upload.unmatched = [name[:MAX_NAME_CHARACTERS] for name in named if name not in names][:MAX_UNMATCHED]
    staged, upload.files = upload.files, []
    for file in staged:
        values = {NAMES[kind]: found[file.name] for kind, found in given.items() if file.name in found}
        masks = upload.masks.get(file.name, [])
        if (count := names[file.name] if values or masks else 1) > 1:
            detail = f"{count} files of this request have this name, and its text or mask may belong to any of them"
            upload.refuse(file.name, "same-name", f"{detail}: {SAME_NAME_ADVICE}")
        elif len(masks) > 1:
            detail = f"{len(masks)} masks of this request have this name, and any of them may be meant"
            upload.refuse(file.name, "same-name", f"{detail}: {SAME_NAME_ADVICE}")
        else:
            _add_to(upload, file, values, *masks)


def _add_to(upload: Upload, file: StagedFile, values: dict[str, msgspec.Raw], mask: StagedMask | None = None) -> None:
    if "text" in values and values.keys() & {"caption", "tags"}:
        return upload.refuse(file.name, "bad-text", "a file has either a text, or a caption and tags")
    decoded: dict[str, Any] = {}
    for name, value in values.items():
        try:
            decoded[name] = _decode(name, value, KINDS[name])
        except Invalid as error:
            return upload.refuse(file.name, "bad-repeats" if name == "repeats" else "bad-text", error.detail)
    return upload.files.append(msgspec.structs.replace(file, mask=mask, **decoded))


def _decode(name: str, content: bytes | msgspec.Raw, kind: Any) -> Any:
    """Invalid: it is no JSON of this kind; the sentence begins with the name."""
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.DecodeError as error:
        raise Invalid(describe_decode_error(error, parent=name)) from error


def _decode_read_as(content: bytes | None) -> ReadAs | None:
    if content is None:
        return None
    if (text := content.decode("utf-8", "replace")) in get_args(ReadAs):
        return cast(ReadAs, text)
    raise Invalid(f"read_as is one of {', '.join(get_args(ReadAs))}; not {text[:40]!r}")
