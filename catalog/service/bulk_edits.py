"""Edits of many images: select, decide, append one commit."""

from catalog import index_memory
from catalog.database import Connection
from catalog.domain import bulk_edits as rules
from catalog.domain.edits import requested_choices
from catalog.lookup import require_dataset
from catalog.service.context import CommandContext, locked
from catalog.service.execution import Change, CommandOutcome
from catalog.service.locks import Scope
from catalog.store import checkpoint
from catalog.views.bulk_edits import BulkEdit, bulk_edit, count_changed_since
from catalog.views.datasets import DatasetRow
from contracts.commands.base import CommandMetadata
from contracts.commands.datasets import EditMany, EditManyResult


@locked(lambda connection, command: Scope((require_dataset(connection, command.dataset).id,)))
async def edit_many(context: CommandContext, _: CommandMetadata, command: EditMany) -> CommandOutcome:
    dataset = await context.read(lambda connection: require_dataset(connection, command.dataset))
    requested = requested_choices(add=command.add, remove=command.remove, withdraw=command.withdraw)
    memory = await index_memory.for_selection(context, dataset.id, command.selection)

    def read(connection: Connection) -> tuple[DatasetRow, BulkEdit]:
        row = require_dataset(connection, dataset.id)
        changed = 0 if command.as_of is None else count_changed_since(connection, row.id, command.as_of)
        rules.refuse_if_changed(as_of=command.as_of, now=checkpoint(connection).sequence, changed=changed)
        return row, bulk_edit(connection, row.id, command.selection, requested, memory)

    row, edit = await context.read(read)
    images = len(rules.images_of(edit.changes))
    result = EditManyResult(id=row.id, name=row.name, images=images, selected=len(edit.selected))
    return CommandOutcome(result, [Change("dataset", row.id, rules.edit_events(edit.changes), row.revision)])
