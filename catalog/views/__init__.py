"""The read model: one file a view, with its tables, the row changes facts make, and its questions.

No clock, no chance, no bus: the same commits always make the same rows, however they are cut into batches.
"""

from collections.abc import Sequence

from catalog.database import Connection
from catalog.views import (
    commands,
    datasets,
    erasures,
    images,
    jobs,
    predictions,
    presets,
    refusals,
    sets,
    tagging,
    tags,
    versions,
    work,
)
from catalog.views.batch import parts
from contracts.events import Stored

__all__ = ["TABLES", "VERSION", "apply"]

VERSION = 4
"""Raise it with every change of a table or of what a fact does to it: the read model is made anew then."""

# In this order: each may read what those before it wrote for the same batch, and tags what predictions were before.
VIEWS = (commands, tagging, datasets, erasures, images, refusals, versions, presets, work, jobs, tags, predictions)
TABLES = sets.TABLES + "".join(view.TABLES for view in VIEWS)


def apply(connection: Connection, commits: Sequence[Stored]) -> None:
    """All row changes of commits that follow each other in the log."""
    for batch in parts(commits):
        for view in VIEWS:
            view.apply(connection, batch)
