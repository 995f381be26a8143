"""Commands on data sets and their images, decided from the rows of the read model."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import assert_never

from catalog.database import Connection
from catalog.domain import datasets as rules
from catalog.domain.datasets import TagEditContext, not_found
from catalog.keys import CAPTION, Keys
from catalog.service.erasure import ErasureCommands
from catalog.service.execution import Change, CommandExecutor
from catalog.service.importer import ImageImporter, with_file_names
from catalog.service.versions import VersionFreezer
from catalog.views import datasets, erasures, images
from catalog.views.datasets import DatasetRow
from catalog.views.images import ImageRow
from contracts.commands import (
    CommandMetadata,
    CommandResult,
    CreateDataset,
    DatasetEnvelope,
    DatasetResult,
    EditTags,
    EraseDataset,
    EraseImage,
    FreezeVersion,
    ImageResult,
    ImportImages,
    ImportResult,
    RemoveDataset,
    RemoveImage,
    RenameDataset,
    ReplaceTags,
    SetCaption,
    SetThresholds,
)
from contracts.errors import Gone
from contracts.events import (
    DatasetCreated,
    DatasetEvent,
    DatasetRemoved,
    DatasetRenamed,
    ImagesRemoved,
    ThresholdsSet,
)
from contracts.ids import ImageId, derived
from contracts.sealed import seal
from contracts.wire.log import StreamRevision

NAMES_LOCK = "names"
"""Lock of all commands that choose a name, so that no two data sets get the same one."""


@dataclass(frozen=True)
class DatasetCommands:
    """Handles every `DatasetEnvelope`."""

    executor: CommandExecutor
    keys: Keys
    importer: ImageImporter
    versions: VersionFreezer
    erasure: ErasureCommands

    async def handle(self, envelope: DatasetEnvelope) -> CommandResult:
        result = await self.executor.previous_result(envelope.metadata) or await self._execute(envelope)
        if isinstance(envelope.command, ImportImages) and isinstance(result, ImportResult):
            return with_file_names(result, envelope.command.files)
        return result

    async def _execute(self, envelope: DatasetEnvelope) -> CommandResult:  # noqa: PLR0911 - one arm per command
        metadata = envelope.metadata
        match envelope.command:
            case CreateDataset() as command:
                return await self.executor.execute_once(metadata, NAMES_LOCK, partial(self._create, command, metadata))
            case RenameDataset() as command:
                return await self.executor.execute_once(metadata, NAMES_LOCK, partial(self._rename, command, metadata))
            case RemoveDataset(dataset=ref):
                return await self.executor.execute_once(
                    metadata, await self._lock_for(ref), partial(self._remove, ref, metadata)
                )
            case SetThresholds(dataset=ref) as command:
                return await self.executor.execute_once(
                    metadata, await self._lock_for(ref), partial(self._set_thresholds, command, metadata)
                )
            case FreezeVersion(dataset=ref, trigger=trigger):
                lock = await self._lock_for(ref)
                return await self.executor.execute_once(
                    metadata, lock, partial(self.versions.freeze, ref, trigger, metadata)
                )
            case ImportImages(dataset=ref, files=files):
                return await self.importer.import_files(await self._lock_for(ref), ref, files, metadata)
            case RemoveImage(image=image):
                lock = await self._lock_for_image(image)
                return await self.executor.execute_once(metadata, lock, partial(self._remove_image, image, metadata))
            case EraseImage(image=image):
                return await self.erasure.erase_image(image, metadata)
            case EraseDataset(dataset=ref):
                return await self.erasure.erase_dataset(ref, metadata)
            case ReplaceTags(image=image) | EditTags(image=image) as command:
                lock = await self._lock_for_image(image)
                return await self.executor.execute_once(metadata, lock, partial(self._change_tags, command, metadata))
            case SetCaption(image=image) as command:
                lock = await self._lock_for_image(image)
                return await self.executor.execute_once(metadata, lock, partial(self._set_caption, command, metadata))
            case other:
                assert_never(other)

    async def _lock_for(self, ref: str) -> str:
        return (await self.executor.store.read(lambda connection: require_dataset(connection, ref))).id

    async def _lock_for_image(self, image: ImageId) -> str:
        return (await self.executor.store.read(lambda connection: require_image(connection, image))).dataset_id

    async def _create(self, command: CreateDataset, metadata: CommandMetadata) -> CommandResult:
        name = rules.normalize_name(command.name)
        if await self.executor.store.read(lambda connection: datasets.is_name_taken(connection, name)):
            raise rules.name_taken_error(name)
        aggregate_id = derived("ds", metadata.command_id)
        event = DatasetCreated(name=name, description=command.description)
        result = DatasetResult(id=aggregate_id, name=name)
        return await self.executor.append(Change("dataset", aggregate_id, [event], StreamRevision()), metadata, result)

    async def _rename(self, command: RenameDataset, metadata: CommandMetadata) -> CommandResult:
        name = rules.normalize_name(command.name)

        def read(connection: Connection) -> tuple[DatasetRow, DatasetRow | None]:
            return require_dataset(connection, command.dataset), datasets.find(connection, name)

        row, name_owner = await self.executor.store.read(read)
        if name_owner is not None and name_owner.id != row.id:
            raise rules.name_taken_error(name)
        events = [] if name == row.name else [DatasetRenamed(name=name)]
        return await self._append_if_changed(row, events, metadata, DatasetResult(id=row.id, name=name))

    async def _remove(self, ref: str, metadata: CommandMetadata) -> CommandResult:
        row = await self.executor.store.read(lambda connection: require_dataset(connection, ref))
        return await self._append_if_changed(row, [DatasetRemoved()], metadata, DatasetResult(id=row.id, name=row.name))

    async def _set_thresholds(self, command: SetThresholds, metadata: CommandMetadata) -> CommandResult:
        row = await self.executor.store.read(lambda connection: require_dataset(connection, command.dataset))
        same = (command.general, command.character) == (row.general, row.character)
        events = [] if same else [ThresholdsSet(general=command.general, character=command.character)]
        return await self._append_if_changed(row, events, metadata, DatasetResult(id=row.id, name=row.name))

    async def _remove_image(self, image_id: ImageId, metadata: CommandMetadata) -> CommandResult:
        row, image = await self.executor.store.read(lambda connection: _require_image_and_dataset(connection, image_id))
        return await self._append_if_changed(
            row, [ImagesRemoved(images=rules.single(image.ordinal))], metadata, ImageResult(id=image.id)
        )

    async def _change_tags(self, command: ReplaceTags | EditTags, metadata: CommandMetadata) -> CommandResult:
        seen = command.seen if isinstance(command, ReplaceTags) else None
        row, tagged = await self.executor.store.read(lambda connection: _read_tags(connection, command.image, seen))
        if isinstance(command, ReplaceTags):
            event = rules.replace_tags(tagged, command.tags)
        else:
            event = rules.edit_tags(tagged, add=command.add, remove=command.remove)
        return await self._append_if_changed(
            row, [] if event is None else [event], metadata, ImageResult(id=command.image)
        )

    async def _set_caption(self, command: SetCaption, metadata: CommandMetadata) -> CommandResult:
        row, image = await self.executor.store.read(
            lambda connection: _require_image_and_dataset(connection, command.image)
        )
        rules.check_if_match(command.seen, added=image.added_sequence, current=image.etag)
        key = await self.keys.key_of(image.id)
        if key is None:
            raise Gone("the image was erased")
        sealed = None if command.caption is None else seal(key, command.caption, CAPTION)
        event = rules.set_caption(
            ordinal=image.ordinal,
            current=image.caption,
            changed_at=image.caption_sequence,
            proposed=sealed,
            seen=command.seen,
        )
        return await self._append_if_changed(row, [] if event is None else [event], metadata, ImageResult(id=image.id))

    async def _append_if_changed(
        self, row: DatasetRow, events: Sequence[DatasetEvent], metadata: CommandMetadata, result: CommandResult
    ) -> CommandResult:
        if not events:
            return self.executor.unchanged(result)
        return await self.executor.append(Change("dataset", row.id, events, row.revision), metadata, result)


def require_dataset(connection: Connection, ref: str) -> DatasetRow:
    """The data set of this name or id; NotFound, or Gone when it was removed."""
    row = datasets.find(connection, ref)
    if row is None:
        raise not_found("data set", ref)
    if row.removed:
        raise Gone(f"the data set {row.name!r} was removed")
    return row


def require_image(connection: Connection, image_id: ImageId) -> ImageRow:
    """The image of this id; NotFound, or Gone when it was removed or erased."""
    row = images.find(connection, image_id)
    if row is None and erasures.find(connection, image_id) is not None:
        raise Gone("the image was erased for good")
    if row is None:
        raise not_found("image", image_id)
    if row.removed:
        raise Gone("the image was removed from its data set")
    return row


def _require_image_and_dataset(connection: Connection, image_id: ImageId) -> tuple[DatasetRow, ImageRow]:
    image = require_image(connection, image_id)
    return require_dataset(connection, image.dataset_id), image


def _read_tags(connection: Connection, image_id: ImageId, seen: int | None) -> tuple[DatasetRow, TagEditContext]:
    """The image's tags and decisions now, and its tags at `seen`, the version that the client edited."""
    row, image = _require_image_and_dataset(connection, image_id)
    rules.check_if_match(seen, added=image.added_sequence, current=image.etag)
    decisions = images.decisions_of_image(connection, image.dataset_id, image.ordinal)
    now = images.effective_tags(connection, image.dataset_id, [image.ordinal])[image.ordinal].names
    return row, TagEditContext(
        ordinal=image.ordinal,
        current=now,
        base=now if seen is None else images.tag_names_at(connection, image, seen),
        asserted=frozenset(tag for tag, choice in decisions.items() if choice.asserted),
        rejected=frozenset(tag for tag, choice in decisions.items() if not choice.asserted),
    )
