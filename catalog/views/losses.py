"""Accepted losses: blobs and keys of which no copy exists, and which are therefore not expected any more."""

from collections.abc import Iterable
from datetime import datetime

import msgspec

from catalog.database import Connection
from catalog.domain.live_blobs import NAMING_EVENTS, blobs_named_by
from catalog.rows import fetch, fetch_number
from catalog.views.batch import CommitBatch
from contracts.events.base import Event
from contracts.events.log import LossAccepted

TABLES = """
CREATE TABLE IF NOT EXISTS accepted_loss (
    kind TEXT NOT NULL CHECK (kind IN ('blob', 'key')),
    id TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    at TEXT NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (kind, id)
) WITHOUT ROWID;
"""

ACCEPT = "INSERT OR IGNORE INTO accepted_loss VALUES (?, ?, ?, ?, ?)"
EXPECT_AGAIN = "DELETE FROM accepted_loss WHERE kind = 'blob' AND id = ?"
ANY_BLOB = "SELECT EXISTS (SELECT 1 FROM accepted_loss WHERE kind = 'blob')"
ANY = "SELECT EXISTS (SELECT 1 FROM accepted_loss)"
NAMING_AND_LOST: tuple[type[Event], ...] = (LossAccepted, *NAMING_EVENTS)
KEYS_OF_DATASET = """
SELECT image.ordinal, accepted_loss.sequence FROM accepted_loss JOIN image ON image.id = accepted_loss.id
WHERE accepted_loss.kind = 'key' AND image.dataset_id = ?
"""
OF = "SELECT * FROM accepted_loss WHERE kind = ? AND id IN (SELECT value FROM json_each(?))"


class AcceptedLoss(msgspec.Struct, frozen=True, kw_only=True):
    """`id`: the digest of a blob, or the image whose key is lost."""

    kind: str
    id: str
    sequence: int
    at: datetime
    reason: str

    def describe(self) -> str:
        why = f": {self.reason}" if self.reason else ""
        return f"lost for good, accepted at {self.at:%Y-%m-%d %H:%M} UTC{why}"


def apply(connection: Connection, batch: CommitBatch) -> None:
    """In the order of the log: a blob that is named after its loss was accepted has been stored again."""
    if not batch.events(LossAccepted) and not fetch_number(connection, ANY_BLOB):
        return
    for recorded, event in batch.events(*NAMING_AND_LOST):
        commit = recorded.commit
        if isinstance(event, LossAccepted):
            about = (recorded.sequence, commit.at.isoformat(), event.reason)
            rows = [("blob", digest, *about) for digest in event.blobs] + [("key", id_, *about) for id_ in event.images]
            connection.executemany(ACCEPT, rows)
        else:
            named = blobs_named_by(event, commit.aggregate_id)
            connection.executemany(EXPECT_AGAIN, [(reference.digest,) for reference in named])


def any_accepted(connection: Connection) -> bool:
    return fetch_number(connection, ANY) > 0


def accepted_blobs(connection: Connection, digests: Iterable[str]) -> dict[str, AcceptedLoss]:
    """Those of these blobs whose loss was accepted."""
    return {loss.id: loss for loss in fetch(connection, AcceptedLoss, OF, ("blob", _json(digests)))}


def accepted_keys(connection: Connection, images: Iterable[str]) -> dict[str, AcceptedLoss]:
    """The images among these of whose keys the loss was accepted."""
    return {loss.id: loss for loss in fetch(connection, AcceptedLoss, OF, ("key", _json(images)))}


def keys_of_dataset(connection: Connection, dataset_id: str) -> dict[int, int]:
    """The images of a data set whose keys were given up, by ordinal, each with the sequence at which that was."""
    return {row["ordinal"]: row["sequence"] for row in connection.execute(KEYS_OF_DATASET, (dataset_id,))}


def _json(ids: Iterable[str]) -> str:
    return msgspec.json.encode(list(ids)).decode()
