"""Reads what is exported, before the first byte is sent: whatever is missing is noticed while it can be answered."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from functools import partial

import msgspec

from contracts.errors import BlobMissing, LoratoryError, Lost, NotFound, TooLarge
from contracts.ids import Digest
from contracts.queries.exports import ExportEntry, ReadExport
from contracts.tag_style import DEFAULT_STYLE
from gateway.clients import CatalogClient
from gateway.exports.compressed_lines import CompressedLines
from gateway.exports.file_names import UniqueStems
from gateway.exports.layout import MASK_SUFFIX, ImageLine, Layout, LeftOut, Origin, Summary
from gateway.exports.overlay import Overlay
from gateway.http.files import BlobFiles

MAX_PLAN_BYTES = 32 << 20
"""Maximum memory of a plan, which is compressed: some 200,000 images with usual texts."""
CONCURRENT_CHECKS = 16
"""Pictures that are looked up at once in an object store."""
FORMAT_VERSION = b"4"
"""Part of the ETag: of equal content an export has equal bytes as long as this does not change."""


class PlannedImage(msgspec.Struct, frozen=True, kw_only=True):
    """An image, and the name of its files without extension."""

    stem: str
    line: ImageLine


@dataclass(kw_only=True)
class Plan:
    """All that an export contains, but the bytes of the pictures; `trigger` is that of the texts.

    `separator`: that of the text settings, as read with the images.
    """

    layout: Layout
    origin: Origin
    overlay: Overlay
    trigger: str
    separator: str = DEFAULT_STYLE.separator
    count: int = 0
    several_lines: int = 0
    left_out: list[LeftOut] = field(default_factory=list)
    lines: CompressedLines = field(default_factory=CompressedLines)
    hashed: "hashlib._Hash" = field(default_factory=partial(hashlib.sha256, FORMAT_VERSION))

    @property
    def etag(self) -> str:
        """A digest of all that the bytes of the export depend on."""
        return hashlib.sha256(self.hashed.digest() + _encode(self.layout) + _encode(self.summary([]))).hexdigest()

    def images(self) -> Iterator[PlannedImage]:
        """By ordinal."""
        return map(_decode, self.lines)

    def summary(self, left_out: list[LeftOut]) -> Summary:
        """`left_out`: what was erased since."""
        return Summary(
            format=self.layout.format,
            origin=self.origin,
            trigger=self.trigger,
            overlay=self.overlay,
            separator=self.separator,
            images=self.count - len(left_out),
            several_lines=self.several_lines,
            left_out=(*self.left_out, *left_out),
        )


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(PlannedImage).decode


@dataclass(kw_only=True)
class Planner:
    """Makes the plan of one export."""

    catalog: CatalogClient
    files: BlobFiles
    plan: Plan

    async def read(self, query: ReadExport) -> None:
        """Fill the plan. BlobMissing, Lost: a picture is missing. TooLarge: it does not fit in memory."""
        plan, stems = self.plan, UniqueStems()
        async for entries in self._pages(query):
            erased = await self._check_pictures(entries)
            for entry in entries:
                image = plan_image(entry, plan, stems, is_erased=entry.ordinal in erased)
                if image is None:
                    continue
                content = _encode(image)
                plan.hashed.update(content)
                plan.lines.append(content)
            if plan.lines.size > MAX_PLAN_BYTES:
                raise TooLarge("this is too much for one export; export it in parts, each with a filter")
        plan.lines.finish()

    async def _pages(self, query: ReadExport) -> AsyncIterator[tuple[ExportEntry, ...]]:
        while True:
            page = await self.catalog.query(query)
            yield page.items
            if page.next is None:
                return
            query = msgspec.structs.replace(query, cursor=page.next)

    async def _check_pictures(self, entries: tuple[ExportEntry, ...]) -> set[int]:
        """The ordinals of images that were erased. A manifest is of use without its pictures."""
        erased = {entry.ordinal for entry in entries if entry.erased}
        if self.plan.layout.format == "manifest":
            return erased
        slots = asyncio.Semaphore(CONCURRENT_CHECKS)

        async def is_erased(entry: ExportEntry) -> bool:
            async with slots:
                sizes = [await blob_size(self.files, entry, blob) for blob in blobs_of(entry)]
                return None in sizes

        present = [entry for entry in entries if entry.ordinal not in erased]
        gone = await asyncio.gather(*map(is_erased, present))
        return erased | {entry.ordinal for entry, is_gone in zip(present, gone, strict=True) if is_gone}


def plan_image(entry: ExportEntry, plan: Plan, stems: UniqueStems, *, is_erased: bool) -> PlannedImage | None:
    """One image of the plan, which counts it; none if it is left out. Rejected: its tags cannot be written so."""
    if is_erased:
        plan.left_out.append(LeftOut(ordinal=entry.ordinal, image=entry.image))
        if plan.layout.format != "manifest":
            return None
    tags = plan.overlay.tags(entry.tags)
    text = "" if is_erased else plan.overlay.text(plan.trigger, tags, entry)
    plan.separator = entry.style.separator
    plan.count += not is_erased
    plan.several_lines += len(text.splitlines()) > 1
    line = ImageLine(
        ordinal=entry.ordinal,
        image=entry.image,
        name=entry.name,
        picture=entry.picture,
        source=entry.source,
        width=entry.width,
        height=entry.height,
        size=entry.size,
        tags=tags,
        caption=entry.caption,
        caption_source=entry.caption_source,
        training_text=text,
        caption_lost=entry.caption_lost,
        erased=is_erased,
        repeats=entry.repeats,
        mask=entry.mask,
        received=msgspec.UNSET if plan.origin.version is not None else entry.received,
    )
    suffixes = () if entry.mask is None else (MASK_SUFFIX,)
    return PlannedImage(stem=stems.add(entry.name, entry.ordinal, *suffixes), line=line)


def blobs_of(image: ExportEntry | ImageLine) -> list[Digest]:
    """Its picture, then its mask if it has one."""
    return [image.picture] if image.mask is None else [image.picture, image.mask]


async def blob_size(files: BlobFiles, image: ExportEntry | ImageLine, blob: Digest) -> int | None:
    """In bytes; none if the image was erased. BlobMissing, Lost: the blob is missing; the error names the image."""
    try:
        return await files.size(blob)
    except NotFound:
        return None
    except (BlobMissing, Lost) as error:
        raise _about(error, image, "picture" if blob == image.picture else "mask") from error


def _about(error: LoratoryError, image: ExportEntry | ImageLine, what: str) -> LoratoryError:
    return type(error)(f"the {what} of image {image.image!r} cannot be exported: {error.detail}", image=image.image)
