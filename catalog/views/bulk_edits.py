"""What an edit of many images is decided from; reads only."""

from collections.abc import Mapping
from dataclasses import dataclass

from pyroaring import BitMap

from catalog.database import Connection
from catalog.domain import bulk_edits as rules
from catalog.domain.edits import Choice
from catalog.views import columns, erasures, index, tag_sets
from catalog.views.index import InMemory
from contracts.filters import Selection


@dataclass(frozen=True)
class BulkEdit:
    """The images that are selected, and what changes for each tag."""

    selected: BitMap
    changes: list[rules.TagChange]


def bulk_edit(
    connection: Connection, dataset_id: str, selection: Selection, requested: Mapping[str, Choice], memory: InMemory
) -> BulkEdit:
    """contracts.errors.Rejected: no tag is named, or images that the data set does not have."""
    selected = index.select(connection, dataset_id, selection, memory)
    changes = rules.tag_changes(selected, requested, tag_sets.decided(connection, dataset_id, requested))
    return BulkEdit(selected, changes)


def count_changed_since(connection: Connection, dataset_id: str, sequence: int) -> int:
    """How many images of a data set changed, came or went after a sequence."""
    changed = columns.changed_since(connection, dataset_id, sequence)
    return len(changed) + len(erasures.ordinals_erased_since(connection, dataset_id, sequence))
