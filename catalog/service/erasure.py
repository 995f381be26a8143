"""Commands to erase images and data sets for good: first the event, then the purger destroys every copy."""

import asyncio
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import structlog

from catalog.database import Connection
from catalog.domain import datasets as rules
from catalog.domain.datasets import not_found
from catalog.service.execution import Change, CommandExecutor
from catalog.service.purging import Purger
from catalog.views import datasets, erasures, images
from catalog.views.datasets import DatasetRow
from catalog.views.erasures import ErasedRow
from catalog.views.images import ImageRow
from contracts.commands import CommandMetadata, CommandResult, DatasetResult, ImageResult
from contracts.errors import Behind, LogFull, Unavailable
from contracts.events import DatasetErased, DatasetEvent, ImageErased
from contracts.ids import DatasetId, ImageId, new_command_id
from contracts.wire.cancellation import not_cancelled

REAPPLY_RETRY_SECONDS = 5.0
REAPPLY_BATCH_SIZE = 500
"""Images looked up at a time when erasures are re-applied."""
PURGE_TIMEOUT_SECONDS = 8.0
"""How long the command's result waits for the purge, which goes on either way."""

_log = structlog.get_logger()


@dataclass(frozen=True)
class ErasureCommands:
    """Handles the commands to erase, and re-applies erasures at start."""

    executor: CommandExecutor
    purger: Purger

    async def erase_image(self, image: ImageId, metadata: CommandMetadata) -> CommandResult:
        """Erase an image, even one already removed from its data set. InUse: an unfinished job needs it."""
        lock = await self.executor.store.read(lambda connection: _dataset_of_image(connection, image))
        result = await self.executor.execute_once(metadata, lock, partial(self._erase_image, image, metadata))
        await self.purger.purge_now(PURGE_TIMEOUT_SECONDS)
        return result

    async def erase_dataset(self, ref: str, metadata: CommandMetadata) -> CommandResult:
        """Erase a data set with all its images; one already removed is named by its id."""
        lock = (await self.executor.store.read(lambda connection: _find_dataset(connection, ref))).id
        result = await self.executor.execute_once(metadata, lock, partial(self._erase_dataset, lock, metadata))
        await self.purger.purge_now(PURGE_TIMEOUT_SECONDS)
        return result

    async def run(self) -> None:
        """Re-apply erasures that a restored log lacks, then purge until cancelled."""
        reapplied = False
        while not_cancelled() and not reapplied:
            try:
                await self._reapply_erasures()
                reapplied = True
            except (Unavailable, Behind, LogFull) as error:
                _log.warning("erasures_not_reapplied", error=error.detail)
                await asyncio.sleep(REAPPLY_RETRY_SECONDS)
        await self.purger.run()

    async def _erase_image(self, image: ImageId, metadata: CommandMetadata) -> CommandResult:
        def read(connection: Connection) -> tuple[DatasetRow, ImageRow | None, list[str]]:
            row = _find_dataset(connection, _dataset_of_image(connection, image))
            found = images.find(connection, image)
            active_jobs = (
                [] if found is None else erasures.active_jobs(connection, row.id, erasures.span_of(connection, image))
            )
            return row, found, [*active_jobs]

        row, found, active_jobs = await self.executor.store.read(read)
        result = ImageResult(id=image)
        if found is None:
            return self.executor.unchanged(result)
        rules.refuse_if_in_use(active_jobs)
        event = ImageErased(ordinal=found.ordinal, image_id=image)
        return await self.executor.append(Change("dataset", row.id, [event], row.revision), metadata, result)

    async def _erase_dataset(self, dataset_id: DatasetId, metadata: CommandMetadata) -> CommandResult:
        def read(connection: Connection) -> tuple[DatasetRow, list[str]]:
            return _find_dataset(connection, dataset_id), [*erasures.active_jobs(connection, dataset_id)]

        row, active_jobs = await self.executor.store.read(read)
        result = DatasetResult(id=row.id, name=row.name)
        if row.erased:
            return self.executor.unchanged(result)
        rules.refuse_if_in_use(active_jobs)
        return await self.executor.append(Change("dataset", row.id, [DatasetErased()], row.revision), metadata, result)

    async def _reapply_erasures(self) -> None:
        """Append erasures again that keys.db has but the log lacks, because it was restored to an earlier state."""
        last_id = ""
        while erased_ids := await self.purger.keys.erased_images(last_id, REAPPLY_BATCH_SIZE):
            last_id = erased_ids[-1]
            missing = await self.executor.store.read(partial(_not_erased, erased_ids))
            rows_by_dataset: defaultdict[DatasetId, list[ImageRow]] = defaultdict(list)
            for row in missing:
                rows_by_dataset[row.dataset_id].append(row)
            for dataset_id, rows in rows_by_dataset.items():
                metadata = CommandMetadata(command_id=new_command_id(), actor="svc:catalog", at=datetime.now(UTC))
                await self.executor.execute_once(
                    metadata, dataset_id, partial(self._reapply, dataset_id, rows, metadata)
                )
                _log.warning("erasures_reapplied", dataset=dataset_id, images=len(rows))

    async def _reapply(self, dataset_id: DatasetId, rows: list[ImageRow], metadata: CommandMetadata) -> CommandResult:
        """Without the check for active jobs: the images' keys are gone, so no job can train on them anyway."""
        row = await self.executor.store.read(lambda connection: _find_dataset(connection, dataset_id))
        events: list[DatasetEvent] = [ImageErased(ordinal=one.ordinal, image_id=one.id) for one in rows]
        return await self.executor.append(
            Change("dataset", row.id, events, row.revision), metadata, DatasetResult(id=row.id, name=row.name)
        )


def _dataset_of_image(connection: Connection, image: ImageId) -> DatasetId:
    """The data set that an image is or was in; NotFound if there never was such an image."""
    row: ImageRow | ErasedRow | None = images.find(connection, image) or erasures.find(connection, image)
    if row is None:
        raise not_found("image", image)
    return row.dataset_id


def _not_erased(image_ids: list[ImageId], connection: Connection) -> list[ImageRow]:
    """Those of these images that are not erased according to the log."""
    return [row for image in image_ids if (row := images.find(connection, image)) is not None]


def _find_dataset(connection: Connection, ref: str) -> DatasetRow:
    row = datasets.find(connection, ref)
    if row is None:
        raise not_found("data set", ref)
    return row
