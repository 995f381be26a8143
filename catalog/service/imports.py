"""Image import: the decoder examines the files, their blobs are stored, then the whole command is one commit."""

import asyncio
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import msgspec
import structlog

from catalog import text_readings
from catalog.database import Connection
from catalog.domain import imports as rules
from catalog.domain.compose import compose
from catalog.domain.received_texts import ReadBy
from catalog.ingest.outcomes import Refused
from catalog.ingest.pool import Decoder
from catalog.lookup import require_dataset
from catalog.service.blob_pins import BlobPins
from catalog.service.context import CommandContext, locked
from catalog.service.execution import Change, CommandOutcome
from catalog.service.locks import Scope
from catalog.text_readings import ReceivedImage
from catalog.views import datasets, images, live_blobs, repeats
from catalog.watch.absent_keys import AbsentKeys, keys_of
from catalog.watch.losses import keys_missing
from contracts.commands.base import CommandMetadata, CommandResult
from contracts.commands.datasets import (
    MAX_TEXT_BYTES_PER_IMPORT,
    ImportImages,
    ImportResult,
    ImportTexts,
    StagedFile,
    StagedMask,
)
from contracts.errors import Behind, Gone, NotFound, TooLarge, Unavailable
from contracts.events.base import ReadAs
from contracts.events.datasets import ImageAdded, ImageRefused
from contracts.ids import DatasetId, Digest, ImageId, derived
from contracts.image_names import image_name
from contracts.sealed import NAME, seal
from contracts.wire.blobs.store import Blobs

MAX_CONCURRENT_IMPORTS = 4
"""Maximum concurrent import commands; decoded pictures take disk space until they are in the blob store."""
WORK_FOLDER_PREFIX = "import-"
NO_NAME = b""
"""In place of the sealed name, until the key of the image exists."""

_log = structlog.get_logger()


