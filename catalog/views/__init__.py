"""The read model: one file per view, with its tables, the row changes its events make, and its queries.

No clock, no randomness, no bus: the same commits always give the same rows, however they are split into batches.
"""

from collections.abc import Sequence

from catalog.database import Connection
from catalog.views import (
    bulk_undo,
    commands,
    datasets,
    edits,
    erasures,
    foreign,
    image_columns,
    images,
    jobs,
    losses,
    predictions,
    presence,
    presets,
    refusals,
    reviews,
    sets,
    tag_names,
    tagging,
    tags,
    texts,
    undos,
    versions,
    work,
)
from catalog.views.batch import split_batches
from catalog.views.version import VERSION
from contracts.commits import ForeignMessage, RecordedCommit

__all__ = ["TABLES", "VERSION", "add_foreign", "apply", "foreign_heads"]

# The order matters: each view may read what earlier ones wrote for the same batch.
VIEWS = (
    *(tag_names, undos, commands, tagging, datasets, erasures, images, image_columns, presence, edits, texts),
    *(reviews, refusals, versions, presets, work, jobs, predictions, bulk_undo, tags, losses),
)
TABLES = sets.TABLES + foreign.TABLES + "".join(view.TABLES for view in VIEWS)
foreign_heads = foreign.heads


def apply(connection: Connection, commits: Sequence[RecordedCommit]) -> None:
    """Make all row changes of consecutive commits."""
    for batch in split_batches(commits):
        for view in VIEWS:
            view.apply(connection, batch)


def add_foreign(connection: Connection, messages: Sequence[ForeignMessage]) -> None:
    """Note messages of the log that are no commits of ours."""
    foreign.add(connection, messages)
