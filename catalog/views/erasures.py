"""Erased images: their digests are kept here until every copy of their bytes has been deleted.

This view comes before `images` and `refusals`: it copies from their rows what the purge needs before they are deleted.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec
from pyroaring import BitMap

from catalog.database import MAX_SEQUENCE, Connection
from catalog.rows import fetch, fetch_number, fetch_one, json_array
from catalog.views.batch import CommitBatch, DeleteRows
from contracts.events.datasets import DatasetErased, ImageErased
from contracts.ids import DatasetId, Digest, ImageId, JobId
from contracts.queries.datasets import AffectedLoraView

TABLES = """
CREATE TABLE IF NOT EXISTS erased (
    image_id TEXT PRIMARY KEY,
    dataset_id TEXT NOT NULL,
    ordinal INTEGER,
    source TEXT NOT NULL DEFAULT '',
    picture TEXT NOT NULL DEFAULT '',
    thumbnail TEXT NOT NULL DEFAULT '',
    cut TEXT,
    masks TEXT NOT NULL DEFAULT '[]',
    added_sequence INTEGER NOT NULL DEFAULT 0,
    sequence INTEGER NOT NULL,
    at TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS erased_in_order ON erased (sequence, image_id);
CREATE INDEX IF NOT EXISTS erased_of_dataset ON erased (dataset_id, ordinal);
"""

ERASE = """
INSERT OR IGNORE INTO erased
    (image_id, dataset_id, ordinal, source, picture, thumbnail, cut, masks, added_sequence, sequence, at)
SELECT id, dataset_id, ordinal, source, picture, thumbnail, cut, (
    SELECT json_group_array(DISTINCT mask) FROM mask
    WHERE (mask.dataset_id, mask.ordinal) = (image.dataset_id, image.ordinal) AND mask IS NOT NULL
), added_sequence, :sequence, :at FROM image
WHERE dataset_id = :dataset AND ordinal >= :first AND ordinal < :end
"""
ERASE_REFUSED = """
INSERT OR IGNORE INTO erased (image_id, dataset_id, sequence, at)
SELECT image_id, dataset_id, :sequence, :at FROM refusal WHERE dataset_id = :dataset
"""
FIND = "SELECT * FROM erased WHERE image_id = ?"
PAGE = "SELECT * FROM erased WHERE (sequence, image_id) > (?, ?) ORDER BY sequence, image_id LIMIT ?"
IMAGE_PAGE = """
SELECT * FROM erased WHERE ordinal IS NOT NULL AND (sequence, image_id) > (?, ?) ORDER BY sequence, image_id LIMIT ?
"""
ERASED_AMONG = "SELECT image_id FROM erased WHERE image_id IN (SELECT value FROM json_each(?))"
COUNT_IMAGES = "SELECT COUNT(*) FROM erased WHERE ordinal IS NOT NULL"
COUNT_OF_DATASET = "SELECT COUNT(*) FROM erased WHERE dataset_id = ? AND ordinal IS NOT NULL"
ORDINALS_SINCE = "SELECT ordinal FROM erased WHERE dataset_id = ? AND ordinal IS NOT NULL AND sequence > ?"
ORDINALS = "SELECT ordinal FROM erased WHERE dataset_id = ? AND ordinal IS NOT NULL"
OF_DATASET = "SELECT * FROM erased WHERE dataset_id = ? AND ordinal IS NOT NULL"
JOBS = """
SELECT job.id AS job, json_extract(CAST(job.request AS TEXT), '$.name') AS name, work.status, version.number AS version,
    json_extract(CAST(work.work AS TEXT), '$.completed_units') AS steps, job.artifacts
FROM job JOIN version ON version.version_id = json_extract(CAST(job.version AS TEXT), '$.version_id')
    JOIN work ON work.class = 'train' AND work.id = job.id
WHERE version.dataset_id = :dataset AND version.as_of >= :start AND version.as_of < :end
    AND version.sequence < :erased AND {which}
ORDER BY job.created_sequence
"""
ACTIVE_JOBS = JOBS.format(which="work.state IN ('queued', 'running', 'cancelling')")
STARTED_JOBS = JOBS.format(which="json_extract(CAST(work.work AS TEXT), '$.attempts') > 0")


@dataclass(frozen=True)
class VersionRange:
    """The versions that contain an image: those with `start` <= `as_of` < `end` that were frozen before `erased`."""

    start: int = 0
    end: int = MAX_SEQUENCE
    erased: int = MAX_SEQUENCE


ALWAYS = (VersionRange(),)
"""For a whole data set: every version of it contains some of its images."""


class ErasedRow(msgspec.Struct, frozen=True, kw_only=True):
    """`ordinal` none: a refused file, of which only the name was stored. `sequence`: of the erasure."""

    image_id: ImageId
    dataset_id: DatasetId
    ordinal: int | None
    source: Digest
    picture: Digest
    thumbnail: Digest
    cut: Digest | None
    masks: tuple[Digest, ...]
    added_sequence: int
    sequence: int
    at: datetime

    @property
    def digests(self) -> frozenset[Digest]:
        return frozenset({self.cut or self.source, self.picture, self.thumbnail, *self.masks} - {Digest("")})


def apply(connection: Connection, batch: CommitBatch) -> None:
    for recorded, event in batch.events(ImageErased, DatasetErased):
        commit = recorded.commit
        erased = {"dataset": commit.aggregate_id, "sequence": recorded.sequence, "at": commit.at.isoformat()}
        match event:
            case ImageErased(ordinal=ordinal):
                connection.execute(ERASE, erased | {"first": ordinal, "end": ordinal + 1})
            case DatasetErased():
                connection.execute(ERASE_REFUSED, erased)
                at = commit.at.isoformat()
                step = EraseImages(dataset_id=commit.aggregate_id, tables=("image",), sequence=recorded.sequence, at=at)
                batch.steps.append(step)


class EraseImages(DeleteRows, frozen=True, kw_only=True):
    """Keeps of the images of an erased data set what the purge needs, and deletes their rows."""

    sequence: int
    at: str

    def delete(self, connection: Connection, table: str, end: int) -> None:
        values = {"dataset": self.dataset_id, "sequence": self.sequence, "at": self.at, "first": 0, "end": end}
        connection.execute(ERASE, values)
        super().delete(connection, table, end)


def find(connection: Connection, image_id: str) -> ErasedRow | None:
    return fetch_one(connection, ErasedRow, FIND, (image_id,))


def erased_among(connection: Connection, images: Iterable[str]) -> set[str]:
    """Those of these images, and refused files, that were erased."""
    return {row["image_id"] for row in connection.execute(ERASED_AMONG, (json_array(images),))}


def page(connection: Connection, after: tuple[int, str], limit: int) -> list[ErasedRow]:
    """Everything erased after (sequence, image id), including names of refused files, in that order."""
    return fetch(connection, ErasedRow, PAGE, (*after, limit))


def image_page(connection: Connection, after: tuple[int, str], limit: int) -> list[ErasedRow]:
    """The same, but only images."""
    return fetch(connection, ErasedRow, IMAGE_PAGE, (*after, limit))


def count_images(connection: Connection) -> int:
    return fetch_number(connection, COUNT_IMAGES)


def count_of_dataset(connection: Connection, dataset_id: str) -> int:
    """The number of erased images of a data set."""
    return fetch_number(connection, COUNT_OF_DATASET, (dataset_id,))


def ordinals_erased_since(connection: Connection, dataset_id: str, sequence: int) -> frozenset[int]:
    """The ordinals of the images of a data set that were erased after this sequence."""
    return frozenset(row["ordinal"] for row in connection.execute(ORDINALS_SINCE, (dataset_id, sequence)))


def of_dataset(connection: Connection, dataset_id: str) -> list[ErasedRow]:
    """The erased images of a data set."""
    return fetch(connection, ErasedRow, OF_DATASET, (dataset_id,))


def ordinals(connection: Connection, dataset_id: str) -> BitMap:
    return BitMap(row["ordinal"] for row in connection.execute(ORDINALS, (dataset_id,)))


def active_jobs(connection: Connection, dataset_id: str, spans: Sequence[VersionRange] = ALWAYS) -> list[JobId]:
    """The jobs that wait for or train on a version in one of the spans."""
    rows = (row for span in spans for row in connection.execute(ACTIVE_JOBS, _parameters(dataset_id, span)))
    return [row["job"] for row in rows]


def jobs_trained_on(
    connection: Connection, dataset_id: str, spans: Sequence[VersionRange] = ALWAYS
) -> list[AffectedLoraView]:
    """The jobs that started to train on a version in one of the spans, oldest first."""
    return [
        view
        for span in spans
        for view in fetch(connection, AffectedLoraView, STARTED_JOBS, _parameters(dataset_id, span))
    ]


def _parameters(dataset_id: str, span: VersionRange) -> dict[str, object]:
    return {"dataset": dataset_id, "start": span.start, "end": span.end, "erased": span.erased}