@dataclass(frozen=True)
class ImageImporter:
    """Imports staged files into data sets."""

    blobs: Blobs
    decoder: Decoder
    staging: Path
    pins: BlobPins
    _slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_CONCURRENT_IMPORTS))

    async def import_images(
        self, context: CommandContext, metadata: CommandMetadata, command: ImportImages
    ) -> CommandResult:
        """Each file is added, recognised as a duplicate, or refused. The stored result lacks the files' names."""
        result = await context.executor.execute_once(
            metadata,
            lambda connection: require_dataset(connection, command.dataset).id,
            partial(self._import, context, metadata, command),
        )
        return with_file_names(result, command.files) if isinstance(result, ImportResult) else result

    async def _import(
        self, context: CommandContext, metadata: CommandMetadata, command: ImportImages, dataset_id: DatasetId
    ) -> CommandResult:
        """Files are decoded before the lock of the data set is taken."""
        ids = [ImageId(derived("img", metadata.command_id, str(number))) for number in range(len(command.files))]
        unused_blobs: set[Digest] = set()

        async def decide() -> CommandOutcome:
            nonlocal unused_blobs
            row, decision = await _decide(context, dataset_id, files, command.read_as)
            unused_blobs = decision.unused_blobs
            result = ImportResult(id=row.id, name=row.name, files=tuple(decision.files))
            change = Change("dataset", row.id, decision.events, row.revision)
            return CommandOutcome(result, [change])

        async with AsyncExitStack() as pinned:
            async with self._slots:
                with tempfile.TemporaryDirectory(prefix=WORK_FOLDER_PREFIX, dir=self.staging) as folder:
                    examined = await self._examine_all(zip(ids, command.files, strict=True), Path(folder), pinned)
            keys = await context.keys.create_keys(ids)
            if absent := set(ids) - keys.keys():
                if absent - await context.keys.erased_among(absent):
                    raise keys_missing(absent)
                raise Gone("images that this request imported before were erased; send it as a new request")
            files = [
                _sealed(found, keys[found.event.image_id], file)
                for found, file in zip(examined, command.files, strict=True)
            ]
            result = await context.executor.execute(metadata, Scope((dataset_id,)), decide)
        await self._delete_unused_blobs(context, unused_blobs)
        return result

    async def _examine_all(
        self, files: Iterable[tuple[ImageId, StagedFile]], folder: Path, pinned: AsyncExitStack
    ) -> list["_Examined"]:
        """Unavailable: a file cannot be read or a blob not be stored, which is no verdict on the picture."""
        try:
            async with asyncio.TaskGroup() as tasks:
                examinations = [tasks.create_task(self._examine(image, file, folder, pinned)) for image, file in files]
        except BaseExceptionGroup as group:
            first = group.exceptions[0]
            if isinstance(first, OSError):
                detail = f"the catalog cannot read or write its files: {first.strerror}"
                raise Unavailable(detail, service="catalog") from group
            raise first from group
        return [task.result() for task in examinations]

    async def _examine(self, image: ImageId, file: StagedFile, folder: Path, pinned: AsyncExitStack) -> "_Examined":
        """The file's event, still without name and ordinal; the blobs it names are stored and pinned."""
        staged = self._staged(file)
        found = await self.decoder.examine(staged, into=folder)
        if isinstance(found, Refused):
            return _Examined(
                ImageRefused(image_id=image, name=NO_NAME, reason=found.reason, detail=found.detail, size=file.size)
            )
        digests = (found.cut_sha256 or found.sha256, found.picture_sha256, found.thumbnail_sha256)
        await pinned.enter_async_context(self.pins.pin(digests))
        # Blobs are stored before any event names them.
        stored = await self.blobs.put(found.cut_path or staged)
        picture = stored if found.source_is_picture else await self.blobs.put(found.picture_path)
        added = compose(
            ImageAdded,
            found,
            ordinal=-1,
            image_id=image,
            source=found.sha256,
            picture=picture,
            cut=found.cut_sha256,
            thumbnail=await self.blobs.put(found.thumbnail_path),
            pixels=found.pixels_sha256,
            size=found.bytes,
            name=NO_NAME,
        )
        return _Examined(added) if file.mask is None else await self._with_mask(added, file.mask, folder, pinned)

    async def _with_mask(
        self, added: ImageAdded, mask: StagedMask, folder: Path, pinned: AsyncExitStack
    ) -> "_Examined":
        staged = self._staged(mask)
        found = await self.decoder.examine_mask(staged, into=folder, width=added.width, height=added.height)
        if isinstance(found, Refused):
            return _Examined(added, mask_problem=found.detail)
        await pinned.enter_async_context(self.pins.pin((found.sha256,)))
        return _Examined(added, mask=await self.blobs.put(found.path))

    def _staged(self, file: StagedMask) -> Path:
        """NotFound: it is gone, as its request has ended."""
        staged = self.staging / file.token
        if not staged.is_file():
            raise NotFound(f"the upload {file.token!r} is not in the staging folder; send it again")
        return staged

    async def _delete_unused_blobs(self, context: CommandContext, unused_blobs: set[Digest]) -> None:
        """Delete the blobs of duplicates: no event names them, so a later erasure would not find them."""
        if not unused_blobs:
            return
        try:
            async with self.pins.exclusive() as pinned:
                await context.executor.wait_until_applied()
                in_use = await context.read(lambda connection: live_blobs.in_use(connection, unused_blobs))
                await context.blobs.delete(unused_blobs - in_use - pinned)
        except (OSError, Unavailable, Behind) as error:
            _log.warning("unused_blobs_not_deleted", error=str(error))


@dataclass(frozen=True)
class _Examined:
    """The event of a file, the blob of its mask, or why that was not taken."""

    event: ImageAdded | ImageRefused
    mask: Digest | None = None
    mask_problem: str = ""


@dataclass(frozen=True)
class _Duplicate:
    """An image of the data set that a file shows again; `received`: what a text that comes with it is compared with."""

    row: images.ImageRow
    repeats: int
    received: ReceivedImage | None = None


async def _decide(
    context: CommandContext, dataset_id: DatasetId, files: Sequence[rules.ExaminedFile], read_as: ReadAs | None
) -> tuple[datasets.DatasetRow, rules.ImportDecision]:
    row, duplicates = await context.read(partial(_read_duplicates, dataset_id, files))
    keys, absent = await keys_of(context.executor.store, context.keys, (found.row.id for found in duplicates))
    known = {found.row.pixels: _known(found, keys.get(found.row.id), absent) for found in duplicates}
    return row, rules.decide(row.next_ordinal, known, files, _read_by(row, read_as))


