"""The sets of images that lie in blobs, with their content: histories and replays need them again and again."""

import hashlib
from collections.abc import Iterable

from catalog.database import Connection
from catalog.domain.image_sets import SET_EVENTS
from catalog.rows import json_array
from catalog.views.batch import CommitBatch
from contracts.ids import Digest

TABLES = """
CREATE TABLE IF NOT EXISTS set_blob (
    digest TEXT NOT NULL,
    owner TEXT NOT NULL,
    images BLOB NOT NULL,
    PRIMARY KEY (digest, owner)
);
"""

# A set whose loss was accepted is empty, until it is named again.
SAVE = "INSERT OR REPLACE INTO set_blob VALUES (?, ?, ?)"
OF_OWNERS = "SELECT digest, images FROM set_blob WHERE owner IN (SELECT value FROM json_each(?))"
OF_DIGESTS = "SELECT digest, images FROM set_blob WHERE digest IN (SELECT value FROM json_each(?))"


def apply(connection: Connection, batch: CommitBatch) -> None:
    for recorded, event in batch.events(*SET_EVENTS):
        if event.images.blob is not None:
            connection.execute(SAVE, (event.images.blob, recorded.commit.aggregate_id, event.images.bitmap))


def of_owners(connection: Connection, owners: Iterable[str]) -> dict[Digest, bytes]:
    """The content of all sets that events of these data sets and tagging runs name."""
    return dict(connection.execute(OF_OWNERS, (json_array(owners),)).fetchall())


def find(connection: Connection, digests: Iterable[Digest]) -> dict[Digest, bytes]:
    """The content of those of these blobs that are known, intact and not given up."""
    rows = connection.execute(OF_DIGESTS, (json_array(digests),))
    return {digest: images for digest, images in rows if hashlib.sha256(images).hexdigest() == digest}
