"""Reading texts another way: select, decide, append one commit; the rest of the selection is for the next command."""

from catalog import index_memory, text_readings
from catalog.lookup import require_dataset
from catalog.service.context import CommandContext, locked
from catalog.service.execution import Change, CommandOutcome
from catalog.service.locks import Scope
from contracts.commands.base import CommandMetadata
from contracts.commands.datasets import ReadTexts, ReadTextsResult


@locked(lambda connection, command: Scope((require_dataset(connection, command.dataset).id,)))
async def read_texts(context: CommandContext, _: CommandMetadata, command: ReadTexts) -> CommandOutcome:
    dataset = await context.read(lambda connection: require_dataset(connection, command.dataset))
    memory = await index_memory.for_selection(context, dataset.id, command.selection)
    found = await text_readings.decide(context.executor.store, context.keys, dataset.id, command, memory)
    row, decision = found.dataset, found.decision
    result = ReadTextsResult(id=row.id, name=row.name, counts=decision.counts, next=found.next)
    return CommandOutcome(result, [Change("dataset", row.id, decision.events, row.revision)])