def _read_duplicates(
    dataset_id: DatasetId, files: Sequence[rules.ExaminedFile], connection: Connection
) -> tuple[datasets.DatasetRow, list[_Duplicate]]:
    row = require_dataset(connection, dataset_id)
    pixels = [file.event.pixels for file in files if isinstance(file.event, ImageAdded)]
    found = (images.find_duplicate(connection, row.id, digest) for digest in pixels)
    rows = {duplicate.ordinal: duplicate for duplicate in found if duplicate is not None}
    return row, _duplicates(connection, row.id, rows, with_texts=any(file.text for file in files))


def _duplicates(
    connection: Connection, dataset_id: DatasetId, rows: Mapping[int, images.ImageRow], *, with_texts: bool
) -> list[_Duplicate]:
    loaded = text_readings.load(connection, dataset_id, list(rows.values())) if with_texts else []
    received = {image.row.ordinal: image for image in loaded}
    repeated = repeats.of_images(connection, dataset_id, rows)
    return [_Duplicate(image, repeated[ordinal], received.get(ordinal)) for ordinal, image in rows.items()]


@locked(lambda connection, command: Scope((require_dataset(connection, command.dataset).id,)))
async def import_texts(context: CommandContext, _: CommandMetadata, command: ImportTexts) -> CommandOutcome:
    """The texts that files beside images have now, where the pictures themselves need not be sent again."""
    sizes = [len(text.encode()) for text in command.texts.values()]
    if len(sizes) > 1 and sum(sizes) > MAX_TEXT_BYTES_PER_IMPORT:
        raise TooLarge(f"the texts of one import have at most {MAX_TEXT_BYTES_PER_IMPORT} bytes together")

    def read(connection: Connection) -> tuple[datasets.DatasetRow, list[_Duplicate]]:
        row = require_dataset(connection, command.dataset)
        found = [image for one in command.texts if (image := images.find(connection, one)) is not None]
        rows = {image.ordinal: image for image in found if image.dataset_id == row.id and not image.removed}
        return row, _duplicates(connection, row.id, rows, with_texts=True)

    row, found = await context.read(read)
    keys, absent = await keys_of(context.executor.store, context.keys, (image.row.id for image in found))
    known = {image.row.id: _known(image, keys.get(image.row.id), absent) for image in found}
    decision = rules.decide_texts(known, command.texts, _read_by(row, command.read_as))
    result = ImportResult(id=row.id, name=row.name, files=tuple(decision.files))
    return CommandOutcome(result, [Change("dataset", row.id, decision.events, row.revision)])


def _read_by(dataset: datasets.DatasetRow, read_as: ReadAs | None) -> ReadBy:
    if read_as is None:
        return ReadBy(read_as=dataset.text_settings.read_as)
    return ReadBy(read_as=read_as, requested=True)


def with_file_names(result: ImportResult, files: Sequence[StagedFile]) -> ImportResult:
    """The result with the files' names taken from the command."""
    named_files = (
        msgspec.structs.replace(file_result, name=image_name(file.name))
        for file_result, file in zip(result.files, files, strict=False)
    )
    return msgspec.structs.replace(result, files=tuple(named_files))


def remove_stale_work_folders(staging: Path) -> None:
    """Delete what the imports of a killed catalog left behind. Call it before the first import of this process."""
    for folder in staging.glob(f"{WORK_FOLDER_PREFIX}*"):
        shutil.rmtree(folder, ignore_errors=True)


def _sealed(found: _Examined, key: bytes, file: StagedFile) -> rules.ExaminedFile:
    return rules.ExaminedFile(
        event=msgspec.structs.replace(found.event, name=seal(key, image_name(file.name), NAME)),
        key=key,
        caption=file.caption,
        tags=file.tags,
        text=file.text,
        repeats=file.repeats,
        mask=found.mask,
        mask_problem=found.mask_problem,
    )


def _known(duplicate: _Duplicate, key: bytes | None, absent: AbsentKeys) -> rules.KnownImage:
    row, accepted = duplicate.row, {loss.id for loss in absent.accepted}
    return rules.KnownImage(
        image=row.id,
        ordinal=row.ordinal,
        blobs=row.blobs,
        key=key,
        has_caption=row.caption is not None,
        no_key="key-missing" if row.id in absent.missing else "lost" if row.id in accepted else None,
        text=None if key is None or duplicate.received is None else duplicate.received.state(key),
        repeats=duplicate.repeats,
        mask=row.mask,
    )
