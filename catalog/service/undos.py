"""Undo: load the commits that are named, decide, append."""

from dataclasses import dataclass

from pyroaring import BitMap

from catalog.database import Connection
from catalog.domain import undos as rules
from catalog.domain.edits import voided_commits
from catalog.lookup import not_found, require_dataset, require_run
from catalog.service.context import CommandContext, locked
from catalog.service.datasets import NAMES_LOCK
from catalog.service.execution import Change, CommandOutcome
from catalog.service.locks import Scope
from catalog.views import datasets, decisions, image_predictions, imports, undos
from catalog.views.datasets import DatasetRow
from contracts.commands.base import CommandMetadata
from contracts.commands.datasets import MAX_KEPT, Undo, UndoResult
from contracts.commits import RecordedCommit
from contracts.errors import IllegalTransition, Invalid


@dataclass(frozen=True)
class _Target:
    """What is named: commits of the data set, or a tagging run on it."""

    row: DatasetRow
    sequences: tuple[int, ...] = ()
    run_images: BitMap | None = None


def scope(connection: Connection, command: Undo) -> Scope:
    """Also that of names: an undone renaming gives the data set its old name back."""
    return Scope((NAMES_LOCK, require_dataset(connection, command.dataset).id))


@locked(scope)
async def undo(context: CommandContext, _: CommandMetadata, command: Undo) -> CommandOutcome:
    """Invalid: neither a commit nor a run is named, or both."""
    if (command.commit is None) == (command.run is None):
        raise Invalid("name what to undo: a commit or a tagging run")
    target = await context.read(lambda connection: _find(connection, command))
    found = await context.commits(target.sequences)
    commits = [one for one in found if one.commit.aggregate_id == target.row.id]
    state = await context.read(lambda connection: _state(connection, command, target, commits))
    event = rules.decide(state)
    kept = await context.read(lambda connection: decisions.later_commits(connection, target.row.id, commits))
    result = UndoResult(
        id=target.row.id, name=target.row.name, commits=event.commits, summary=event.summary, kept=kept[:MAX_KEPT]
    )
    return CommandOutcome(result, [Change("dataset", target.row.id, [event], target.row.revision)])


def _find(connection: Connection, command: Undo) -> _Target:
    """NotFound: the run is not on this data set. IllegalTransition: it is still at work."""
    row = require_dataset(connection, command.dataset)
    if command.run is None:
        return _Target(
            row, imports.commits_of_import(connection, row.id, command.commit or 0) or (command.commit or 0,)
        )
    run, work = require_run(connection, command.run)
    if run.request.dataset_id != row.id:
        raise not_found("tagging run of this data set", command.run)
    if not work.work.ended:
        raise IllegalTransition("the tagging run is still at work; wait until it has ended, or cancel it")
    return _Target(row, run_images=image_predictions.images_of_run(connection, row.id, command.run))


def _state(connection: Connection, command: Undo, target: _Target, commits: list[RecordedCommit]) -> rules.UndoState:
    voided = undos.voided(connection, target.row.id)
    after = voided_commits({**undos.undone_commits(connection, target.row.id), 2**62: target.sequences})
    name = datasets.name_without(connection, target.row.id, after)
    owner = None if name == target.row.name else datasets.find(connection, name)
    return rules.UndoState(
        commits=commits,
        voided=voided,
        run=command.run,
        run_images=target.run_images,
        run_undone=0 if command.run is None else undos.undo_of_run(connection, command.run) or 0,
        taken=name if owner is not None and owner.id != target.row.id else "",
    )
