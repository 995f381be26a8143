"""Commands on data sets: load, decide, append."""

from collections.abc import Callable
from dataclasses import replace

from catalog.database import Connection
from catalog.domain import datasets as rules
from catalog.domain.datasets import DatasetChange, DatasetState
from catalog.lookup import known_dataset, require_dataset
from catalog.service.context import CommandContext, locked
from catalog.service.execution import Change, CommandOutcome
from catalog.service.locks import Scope
from catalog.views import datasets, erasures
from contracts.commands.base import CommandMetadata, CommandResult
from contracts.commands.datasets import CreateDataset, DatasetResult, EraseDataset, RenameDataset
from contracts.commits import StreamRevision
from contracts.events.datasets import DatasetCreated, DatasetRenamed
from contracts.ids import DatasetId, derived

NAMES_LOCK = "names"
"""Lock of all commands that choose a name, so that no two data sets get the same one."""


@locked(lambda _, __: Scope((NAMES_LOCK,)))
async def create_dataset(context: CommandContext, metadata: CommandMetadata, command: CreateDataset) -> CommandOutcome:
    def read(connection: Connection) -> DatasetState:
        return DatasetState(name_taken=datasets.is_name_taken(connection, rules.normalize_name(command.name)))

    events = rules.decide(await context.read(read), command)
    dataset_id = DatasetId(derived("ds", metadata.command_id))
    name = next(event.name for event in events if isinstance(event, DatasetCreated))
    change = Change("dataset", dataset_id, events, StreamRevision())
    return CommandOutcome(DatasetResult(id=dataset_id, name=name), [change])


@locked(lambda connection, command: Scope((NAMES_LOCK, require_dataset(connection, command.dataset).id)))
async def rename_dataset(context: CommandContext, _: CommandMetadata, command: RenameDataset) -> CommandOutcome:
    def read(connection: Connection) -> tuple[datasets.DatasetRow, DatasetState]:
        name = rules.normalize_name(command.name)
        row, owner = require_dataset(connection, command.dataset), datasets.find(connection, name)
        return row, replace(row.state, name_taken=owner is not None and owner.id != row.id)

    return await _change(context, command, read)


@locked(lambda connection, command: Scope((require_dataset(connection, command.dataset).id,)))
async def change_dataset(context: CommandContext, _: CommandMetadata, command: DatasetChange) -> CommandOutcome:
    def read(connection: Connection) -> tuple[datasets.DatasetRow, DatasetState]:
        row = require_dataset(connection, command.dataset)
        return row, row.state

    return await _change(context, command, read)


async def erase_dataset(context: CommandContext, metadata: CommandMetadata, command: EraseDataset) -> CommandResult:
    """Erase a data set with all its images, also one removed before. InUse: an unfinished job needs it."""
    result = await _erase_dataset(context, metadata, command)
    await context.purge_now()
    return result


@locked(lambda connection, command: Scope((known_dataset(connection, command.dataset).id,)))
async def _erase_dataset(context: CommandContext, _: CommandMetadata, command: EraseDataset) -> CommandOutcome:
    def read(connection: Connection) -> tuple[datasets.DatasetRow, DatasetState]:
        row = known_dataset(connection, command.dataset)
        return row, replace(row.state, active_jobs=erasures.active_jobs(connection, row.id))

    return await _change(context, command, read)


async def _change(
    context: CommandContext,
    command: RenameDataset | EraseDataset | DatasetChange,
    read: Callable[[Connection], tuple[datasets.DatasetRow, DatasetState]],
) -> CommandOutcome:
    row, state = await context.read(read)
    events = rules.decide(state, command)
    name = next((event.name for event in events if isinstance(event, DatasetRenamed)), row.name)
    change = Change("dataset", row.id, events, row.revision)
    return CommandOutcome(DatasetResult(id=row.id, name=name), [change])
