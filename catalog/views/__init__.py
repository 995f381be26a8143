"""The read model: one file a view, with its tables, the row changes a fact makes, and its questions.

No clock, no chance, no bus: the same commits always make the same rows.
"""

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
    tagging,
    tags,
    versions,
    work,
)
from contracts.events import Stored

__all__ = ["TABLES", "VERSION", "apply"]

VERSION = 2
"""Raise it with every change of a table or of what a fact does to it: the read model is made anew then."""

# In this order: each may read what those before it wrote for the same commit.
VIEWS = (commands, datasets, erasures, images, refusals, versions, presets, work, jobs, tagging, predictions, tags)
TABLES = "".join(view.TABLES for view in VIEWS)


def apply(connection: Connection, stored: Stored) -> None:
    """All row changes of one commit."""
    for view in VIEWS:
        view.apply(connection, stored)
