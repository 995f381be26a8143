"""What query handlers read from, and the lookups they share."""

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
class QueryContext:
    """The sources of all query handlers."""

    store: Store
    archive: Archive
    keys: Keys
    blobs: Blobs

    async def read(self, query: Query[Any], work: Callable[[Connection], T]) -> T:
        """Run `work` on one snapshot of the read model that shows the query's `min_seq`; Behind if it does not yet."""
        await self.store.wait_for(query.min_seq)
        return await self.store.read(work)


def require_live_dataset(connection: Connection, ref: str) -> DatasetRow:
    """By name or id; Gone if it was removed, NotFound if there never was one."""
    row = require_dataset(connection, ref)
    if row.removed:
        raise Gone(f"the data set {row.name!r} has been removed")
    return row


def require_dataset(connection: Connection, ref: str) -> DatasetRow:
    """Also a removed one, by its id: its versions remain."""
    row = datasets.find(connection, ref)
    if row is None:
        raise NotFound(f"there is no data set {ref!r}")
    return row


def optional_dataset_id(connection: Connection, ref: str | None) -> str | None:
    """The id of the data set that a list is filtered by."""
    return None if ref is None else require_dataset(connection, ref).id
