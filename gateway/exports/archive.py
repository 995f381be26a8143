"""The stream of an export: a zip file that is written while it is sent, or lines of JSON."""

from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import aclosing
from zipfile import ZIP_STORED, ZipFile

import msgspec
import structlog

from contracts.errors import LoratoryError
from contracts.ids import Digest
from contracts.jpeg_cut import UPRIGHT, kept_orientation
from gateway.exports.compressed_lines import CompressedLines
from gateway.exports.layout import (
    DATASET_CONFIG,
    METADATA,
    SUMMARY,
    ImageLine,
    LeftOut,
    dataset_config,
    mask_name,
    metadata_line,
    summary_file,
)
from gateway.exports.plan import Plan, PlannedImage, blob_size, blobs_of
from gateway.exports.upright import NotTurned, Turner
from gateway.exports.zip_directory import file_info, open_directory
from gateway.http.files import BlobFiles, sniff_media_type

CHUNK_BYTES = 1 << 18
"""Small files are sent together, in chunks of at least this size."""
EXTENSIONS = {
    "image/png": "png",
    "image/jpeg": "jpg",
    "image/webp": "webp",
    "image/gif": "gif",
    "image/bmp": "bmp",
    "image/tiff": "tif",
}

_log = structlog.get_logger()


class BrokenExport(LoratoryError):
    """The export ended before its end, so that its zip file cannot be opened."""


class _Outbox:
    """The file that `zipfile` writes to. It cannot seek, so sizes follow their file and nothing is read back."""

    def __init__(self) -> None:
        self._content = bytearray()  # not a list: a directory is written in very small pieces

    @property
    def size(self) -> int:
        return len(self._content)

    def write(self, content: bytes) -> int:
        self._content += content
        return len(content)

    def flush(self) -> None:
        """What is written is taken at once."""

    def close(self) -> None:
        """Part of the protocol; `zipfile` closes only files that it has opened."""

    def take(self) -> bytes:
        content = bytes(self._content)
        self._content.clear()
        return content


