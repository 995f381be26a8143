"""Image import: the decoder examines the files, their blobs are stored, then the whole command is one commit."""

import asyncio
import shutil
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import msgspec
import structlog

from catalog.database import Connection
from catalog.domain import datasets as rules
from catalog.domain.datasets import not_found
from catalog.ingest.outcomes import Accepted, Outcome, Refused
from catalog.ingest.pool import Decoder
from catalog.keys import CAPTION, NAME, Keys
from catalog.service.blob_pins import BlobPins
from catalog.service.execution import Change, CommandExecutor
from catalog.views import datasets, erasures, images
from catalog.views.datasets import DatasetRow
from catalog.views.images import ImageRow
from contracts.commands import CommandMetadata, CommandResult, ImportedFile, ImportResult, StagedFile
from contracts.errors import Behind, Gone, NotFound, Unavailable
from contracts.events import CaptionSet, DatasetEvent, ImageAdded, ImageRefused
from contracts.ids import Digest, ImageId, derived
from contracts.sealed import seal
from contracts.wire.blobs import Blobs

MAX_CONCURRENT_IMPORTS = 4
"""Maximum concurrent import commands; decoded pictures take disk space until they are in the blob store."""
WORK_FOLDER_PREFIX = "import-"

_log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class ExaminedFile:
    """A file, the decoder's outcome for it, and the digests of its blobs."""

    file: StagedFile
    image: ImageId
    outcome: Outcome
    source: Digest
    picture: Digest
    thumbnail: Digest


NO_BLOB = Digest("")
"""In place of the blobs of a refused file."""


@dataclass
class KnownImage:
    """An image of the data set, from before or from this import, that a file with the same pixels duplicates."""

    image: ImageId
    ordinal: int
    has_caption: bool
    blobs: frozenset[Digest]


@dataclass
class PendingImport:
    """What one command adds to a data set, collected file by file. `known` is keyed by the digest of the pixels."""

    next_ordinal: int
    known: dict[str, KnownImage]
    keys: dict[ImageId, bytes]
    events: list[DatasetEvent] = field(default_factory=list)
    files: list[ImportedFile] = field(default_factory=list)
    """One per file of the command, in its order, without the name: names are private, and results are stored."""
    unused_blobs: set[Digest] = field(default_factory=set)
    """Blobs that were stored and that no event will name."""


@dataclass(frozen=True)
class ImageImporter:
    """Imports staged files into data sets."""

    executor: CommandExecutor
    keys: Keys
    blobs: Blobs
    decoder: Decoder
    staging: Path
    pins: BlobPins = field(default_factory=BlobPins)
    _slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_CONCURRENT_IMPORTS))

    async def import_files(
        self, lock: str, ref: str, files: tuple[StagedFile, ...], metadata: CommandMetadata
    ) -> CommandResult:
        """Each file is added, recognised as a duplicate, or refused. Files are decoded before the lock is taken.

        The result lists the files in the order of `files`, without names: see `with_file_names`.
        """
        unused_blobs: set[Digest] = set()
        async with AsyncExitStack() as pinned:
            async with self._slots:
                with tempfile.TemporaryDirectory(prefix=WORK_FOLDER_PREFIX, dir=self.staging) as folder:
                    examined = await self._examine_all(files, Path(folder), metadata, pinned)
            keys = await self.keys.create_keys(item.image for item in examined)
            if len(keys) < len(examined):
                raise Gone("images that this request imported before were erased; send it as a new request")
            result = await self.executor.execute_once(
                metadata, lock, partial(self._append_import, ref, examined, keys, metadata, unused_blobs)
            )
        await self._delete_unused_blobs(unused_blobs)
        return result

    async def _examine_all(
        self, files: tuple[StagedFile, ...], folder: Path, metadata: CommandMetadata, pinned: AsyncExitStack
    ) -> list[ExaminedFile]:
        """Unavailable: a file cannot be read or a blob not be stored, which is no verdict on the picture."""
        try:
            async with asyncio.TaskGroup() as tasks:
                examinations = [
                    tasks.create_task(self._examine(number, file, folder, metadata, pinned))
                    for number, file in enumerate(files)
                ]
        except BaseExceptionGroup as group:
            first = group.exceptions[0]
            if isinstance(first, OSError):
                detail = f"the catalog cannot read or write its files: {first.strerror}"
                raise Unavailable(detail, service="catalog") from group
            raise first from group
        return [task.result() for task in examinations]

    async def _examine(
        self, number: int, file: StagedFile, folder: Path, metadata: CommandMetadata, pinned: AsyncExitStack
    ) -> ExaminedFile:
        image = ImageId(derived("img", metadata.command_id, str(number)))
        staged = self.staging / file.token
        if not staged.is_file():
            raise NotFound(f"the upload {file.token!r} is not in the staging folder; send it again")
        outcome = await self.decoder.examine(staged, into=folder)
        if isinstance(outcome, Refused):
            return ExaminedFile(
                file=file, image=image, outcome=outcome, source=NO_BLOB, picture=NO_BLOB, thumbnail=NO_BLOB
            )
        digests = (outcome.sha256, outcome.picture_sha256, outcome.thumbnail_sha256)
        await pinned.enter_async_context(self.pins.pin(digests))
        # Blobs are stored before any event names them.
        source = await self.blobs.put(staged)
        picture = source if outcome.source_is_picture else await self.blobs.put(outcome.picture_path)
        thumbnail = await self.blobs.put(outcome.thumbnail_path)
        return ExaminedFile(
            file=file, image=image, outcome=outcome, source=source, picture=picture, thumbnail=thumbnail
        )

    async def _delete_unused_blobs(self, unused_blobs: set[Digest]) -> None:
        """Delete the blobs of duplicates: no event names them, so a later erasure would not find them."""
        if not unused_blobs:
            return
        try:
            async with self.pins.exclusive() as pinned:
                await self.executor.wait_until_applied()
                in_use = await self.executor.store.read(
                    lambda connection: erasures.digests_in_use(connection, unused_blobs)
                )
                await self.blobs.delete(unused_blobs - in_use - pinned)
        except (OSError, Unavailable, Behind) as error:
            _log.warning("unused_blobs_not_deleted", error=str(error))

    async def _append_import(
        self,
        ref: str,
        examined: list[ExaminedFile],
        keys: dict[ImageId, bytes],
        metadata: CommandMetadata,
        unused_blobs: set[Digest],
    ) -> CommandResult:
        pixels = [item.outcome.pixels_sha256 for item in examined if isinstance(item.outcome, Accepted)]

        def read(connection: Connection) -> tuple[DatasetRow, dict[str, ImageRow]]:
            row = datasets.find(connection, ref)
            if row is None:
                raise not_found("data set", ref)
            if row.removed:
                raise Gone(f"the data set {row.name!r} was removed")
            found = {digest: images.find_duplicate(connection, row.id, digest) for digest in pixels}
            return row, {digest: duplicate for digest, duplicate in found.items() if duplicate is not None}

        row, duplicates = await self.executor.store.read(read)
        keys = keys | await self.keys.keys_of([duplicate.id for duplicate in duplicates.values()])
        known = {
            digest: KnownImage(
                duplicate.id,
                duplicate.ordinal,
                duplicate.caption is not None,
                frozenset({duplicate.source, duplicate.picture, duplicate.thumbnail}),
            )
            for digest, duplicate in duplicates.items()
        }
        pending = PendingImport(next_ordinal=row.next_ordinal, known=known, keys=keys)
        for item in examined:
            _add_outcome(pending, item)
        unused_blobs.clear()  # drop what an earlier try found that ended in a conflict
        unused_blobs.update(pending.unused_blobs)
        result = ImportResult(id=row.id, name=row.name, files=tuple(pending.files))
        if not pending.events:
            return self.executor.unchanged(result)
        return await self.executor.append(Change("dataset", row.id, pending.events, row.revision), metadata, result)


