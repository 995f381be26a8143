"""What answers are read from, and the few looks they share."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from catalog.archive import Archive
from catalog.database import Connection
from catalog.keys import Keys
from catalog.store import Store
from catalog.views import datasets
from catalog.views.datasets import DatasetRow
from contracts.errors import Gone, NotFound
from contracts.queries import Query
from contracts.wire.blobs import Blobs

T = TypeVar("T")


@dataclass(frozen=True)
class Shelf:
    """All that questions are answered from."""

    store: Store
    archive: Archive
    keys: Keys
    blobs: Blobs

    async def look(self, query: Query[Any], work: Callable[[Connection], T]) -> T:
        """One snapshot that stands at least where the question wants it; else Behind."""
        await self.store.wait_for(query.min_seq)
        return await self.store.read(work)


def dataset_of(connection: Connection, ref: str) -> DatasetRow:
    """By name or id; Gone when it was removed, NotFound when it never was."""
    row = any_dataset_of(connection, ref)
    if row.removed:
        raise Gone(f"the data set {row.name!r} has been removed")
    return row


def any_dataset_of(connection: Connection, ref: str) -> DatasetRow:
    """Also a removed one, by its id: its versions stay."""
    row = datasets.find(connection, ref)
    if row is None:
        raise NotFound(f"there is no data set {ref!r}")
    return row


def id_of(connection: Connection, ref: str | None) -> str | None:
    """The id of the data set somebody wants a list narrowed to."""
    return None if ref is None else any_dataset_of(connection, ref).id
