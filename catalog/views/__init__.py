"""The read model: one file per view, with its tables, the row changes its events make, and its queries.

No clock, no randomness, no bus: the same commits always give the same rows, however they are split into batches.

`take_in` does what takes long in slices: as long as a commit of a data set is worked in, later ones that concern the
same data set wait for it, also those of tagging runs, and all others are applied. `apply` does everything at once.
"""

from collections.abc import Iterable, Sequence

import msgspec

from catalog.database import Connection
from catalog.pending import Slice, Waiting
from catalog.rows import fetch_value
from catalog.views import (
    bulk_undo,
    commands,
    datasets,
    edits,
    erasures,
    foreign,
    image_columns,
    images,
    imports,
    jobs,
    losses,
    masks,
    pending,
    predicted_tags,
    predictions,
    presence,
    presets,
    refusals,
    repeats,
    reviews,
    set_blobs,
    sets,
    tag_names,
    tagging,
    tags,
    texts,
    undos,
    versions,
    work,
)
from catalog.views.batch import CommitBatch, DeleteRows, GoOn, Step, needs_batch_of_its_own, split_batches, takes_long
from catalog.views.pending import first_of_dataset
from catalog.views.version import VERSION
from contracts.commits import ForeignMessage, RecordedCommit
from contracts.events.tagging import TaggingRequested

__all__ = [
    "TABLES",
    "VERSION",
    "add_foreign",
    "apply",
    "first_of_dataset",
    "foreign_heads",
    "next_work",
    "read_pending",
    "run",
    "size_of",
    "take_in",
    "take_up",
]

# The order matters: each view may read what earlier ones wrote for the same batch.
VIEWS = (
    *(tag_names, undos, commands, tagging, datasets, erasures, imports, images, image_columns, presence, edits, texts),
    *(
        masks,
        repeats,
        reviews,
        refusals,
        versions,
        presets,
        work,
        jobs,
        predictions,
        bulk_undo,
        tags,
        predicted_tags,
        losses,
    ),
    set_blobs,
)
TABLES = sets.TABLES + foreign.TABLES + pending.TABLES + "".join(view.TABLES for view in VIEWS)
SIZE = "SELECT next_ordinal FROM dataset WHERE id = ?"
foreign_heads = foreign.heads
read_pending = pending.read

WAITING_AT_ONCE = 20
"""Commits that had to wait and are then applied in one transaction."""

AnyStep = (
    DeleteRows
    | erasures.EraseImages
    | presence.MarkRemoved
    | predictions.FindCurrent
    | predicted_tags.ApplyRules
    | predicted_tags.PredictAgain
    | tags.CountAgain
)
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(list[AnyStep]).decode


def apply(connection: Connection, commits: Sequence[RecordedCommit]) -> None:
    """Make all row changes of consecutive commits."""
    for batch in split_batches(commits):
        for step in _apply_views(connection, batch):
            step.finish(connection)


def take_in(connection: Connection, commits: Sequence[RecordedCommit]) -> None:
    """Make the row changes of consecutive commits, but for what takes long or must wait, which is noted."""
    busy = pending.datasets(connection)
    ready: list[RecordedCommit] = []

    def apply_ready() -> None:
        apply(connection, ready)
        ready.clear()

    for recorded in commits:
        is_single = any(map(needs_batch_of_its_own, recorded.commit.events))
        if is_single or (busy and recorded.commit.aggregate_kind in ("dataset", "tagging")):
            apply_ready()
        dataset_id = _dataset_of(connection, recorded) if busy else None
        if dataset_id in busy:
            _put_off(connection, recorded, str(dataset_id))
        elif is_single:
            busy |= _begin(connection, recorded)
        else:
            ready.append(recorded)
    apply_ready()


def take_up(connection: Connection, commits: Iterable[RecordedCommit]) -> None:
    """Apply commits that had to wait, in order, until one of them takes long."""
    for recorded in commits:
        pending.delete(connection, recorded.sequence)
        if _begin(connection, recorded):
            return


def next_work(connection: Connection) -> Slice | Waiting | None:
    """None: nothing is pending."""
    found = pending.next_one(connection)
    if found is None:
        return None
    sequence, dataset_id, steps = found
    if steps is None:
        return Waiting(pending.waiting(connection, dataset_id, WAITING_AT_ONCE))
    step, *later = _decode(steps)
    return Slice(sequence, step, len(later))


def run(connection: Connection, part: Slice, plan: object, go_on: GoOn) -> None:
    """Do as much of it as there is time for, and note what is left. `plan`: that of the step."""
    step, *later = _decode(pending.steps_of(connection, part.sequence))
    left = step.run(connection, plan, go_on)
    steps = later if left is None else [left, *later]
    if steps:
        pending.set_steps(connection, part.sequence, _encode(steps))
    else:
        pending.delete(connection, part.sequence)


def add_foreign(connection: Connection, messages: Sequence[ForeignMessage]) -> None:
    """Note messages of the log that are no commits of ours."""
    foreign.add(connection, messages)


def _apply_views(connection: Connection, batch: CommitBatch) -> list[Step]:
    """Make the row changes of a batch, but for what these steps do."""
    for view in VIEWS:
        view.apply(connection, batch)
    return batch.steps


def _begin(connection: Connection, recorded: RecordedCommit) -> set[str]:
    """Apply one commit but for steps that take long; returns the data set that is busy then."""
    steps = _apply_views(connection, CommitBatch([recorded]))
    long = [step for step in steps if takes_long(size_of(connection, step.dataset_id))]
    if not long:
        for step in steps:
            step.finish(connection)
        return set()
    dataset_id = long[0].dataset_id
    pending.add(connection, recorded, dataset_id, _encode(steps))
    return {dataset_id}


def size_of(connection: Connection, dataset_id: str) -> int:
    """How many images a data set has, or has had."""
    return fetch_value(connection, SIZE, (dataset_id,)) or 0


def _put_off(connection: Connection, recorded: RecordedCommit, dataset_id: str) -> None:
    """Note that a commit must wait; what depends on the order of all commits, or concerns its command, is done now."""
    batch = CommitBatch([recorded])
    tag_names.apply(connection, batch)
    commands.apply(connection, batch)
    pending.add(connection, recorded, dataset_id, None)


def _dataset_of(connection: Connection, recorded: RecordedCommit) -> str | None:
    """The data set of which a commit changes rows."""
    commit = recorded.commit
    if commit.aggregate_kind == "dataset":
        return commit.aggregate_id
    if commit.aggregate_kind != "tagging":
        return None
    for event in commit.events:
        if isinstance(event, TaggingRequested):
            return event.dataset_id
    run_row = tagging.find(connection, commit.aggregate_id)
    if run_row is not None:
        return run_row.request.dataset_id
    return pending.dataset_of(connection, "tagging", commit.aggregate_id)
