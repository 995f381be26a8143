"""Writes the texts of a data set back beside the pictures that it was imported from, and never over newer ones."""

import asyncio
import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import msgspec

from contracts.commands.datasets import MAX_TEXT_BYTES_PER_IMPORT, MAX_TEXTS_PER_IMPORT, ImportResult
from contracts.errors import SetupError
from contracts.events.base import TextKind
from contracts.ids import ImageId
from contracts.tag_style import SEPARATOR_PATTERN
from loratory.export import ExportOptions, TagWords, export_parameters
from loratory.http import Http, decode
from loratory.image_files import scan_folder
from loratory.text_files import NEWER, NotWritten, PictureFolder, TextSuffix, may_replace

IMAGES_AT_ONCE = 50
"""Images whose texts are written between two requests: a stop leaves at most these for the next import to settle."""


class WritingOptions(TypedDict, total=False):
    """Which texts are written, and how: `filter`, `escape`, `separator` and `words` are those of exports.

    `extension`: of new files; a picture that has a text file keeps it. `encoding`: of the present text files, where it
    is not found; what is written is UTF-8. `dry_run`: nothing is written.
    """

    filter: str | None
    escape: bool
    separator: str | None
    words: TagWords
    extension: TextSuffix
    encoding: str | None
    dry_run: bool


class WrittenText(msgspec.Struct, frozen=True, kw_only=True):
    """`text`: what an import reads of the file now."""

    picture: Path
    file: Path
    text: str


class WrittenTexts(msgspec.Struct, kw_only=True):
    """What became of the texts of a data set.

    `written`: the text of each image that was (or would be) written; `unchanged`: texts that stood there already;
    `left`: name of an image, and why its text was not written; `elsewhere`: images of no file in the folder.
    """

    written: dict[ImageId, WrittenText] = {}
    unchanged: int = 0
    left: list[tuple[str, str]] = []
    elsewhere: int = 0


class ReceivedText(NamedTuple):
    """What the text file of an image says now."""

    image: ImageId
    text: str
    kind: TextKind


class _Line(msgspec.Struct, frozen=True, kw_only=True):
    """A line of a manifest, as far as it is needed. `received`: a digest."""

    image: ImageId
    name: str
    source: str | None
    caption: str | None
    training_text: str
    erased: bool
    caption_lost: bool
    received: str | None

    @property
    def text(self) -> str:
        return self.training_text.strip()

    @property
    def as_received(self) -> ReceivedText:
        return ReceivedText(self.image, self.text, "tags" if self.caption is None else "caption")


async def write_texts(http: Http, dataset: str, folder: Path, options: WritingOptions) -> WrittenTexts:
    """`dataset`: its path on the server.

    SetupError: the folder has no pictures, or texts with this separator could not be imported again.
    """
    separator = options.get("separator")
    if separator is not None and not re.match(SEPARATOR_PATTERN, separator):
        raise SetupError(f"texts with the separator {separator!r} could not be imported again; use a comma")
    encoding = options.get("encoding")
    scan = await asyncio.to_thread(scan_folder, folder, encoding)
    lines = await _read_lines(http, dataset, options)
    writing = _Writing(PictureFolder(folder, scan, encoding), options)
    for start in range(0, len(lines), IMAGES_AT_ONCE):
        received = await asyncio.to_thread(writing.write_all, lines[start : start + IMAGES_AT_ONCE])
        await _import_texts(http, dataset, received)
    return writing.result


async def _import_texts(http: Http, dataset: str, received: Sequence[ReceivedText]) -> None:
    """Tell the server what the text files of images say now."""
    for kind in ("tags", "caption"):
        for batch in _batches([one for one in received if one.kind == kind]):
            body = {"json": {"texts": {one.image: one.text for one in batch}, "read_as": kind}}
            await http.post(f"{dataset}/texts", ImportResult, partial(dict, body))


def _batches(received: Sequence[ReceivedText]) -> Iterator[list[ReceivedText]]:
    batch: list[ReceivedText] = []
    size = 0
    for one in received:
        length = len(one.text.encode())
        if batch and (len(batch) == MAX_TEXTS_PER_IMPORT or size + length > MAX_TEXT_BYTES_PER_IMPORT):
            yield batch
            batch, size = [], 0
        batch.append(one)
        size += length
    if batch:
        yield batch


async def _read_lines(http: Http, dataset: str, options: WritingOptions) -> list[_Line]:
    """All at once: the server ends an export that nobody reads on."""
    exported: ExportOptions = {"format": "manifest", "trigger": "", "filter": options.get("filter")}
    exported |= {"words": options.get("words", "spaces"), "escape": options.get("escape", False)}
    exported |= {"separator": options.get("separator")}
    parameters: dict[str, Any] = export_parameters(exported)
    async with http.open_file(f"{dataset}/export", **parameters) as response:
        sent = f"{http.url} sent a line of a manifest"
        lines = [decode(line, _Line, sent) async for line in response.aiter_lines()]
    return [line for line in lines if not line.erased]


class _Writing:
    """Writes texts, and notes what became of each in `result`."""

    def __init__(self, folder: PictureFolder, options: WritingOptions) -> None:
        self.result = WrittenTexts()
        self._folder = folder
        self._extension: TextSuffix = options.get("extension", ".txt")
        self._dry_run = options.get("dry_run", False)

    def write_all(self, lines: Sequence[_Line]) -> list[ReceivedText]:
        """What the server has to know."""
        return [line.as_received for line in lines if self._write(line)]

    def _write(self, line: _Line) -> bool:
        """Whether the text file of the image says now what the server has not received."""
        if not self._folder.candidates(line.name):
            self.result.elsewhere += 1
            return False
        try:
            return self._write_beside(line)
        except NotWritten as reason:
            self.result.left.append((line.name, str(reason)))
            return False

    def _write_beside(self, line: _Line) -> bool:
        if line.caption_lost:
            raise NotWritten("its caption cannot be read any more")
        files = (self._folder.text_file(picture, self._extension) for picture in self._folder.candidates(line.name))
        if all(file.text == line.text and file.digest in {line.received, None} for file in files):
            self.result.unchanged += 1
            return False
        picture = self._folder.picture(line.name, line.source)
        file = self._folder.text_file(picture, self._extension)
        if file.text == line.text:
            self.result.unchanged += 1
            return file.digest is not None and not self._dry_run
        if not may_replace(file, line.received):
            raise NotWritten(NEWER)
        if not self._dry_run:
            self._folder.write(picture, file, line.text)
        self.result.written[line.image] = WrittenText(picture=picture, file=file.path, text=line.text)
        return not self._dry_run
