"""Setting how often images are seen in an epoch: select, decide, append."""

from catalog import index_memory
from catalog.database import Connection
from catalog.domain import repeats as rules
from catalog.lookup import require_dataset
from catalog.service.context import CommandContext, locked
from catalog.service.execution import Change, CommandOutcome
from catalog.service.locks import Scope
from catalog.views import index, repeats
from catalog.views.datasets import DatasetRow
from contracts.commands.base import CommandMetadata
from contracts.commands.datasets import RepeatsResult, SetRepeats
from contracts.events.base import Event
from contracts.events.datasets import RepeatsSet


@locked(lambda connection, command: Scope((require_dataset(connection, command.dataset).id,)))
async def set_repeats(context: CommandContext, _: CommandMetadata, command: SetRepeats) -> CommandOutcome:
    dataset = await context.read(lambda connection: require_dataset(connection, command.dataset))
    memory = await index_memory.for_selection(context, dataset.id, command.selection)

    def read(connection: Connection) -> tuple[DatasetRow, list[Event]]:
        row = require_dataset(connection, dataset.id)
        selected = index.select(connection, row.id, command.selection, memory)
        current = repeats.of_images(connection, row.id, list(selected))
        return row, rules.set_repeats(current.items(), command.repeats)

    row, events = await context.read(read)
    changed = sum(event.images.count for event in events if isinstance(event, RepeatsSet))
    result = RepeatsResult(id=row.id, name=row.name, images=changed)
    return CommandOutcome(result, [Change("dataset", row.id, events, row.revision)])