def with_file_names(result: ImportResult, files: tuple[StagedFile, ...]) -> ImportResult:
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


def _add_outcome(pending: PendingImport, examined: ExaminedFile) -> None:
    match examined.outcome:
        case Refused(reason=reason, detail=detail):
            _refuse(pending, examined, reason, detail)
        case Accepted(pixels_sha256=pixels) if pixels in pending.known:
            _add_duplicate(pending, examined, pending.known[pixels])
        case Accepted() as accepted:
            _add(pending, examined, accepted)


def _refuse(pending: PendingImport, examined: ExaminedFile, reason: str, detail: str) -> None:
    name = _seal_name(pending, examined)
    pending.events.append(
        ImageRefused(image_id=examined.image, name=name, reason=reason, detail=detail, size=examined.file.size)
    )
    pending.files.append(ImportedFile(outcome="refused", image=examined.image, reason=reason, detail=detail))


def _add_duplicate(pending: PendingImport, examined: ExaminedFile, known: KnownImage) -> None:
    """The picture exists already: no new image, but its caption is used where the image has none."""
    pending.unused_blobs.update({examined.source, examined.picture, examined.thumbnail} - known.blobs)
    remarks = [f"shows the same picture as {known.image}"]
    if examined.file.caption is not None and known.has_caption:
        remarks.append("the existing caption was kept")
    elif examined.file.caption is not None and known.image in pending.keys:
        pending.events.append(_caption_set(pending, known, examined.file.caption))
    if examined.file.tags:
        remarks.append("the tags of the file were ignored")
    detail = "; ".join(remarks)
    pending.files.append(
        ImportedFile(outcome="existing", image=known.image, ordinal=known.ordinal, reason="twin", detail=detail)
    )


def _add(pending: PendingImport, examined: ExaminedFile, accepted: Accepted) -> None:
    blobs = frozenset({examined.source, examined.picture, examined.thumbnail})
    new = pending.known[accepted.pixels_sha256] = KnownImage(
        examined.image, pending.next_ordinal, has_caption=False, blobs=blobs
    )
    pending.next_ordinal += 1
    pending.events.append(
        ImageAdded(
            ordinal=new.ordinal,
            image_id=examined.image,
            source=examined.source,
            picture=examined.picture,
            thumbnail=examined.thumbnail,
            pixels=Digest(accepted.pixels_sha256),
            dhash=accepted.dhash,
            format=accepted.format,
            width=accepted.width,
            height=accepted.height,
            size=accepted.bytes,
            name=_seal_name(pending, examined),
            animated=accepted.animated,
        )
    )
    if examined.file.caption is not None:
        pending.events.append(_caption_set(pending, new, examined.file.caption))
    tagged, detail = rules.import_tags(new.ordinal, examined.file.tags)
    if tagged is not None:
        pending.events.append(tagged)
    pending.files.append(ImportedFile(outcome="added", image=examined.image, ordinal=new.ordinal, detail=detail))


def _caption_set(pending: PendingImport, known: KnownImage, text: str) -> CaptionSet:
    known.has_caption = True
    sealed = seal(pending.keys[known.image], text, CAPTION)
    return CaptionSet(ordinal=known.ordinal, caption=sealed, source="import")


def _seal_name(pending: PendingImport, examined: ExaminedFile) -> bytes:
    return seal(pending.keys[examined.image], rules.display_name(examined.file.name), NAME)
