"""Image import: the decoder examines the files, their blobs are stored, then the whole command is one commit."""

import asyncio
import shutil
import tempfile
from collections.abc import Iterable, Sequence
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
from catalog.ingest.outcomes import Refused
from catalog.ingest.pool import Decoder
from catalog.lookup import require_dataset
from catalog.service.blob_pins import BlobPins
from catalog.service.context import CommandContext
from catalog.service.execution import Change, CommandOutcome
from catalog.service.locks import Scope
from catalog.text_readings import ReceivedImage
from catalog.views import datasets, images, live_blobs
from catalog.watch.absent_keys import AbsentKeys, keys_of
from catalog.watch.losses import keys_missing
from contracts.commands.base import CommandMetadata, CommandResult
from contracts.commands.datasets import ImportImages, ImportResult, StagedFile
from contracts.errors import Behind, Gone, NotFound, Unavailable
from contracts.events.base import ReadAs
from contracts.events.datasets import ImageAdded, ImageRefused
from contracts.ids import DatasetId, Digest, ImageId, derived
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
                    events = await self._examine_all(zip(ids, command.files, strict=True), Path(folder), pinned)
            keys = await context.keys.create_keys(ids)
            if absent := set(ids) - keys.keys():
                if absent - await context.keys.erased_among(absent):
                    raise keys_missing(absent)
                raise Gone("images that this request imported before were erased; send it as a new request")
            files = [
                _sealed(event, keys[event.image_id], file) for event, file in zip(events, command.files, strict=True)
            ]
            result = await context.executor.execute(metadata, Scope((dataset_id,)), decide)
        await self._delete_unused_blobs(context, unused_blobs)
        return result

    async def _examine_all(
        self, files: Iterable[tuple[ImageId, StagedFile]], folder: Path, pinned: AsyncExitStack
    ) -> list[ImageAdded | ImageRefused]:
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

    async def _examine(
        self, image: ImageId, file: StagedFile, folder: Path, pinned: AsyncExitStack
    ) -> ImageAdded | ImageRefused:
        """The file's event, still without name and ordinal; the blobs it names are stored and pinned."""
        staged = self.staging / file.token
        if not staged.is_file():
            raise NotFound(f"the upload {file.token!r} is not in the staging folder; send it again")
        found = await self.decoder.examine(staged, into=folder)
        if isinstance(found, Refused):
            return ImageRefused(image_id=image, name=NO_NAME, reason=found.reason, detail=found.detail, size=file.size)
        digests = (found.cut_sha256 or found.sha256, found.picture_sha256, found.thumbnail_sha256)
        await pinned.enter_async_context(self.pins.pin(digests))
        # Blobs are stored before any event names them.
        stored = await self.blobs.put(found.cut_path or staged)
        picture = stored if found.source_is_picture else await self.blobs.put(found.picture_path)
        return compose(
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


async def _decide(
    context: CommandContext, dataset_id: DatasetId, files: Sequence[rules.ExaminedFile], read_as: ReadAs
) -> tuple[datasets.DatasetRow, rules.ImportDecision]:
    row, duplicates = await context.read(partial(_read_duplicates, dataset_id, files))
    keys, absent = await keys_of(context.executor.store, context.keys, (found.row.id for found in duplicates))
    known = {found.row.pixels: _known(found, keys.get(found.row.id), absent) for found in duplicates}
    return row, rules.decide(row.next_ordinal, known, files, read_as)


def _read_duplicates(
    dataset_id: DatasetId, files: Sequence[rules.ExaminedFile], connection: Connection
) -> tuple[datasets.DatasetRow, list[ReceivedImage]]:
    row = require_dataset(connection, dataset_id)
    pixels = [file.event.pixels for file in files if isinstance(file.event, ImageAdded)]
    found = (images.find_duplicate(connection, row.id, digest) for digest in pixels)
    rows = {duplicate.ordinal: duplicate for duplicate in found if duplicate is not None}
    return row, text_readings.load(connection, row.id, list(rows.values()))


def with_file_names(result: ImportResult, files: Sequence[StagedFile]) -> ImportResult:
    """The result with the files' names taken from the command."""
    named_files = (
        msgspec.structs.replace(file_result, name=rules.display_name(file.name))
        for file_result, file in zip(result.files, files, strict=False)
    )
    return msgspec.structs.replace(result, files=tuple(named_files))


def remove_stale_work_folders(staging: Path) -> None:
    """Delete what the imports of a killed catalog left behind. Call it before the first import of this process."""
    for folder in staging.glob(f"{WORK_FOLDER_PREFIX}*"):
        shutil.rmtree(folder, ignore_errors=True)


def _sealed(event: ImageAdded | ImageRefused, key: bytes, file: StagedFile) -> rules.ExaminedFile:
    event = msgspec.structs.replace(event, name=seal(key, rules.display_name(file.name), NAME))
    return rules.ExaminedFile(event=event, key=key, caption=file.caption, tags=file.tags, text=file.text)


def _known(duplicate: ReceivedImage, key: bytes | None, absent: AbsentKeys) -> rules.KnownImage:
    row, accepted = duplicate.row, {loss.id for loss in absent.accepted}
    return rules.KnownImage(
        image=row.id,
        ordinal=row.ordinal,
        blobs=row.blobs,
        key=key,
        has_caption=row.caption is not None,
        no_key="key-missing" if row.id in absent.missing else "lost" if row.id in accepted else None,
        text=None if key is None else duplicate.state(key),
    )
