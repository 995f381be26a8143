"""Commands on data sets: load, decide, append."""

from collections.abc import Callable
from dataclasses import replace

from catalog.database import Connection
from catalog.domain import datasets as rules
from catalog.domain.datasets import DatasetChange, DatasetState
from catalog.lookup import known_dataset, require_dataset
from catalog.service.context import CommandContext, locked
from catalog.service.execution import Change
from catalog.views import datasets, erasures
from contracts.commands.base import CommandMetadata, CommandResult
from contracts.commands.datasets import CreateDataset, DatasetResult, EraseDataset, RenameDataset
from contracts.commits import StreamRevision
from contracts.events.datasets import DatasetCreated, DatasetRenamed
from contracts.ids import DatasetId, derived

NAMES_LOCK = "names"
"""Lock of all commands that choose a name, so that no two data sets get the same one."""


@locked(lambda _, __: NAMES_LOCK)
async def create_dataset(context: CommandContext, metadata: CommandMetadata, command: CreateDataset) -> CommandResult:
    def read(connection: Connection) -> DatasetState:
        return DatasetState(name_taken=datasets.is_name_taken(connection, rules.normalize_name(command.name)))

    events = rules.decide(await context.read(read), command)
    dataset_id = DatasetId(derived("ds", metadata.command_id))
    name = next(event.name for event in events if isinstance(event, DatasetCreated))
    change = Change("dataset", dataset_id, events, StreamRevision())
    return await context.executor.append(metadata, DatasetResult(id=dataset_id, name=name), change)


@locked(lambda _, __: NAMES_LOCK)
async def rename_dataset(context: CommandContext, metadata: CommandMetadata, command: RenameDataset) -> CommandResult:
    def read(connection: Connection) -> tuple[datasets.DatasetRow, DatasetState]:
        name = rules.normalize_name(command.name)
        row, owner = require_dataset(connection, command.dataset), datasets.find(connection, name)
        return row, replace(row.state, name_taken=owner is not None and owner.id != row.id)

    return await _change(context, metadata, command, read)


@locked(lambda connection, command: require_dataset(connection, command.dataset).id)
async def change_dataset(context: CommandContext, metadata: CommandMetadata, command: DatasetChange) -> CommandResult:
    def read(connection: Connection) -> tuple[datasets.DatasetRow, DatasetState]:
        row = require_dataset(connection, command.dataset)
        return row, row.state

    return await _change(context, metadata, command, read)


async def erase_dataset(context: CommandContext, metadata: CommandMetadata, command: EraseDataset) -> CommandResult:
    """Erase a data set with all its images, also one removed before. InUse: an unfinished job needs it."""
    dataset_id = await context.read(lambda connection: known_dataset(connection, command.dataset).id)

    def read(connection: Connection) -> tuple[datasets.DatasetRow, DatasetState]:
        row = known_dataset(connection, dataset_id)
        return row, replace(row.state, active_jobs=erasures.active_jobs(connection, row.id))

    result = await context.executor.execute_once(
        metadata, dataset_id, lambda: _change(context, metadata, command, read)
    )
    await context.purge_now()
    return result


async def _change(
    context: CommandContext,
    metadata: CommandMetadata,
    command: RenameDataset | EraseDataset | DatasetChange,
    read: Callable[[Connection], tuple[datasets.DatasetRow, DatasetState]],
) -> CommandResult:
    row, state = await context.read(read)
    events = rules.decide(state, command)
    name = next((event.name for event in events if isinstance(event, DatasetRenamed)), row.name)
    change = Change("dataset", row.id, events, row.revision)
    return await context.executor.append(metadata, DatasetResult(id=row.id, name=name), change)
