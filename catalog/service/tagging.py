"""Commands on tagging runs: each run is folded from its own history."""

from catalog import index_memory
from catalog.database import Connection
from catalog.domain import tagging as rules
from catalog.lookup import not_found, require_dataset
from catalog.service.context import CommandContext, locked
from catalog.service.execution import Change, CommandOutcome
from catalog.service.locks import Scope
from catalog.views import image_predictions, index
from contracts import jobs
from contracts.commands.base import CommandMetadata
from contracts.commands.tagging import CancelTagging, RequestTagging, TaggingRunResult
from contracts.commits import StreamRevision
from contracts.events.base import Event
from contracts.events.tagging import TAGGING_WORK
from contracts.ids import RunId, derived


@locked(lambda connection, command: Scope((require_dataset(connection, command.dataset).id,)))
async def request_tagging(
    context: CommandContext, metadata: CommandMetadata, command: RequestTagging
) -> CommandOutcome:
    dataset = await context.read(lambda connection: require_dataset(connection, command.dataset))
    memory = await index_memory.for_selection(context, dataset.id, command.selection)

    def read(connection: Connection) -> tuple[str, list[Event]]:
        row = require_dataset(connection, dataset.id)
        selected = index.select(connection, row.id, command.selection, memory)
        covered = image_predictions.predicted_ordinals(connection, row.id, command.model)
        return row.name, rules.request(command, dataset_id=row.id, dataset=row.name, images=selected, covered=covered)

    name, events = await context.read(read)
    run = RunId(derived("run", metadata.command_id))
    result = TaggingRunResult(id=run, name=name, status="pending")
    return CommandOutcome(result, [Change("tagging", run, events, StreamRevision())])


@locked(lambda _, command: Scope((command.run,)))
async def cancel_tagging(context: CommandContext, _: CommandMetadata, command: CancelTagging) -> CommandOutcome:
    history = await context.executor.log.load("tagging", command.run)
    if not history.commits:
        raise not_found("tagging run", command.run)
    work = jobs.fold(history.events())
    events = jobs.cancel(work, TAGGING_WORK, command.reason)
    state = jobs.fold([(event, work.dispatch) for event in events], work).state
    result = TaggingRunResult(id=command.run, status=jobs.status_of(state))
    return CommandOutcome(result, [Change("tagging", command.run, events, history.revision)])
