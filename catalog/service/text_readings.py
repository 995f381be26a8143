"""Reading texts another way: select, decide, append one commit; the rest of the selection is for the next command."""

from catalog import text_readings
from catalog.lookup import require_dataset
from catalog.service.context import CommandContext, locked
from catalog.service.execution import Change, CommandOutcome
from catalog.service.locks import Scope
from contracts.commands.base import CommandMetadata
from contracts.commands.datasets import ReadTexts, ReadTextsResult


@locked(lambda connection, command: Scope((require_dataset(connection, command.dataset).id,)))
async def read_texts(context: CommandContext, _: CommandMetadata, command: ReadTexts) -> CommandOutcome:
    found = await text_readings.decide(context, context.executor.store, command)
    row, decision = found.dataset, found.decision
    result = ReadTextsResult(id=row.id, name=row.name, counts=decision.counts, next=found.next)
    return CommandOutcome(result, [Change("dataset", row.id, decision.events, row.revision)])
