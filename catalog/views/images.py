"""Images: metadata and captions; their tags are in `edits`, `predictions` and `tags`, their comings in `presence`."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime

import msgspec

from catalog.database import Connection
from catalog.rows import Parameters, fetch, fetch_value, json_array
from catalog.views import columns, sets
from catalog.views.batch import CommitBatch, delete_erased
from contracts.commits import RecordedCommit
from contracts.events.base import Event, Sealed
from contracts.events.datasets import CaptionSet, DatasetErased, ImageAdded, ImageErased
from contracts.ids import DatasetId, Digest, ImageId

TABLES = """
CREATE TABLE IF NOT EXISTS image (
    dataset_id TEXT NOT NULL,
    ordinal INTEGER NOT NULL,
    id TEXT NOT NULL,
    source TEXT NOT NULL,
    picture TEXT NOT NULL,
    thumbnail TEXT NOT NULL,
    pixels TEXT NOT NULL,
    dhash TEXT NOT NULL,
    format TEXT NOT NULL,
    width INTEGER NOT NULL,
    height INTEGER NOT NULL,
    size INTEGER NOT NULL,
    name BLOB NOT NULL,
    animated INTEGER NOT NULL,
    cut TEXT,
    mask TEXT,
    caption BLOB,
    caption_source TEXT,
    caption_sequence INTEGER NOT NULL DEFAULT 0,
    removed_sequence INTEGER NOT NULL DEFAULT 0,
    added_sequence INTEGER NOT NULL,
    created_at TEXT NOT NULL,
    PRIMARY KEY (dataset_id, ordinal)
) WITHOUT ROWID;
CREATE UNIQUE INDEX IF NOT EXISTS image_by_id ON image (id);
CREATE INDEX IF NOT EXISTS image_by_pixels ON image (dataset_id, pixels) WHERE removed_sequence = 0;
CREATE INDEX IF NOT EXISTS image_by_age ON image (added_sequence, ordinal) WHERE removed_sequence = 0;
"""

# The columns after the first are the fields of ImageAdded in their order.
ADD = """
INSERT INTO image (dataset_id, ordinal, id, source, picture, thumbnail, pixels, dhash, format, width, height, size,
    name, animated, cut, added_sequence, created_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO NOTHING
"""

SELECT_IMAGE = """
SELECT image.*, dataset.name AS dataset, MAX(dataset.name_sequence, dataset.text_sequence) AS etag
FROM image JOIN dataset ON dataset.id = image.dataset_id
"""
BY_ID = SELECT_IMAGE + "WHERE image.id = ?"
BY_PIXELS = (
    SELECT_IMAGE
    + "WHERE image.dataset_id = ? AND image.pixels = ? AND image.removed_sequence = 0 ORDER BY ordinal LIMIT 1"
)
BY_ORDINALS = (
    SELECT_IMAGE + "WHERE image.dataset_id = ? AND image.ordinal IN (SELECT value FROM json_each(?)) ORDER BY ordinal"  # noqa: S608 - constants
)
IDS = """
SELECT ordinal, id FROM image WHERE dataset_id = :dataset AND ordinal IN (SELECT value FROM json_each(:ordinals))
UNION ALL
SELECT ordinal, image_id AS id FROM erased
WHERE dataset_id = :dataset AND ordinal IN (SELECT value FROM json_each(:ordinals))
"""
DATASET_OF = "SELECT dataset_id FROM image WHERE id = ?"
SEALED_NAMES = "SELECT id, name FROM image UNION ALL SELECT image_id, name FROM refusal"


KEPT_SETS: tuple[sets.SetName, ...] = ("live", "removed", "captioned")


class ImageRow(msgspec.Struct, frozen=True, kw_only=True):
    """`name` and `caption` are sealed. `etag` is the last sequence that changed what clients see of the image."""

    id: ImageId
    dataset_id: DatasetId
    dataset: str
    ordinal: int
    source: Digest
    picture: Digest
    thumbnail: Digest
    pixels: Digest
    dhash: str
    format: str
    width: int
    height: int
    size: int
    name: Sealed
    animated: bool
    cut: Digest | None
    mask: Digest | None
    caption: Sealed | None
    caption_source: str | None
    caption_sequence: int
    removed_sequence: int
    added_sequence: int
    etag: int
    created_at: datetime

    @property
    def blobs(self) -> frozenset[Digest]:
        """The blobs of its bytes."""
        return frozenset({self.cut or self.source, self.picture, self.thumbnail})

    @property
    def removed(self) -> bool:
        return self.removed_sequence > 0


def apply(connection: Connection, batch: CommitBatch) -> None:
    _add(connection, batch.events(ImageAdded))
    _update_sets(connection, batch)
    delete_erased(connection, batch, "image")
    for recorded, _ in batch.events(DatasetErased):
        sets.delete_all(connection, recorded.commit.aggregate_id)


def _add(connection: Connection, added: Sequence[tuple[RecordedCommit, ImageAdded]]) -> None:
    rows = (
        (
            recorded.commit.aggregate_id,
            *msgspec.structs.astuple(image),
            recorded.sequence,
            recorded.commit.at.isoformat(),
        )
        for recorded, image in added
    )
    connection.executemany(ADD, rows)


def _update_sets(connection: Connection, batch: CommitBatch) -> None:
    """Keep the sets of live images and of those with a written caption."""
    changes: defaultdict[str, list[Event]] = defaultdict(list)
    for recorded, event in batch.events(ImageAdded, ImageErased, CaptionSet):
        changes[recorded.commit.aggregate_id].append(event)
    for dataset_id, events in changes.items():
        live, removed, captioned = (sets.load(connection, dataset_id, name) for name in KEPT_SETS)
        for event in events:
            match event:
                case ImageAdded(ordinal=ordinal):
                    live.add(ordinal)
                case ImageErased(ordinal=ordinal):
                    for images in (live, removed, captioned):
                        images.discard(ordinal)
                case CaptionSet(ordinal=ordinal, caption=None):
                    captioned.discard(ordinal)
                case CaptionSet(ordinal=ordinal):
                    captioned.add(ordinal)
                case _:
                    pass
        for name, images in zip(KEPT_SETS, (live, removed, captioned), strict=True):
            sets.save(connection, dataset_id, name, images)


def fetch_rows(connection: Connection, query: str, parameters: Parameters = ()) -> list[ImageRow]:
    """The rows that a query finds, with their ETags: an image shows its data set's name, and text by its settings."""
    rows = fetch(connection, ImageRow, query, parameters)
    of_datasets: defaultdict[DatasetId, list[int]] = defaultdict(list)
    for row in rows:
        of_datasets[row.dataset_id].append(row.ordinal)
    changed = {one: columns.load_few(connection, one, "changed", ordinals) for one, ordinals in of_datasets.items()}
    return [msgspec.structs.replace(row, etag=max(row.etag, changed[row.dataset_id][row.ordinal])) for row in rows]


def find(connection: Connection, image_id: str) -> ImageRow | None:
    """Also a removed one."""
    return next(iter(fetch_rows(connection, BY_ID, (image_id,))), None)


def dataset_of(connection: Connection, image_id: str) -> DatasetId | None:
    """The data set of an image, also of a removed one."""
    found: DatasetId | None = fetch_value(connection, DATASET_OF, (image_id,))
    return found


def find_duplicate(connection: Connection, dataset_id: str, pixels: str) -> ImageRow | None:
    """The live image of the data set with exactly these pixels."""
    return next(iter(fetch_rows(connection, BY_PIXELS, (dataset_id, pixels))), None)


def by_ordinals(connection: Connection, dataset_id: str, ordinals: Iterable[int]) -> list[ImageRow]:
    """In ascending order; includes removed images."""
    return fetch_rows(connection, BY_ORDINALS, (dataset_id, json_array(ordinals)))


def ids_by_ordinal(connection: Connection, dataset_id: str, ordinals: Iterable[int]) -> dict[int, ImageId]:
    """Also of removed and erased images."""
    rows = connection.execute(IDS, {"dataset": dataset_id, "ordinals": json_array(ordinals)})
    return {row["ordinal"]: row["id"] for row in rows}


def live_ordinals(connection: Connection, dataset_id: str) -> list[int]:
    """The ordinals of the images that were not removed, ascending."""
    return list(sets.load(connection, dataset_id, "live"))


def sealed_names(connection: Connection) -> dict[ImageId, bytes]:
    """The file names of all images that were not erased, and of refused files: each needs its key."""
    return {row["id"]: row["name"] for row in connection.execute(SEALED_NAMES)}
