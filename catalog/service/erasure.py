"""Erasures at the start: a restored log gets those that it lacks again, and the data folder is purged.

The commands to erase are in `datasets` and `images`.
"""

from collections import defaultdict
from datetime import UTC, datetime
from functools import partial

import structlog

from catalog.database import Connection
from catalog.lookup import known_dataset
from catalog.service.context import CommandContext
from catalog.service.execution import Change, CommandOutcome
from catalog.service.locks import Scope
from catalog.service.purging import Purger
from catalog.views import images
from contracts.commands.base import CommandMetadata
from contracts.commands.datasets import DatasetResult
from contracts.errors import Behind, LogFull, Unavailable
from contracts.events.datasets import ImageErased
from contracts.ids import DatasetId, ImageId, new_command_id
from contracts.retry import RetryPolicy, retry

RETRIES = RetryPolicy(first_delay=5.0)
BATCH_SIZE = 500
"""Images looked up at a time."""

_log = structlog.get_logger()


async def finish(context: CommandContext, purger: Purger) -> None:
    """Append erasures again that keys.db has but the log lacks, and purge the data folder, before anything is served.

    A restore may have brought back what was erased. Backups are purged later, by `Purger.run`.
    """
    errors = (Unavailable, Behind, LogFull, OSError)
    await retry(lambda: _reapply_all(context), RETRIES, on=errors, warn="erasures_not_reapplied")
    await retry(purger.purge_data_folder, RETRIES, on=errors, warn="data_folder_not_purged")


async def _reapply_all(context: CommandContext) -> None:
    last_id = ""
    while erased_ids := await context.keys.erased_images(last_id, BATCH_SIZE):
        last_id = erased_ids[-1]
        by_dataset: defaultdict[DatasetId, list[images.ImageRow]] = defaultdict(list)
        for row in await context.read(partial(_not_erased, erased_ids)):
            by_dataset[row.dataset_id].append(row)
        for dataset_id, rows in by_dataset.items():
            await _reapply(context, dataset_id, rows)
            _log.warning("erasures_reapplied", dataset=dataset_id, images=len(rows))


async def _reapply(context: CommandContext, dataset_id: DatasetId, rows: list[images.ImageRow]) -> None:
    """Without the check for active jobs: the images' keys are gone, so no job can train on them anyway."""
    metadata = CommandMetadata(command_id=new_command_id(), actor="svc:catalog", at=datetime.now(UTC))
    events = [ImageErased(ordinal=row.ordinal, image_id=row.id) for row in rows]

    async def decide() -> CommandOutcome:
        dataset = await context.read(lambda connection: known_dataset(connection, dataset_id))
        change = Change("dataset", dataset.id, events, dataset.revision)
        return CommandOutcome(DatasetResult(id=dataset.id, name=dataset.name), [change])

    await context.executor.execute(metadata, Scope((dataset_id,)), decide)


def _not_erased(image_ids: list[ImageId], connection: Connection) -> list[images.ImageRow]:
    """Those of these images that are not erased according to the log."""
    return [row for image in image_ids if (row := images.find(connection, image)) is not None]