class ExportStream:
    """The bytes of a planned export.

    Nothing is compressed: pictures are, and deflate differs between versions of zlib. A JPEG that keeps an orientation
    is turned, as other programs ignore it. An image that was erased since it
    was planned is left out. A picture that is missing ends the stream without the directory, which no zip file is read
    without.
    """

    def __init__(self, plan: Plan, files: BlobFiles, turner: Turner) -> None:
        self._plan, self._files, self._turner = plan, files, turner
        self._outbox = _Outbox()
        self._left_out: list[LeftOut] = []
        self._metadata, self._lines = CompressedLines(), CompressedLines()
        self._repeats: set[int] = set()
        """Those of the pictures that were written."""
        self._has_masks = False

    async def lines(self) -> AsyncGenerator[bytes, None]:
        """A manifest."""
        for image in self._plan.images():
            self._outbox.write(msgspec.json.encode(image.line) + b"\n")
            if self._outbox.size >= CHUNK_BYTES:
                yield self._outbox.take()
        yield self._outbox.take()

    async def zip(self) -> AsyncGenerator[bytes, None]:
        """Pictures with their texts, by ordinal, then the other files."""
        archive = open_directory(ZipFile(self._outbox, "w", ZIP_STORED))
        for image in self._plan.images():
            async with aclosing(self._write_image(archive, image)) as written:
                async for _ in written:
                    yield self._outbox.take()
        for _ in self._write_files(archive):
            yield self._outbox.take()
        archive.close()
        yield self._outbox.take()

    async def _write_image(self, archive: ZipFile, image: PlannedImage) -> AsyncGenerator[None, None]:
        """Yields when there is enough to be sent."""
        line = image.line
        sizes = [await blob_size(self._files, line, blob) for blob in blobs_of(line)]
        if None in sizes:
            self._left_out.append(LeftOut(ordinal=line.ordinal, image=line.image))
            await _log.awarning("export_left_out_erased_image", image_id=line.image)
            return
        layout, written = self._plan.layout, list[str]()
        folders = layout.folder_of(line.repeats), layout.mask_folder_of(line.repeats)
        for blob, size, folder in zip(blobs_of(line), sizes, folders, strict=False):
            async with aclosing(self._upright(line, blob, size or 0)) as chunks:
                first = await anext(chunks, b"")
                extension = EXTENSIONS.get(sniff_media_type(first[:16]), "png")
                written.append(mask_name(image.stem) if written else f"{image.stem}.{extension}")
                with archive.open(file_info(folder + written[-1], size or 0), "w") as entry:
                    entry.write(first)
                    async for chunk in chunks:
                        yield
                        entry.write(chunk)
        self._write_texts(archive, image, *written)
        if self._outbox.size >= CHUNK_BYTES:
            yield

    async def _upright(self, line: ImageLine, blob: Digest, size: int) -> AsyncGenerator[bytes, None]:
        """The one place that reads pictures of exports: as they are stored, but upright. BrokenExport."""
        async with aclosing(self._stored(line, blob, size)) as stored:
            first = await anext(stored, b"")
            if kept_orientation(first) == UPRIGHT:
                yield first
                async for chunk in stored:
                    yield chunk
                return
            async with aclosing(self._turner.turn(_chain(first, stored))) as turned:
                try:
                    async for chunk in turned:
                        yield chunk
                except NotTurned as error:
                    raise BrokenExport(f"the picture of image {line.image!r} is not upright: {error.detail}") from error

    async def _stored(self, line: ImageLine, blob: Digest, size: int) -> AsyncGenerator[bytes, None]:
        sent = 0
        async with aclosing(self._files.blobs.stream(blob)) as chunks:
            async for chunk in chunks:
                sent += len(chunk)
                yield chunk
        if sent != size:
            raise BrokenExport(f"the blob {blob[:12]} of image {line.image!r} has {sent} bytes instead of {size}")

    def _write_texts(self, archive: ZipFile, image: PlannedImage, file_name: str, mask: str | None = None) -> None:
        layout, text = self._plan.layout, image.line.training_text
        self._repeats.add(image.line.repeats)
        self._has_masks |= mask is not None
        # No file for no text: sd-scripts refuses an empty one, and then uses the class.
        if layout.has_sidecars and text:
            _write(archive, f"{layout.folder_of(image.line.repeats)}{image.stem}.txt", text.encode())
        if layout.format == "imagefolder":
            self._metadata.append(metadata_line(file_name, image.line, mask))
        file = layout.folder_of(image.line.repeats) + file_name
        self._lines.append(msgspec.json.encode(msgspec.structs.replace(image.line, file=file)))

    def _write_files(self, archive: ZipFile) -> Iterator[None]:
        layout, summary = self._plan.layout, self._plan.summary(self._left_out)
        if layout.format == "imagefolder":
            self._metadata.finish()
            yield from self._write_parts(archive, METADATA, (line + b"\n" for line in self._metadata))
        if layout.format == "kohya":
            config = dataset_config(layout, summary, self._repeats or {1}, has_masks=self._has_masks)
            _write(archive, DATASET_CONFIG, config)
        self._lines.finish()
        yield from self._write_parts(archive, SUMMARY, summary_file(summary, self._lines))

    def _write_parts(self, archive: ZipFile, name: str, parts: Iterable[bytes]) -> Iterator[None]:
        """Yields when there is enough to be sent."""
        with archive.open(file_info(name, 0), "w", force_zip64=True) as entry:
            for part in parts:
                entry.write(part)
                if self._outbox.size >= CHUNK_BYTES:
                    yield


async def _chain(first: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    yield first
    async for chunk in rest:
        yield chunk


def _write(archive: ZipFile, name: str, content: bytes) -> None:
    with archive.open(file_info(name, len(content)), "w") as entry:
        entry.write(content)
