"""Erased images: their digests are kept here until every copy of their bytes has been deleted.

This view comes before `images` and `refusals`: it copies from their rows what the purge needs before they are deleted.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import msgspec

from catalog.database import MAX_SEQUENCE, Connection, Row
from catalog.views.batch import CommitBatch
from contracts.events import Artifact, DatasetErased, ImageErased
from contracts.ids import DatasetId, Digest, ImageId, JobId
from contracts.queries import AffectedLoraView

TABLES = """
CREATE TABLE IF NOT EXISTS erased (
    image_id TEXT PRIMARY KEY,
    dataset_id TEXT NOT NULL,
    ordinal INTEGER,
    source TEXT NOT NULL DEFAULT '',
    picture TEXT NOT NULL DEFAULT '',
    thumbnail TEXT NOT NULL DEFAULT '',
    added_sequence INTEGER NOT NULL DEFAULT 0,
    removed_sequence INTEGER NOT NULL DEFAULT 0,
    sequence INTEGER NOT NULL,
    at TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS erased_in_order ON erased (sequence, image_id);
CREATE INDEX IF NOT EXISTS erased_of_dataset ON erased (dataset_id, ordinal);
"""

ERASE = """
INSERT OR IGNORE INTO erased
    (image_id, dataset_id, ordinal, source, picture, thumbnail, added_sequence, removed_sequence, sequence, at)
SELECT id, dataset_id, ordinal, source, picture, thumbnail, added_sequence, removed_sequence, :sequence, :at FROM image
WHERE dataset_id = :dataset AND (:ordinal IS NULL OR ordinal = :ordinal)
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
COUNT_IMAGES = "SELECT COUNT(*) FROM erased WHERE ordinal IS NOT NULL"
COUNT_OF_DATASET = "SELECT COUNT(*) FROM erased WHERE dataset_id = ? AND ordinal IS NOT NULL"
# An image is part of the versions computed (`as_of`) after it was added and before it was removed or erased.
COUNT_IN_VERSION = """
SELECT COUNT(*) FROM erased WHERE dataset_id = :dataset AND ordinal IS NOT NULL
    AND added_sequence <= :as_of AND (removed_sequence = 0 OR removed_sequence > :as_of) AND sequence > :as_of
"""
JOBS = """
SELECT job.id AS job, work.state, work.status, work.work, job.request, job.artifacts, version.number
FROM job JOIN version ON version.version_id = json_extract(CAST(job.request AS TEXT), '$.version_id')
    JOIN work ON work.class = 'train' AND work.id = job.id
WHERE version.dataset_id = ? AND version.as_of >= ? AND version.as_of < ? ORDER BY job.created_sequence
"""
DIGESTS_IN_USE = """
SELECT source, picture, thumbnail FROM image
WHERE source IN (SELECT value FROM json_each(:digests)) OR picture IN (SELECT value FROM json_each(:digests))
    OR thumbnail IN (SELECT value FROM json_each(:digests))
"""
SAMPLES = "SELECT picture FROM sample WHERE picture IN (SELECT value FROM json_each(?))"
SPAN = "SELECT added_sequence, removed_sequence FROM image WHERE id = ?"
ACTIVE_STATES = frozenset({"queued", "running", "cancelling"})


@dataclass(frozen=True)
class VersionRange:
    """The versions that contain an image: those with `start` <= `as_of` < `end`."""

    start: int = 0
    end: int = MAX_SEQUENCE


ALWAYS = VersionRange()
"""For a whole data set: every version of it contains some of its images."""


@dataclass(frozen=True, kw_only=True)
class ErasedRow:
    """`ordinal` none: a refused file, of which only the name was stored. `sequence`: of the erasure."""

    image_id: ImageId
    dataset_id: DatasetId
    ordinal: int | None
    source: Digest
    picture: Digest
    thumbnail: Digest
    added_sequence: int
    removed_sequence: int
    sequence: int
    at: datetime

    @property
    def span(self) -> VersionRange:
        return VersionRange(self.added_sequence, min(self.removed_sequence or MAX_SEQUENCE, self.sequence))

    @property
    def digests(self) -> frozenset[Digest]:
        return frozenset({self.source, self.picture, self.thumbnail} - {Digest("")})


class _Request(msgspec.Struct):
    name: str


class _Work(msgspec.Struct):
    attempts: int = 0
    completed_units: int = 0


def apply(connection: Connection, batch: CommitBatch) -> None:
    for recorded, event in batch.events(ImageErased, DatasetErased):
        commit = recorded.commit
        erased = {"dataset": commit.aggregate_id, "sequence": recorded.sequence, "at": commit.at.isoformat()}
        match event:
            case ImageErased(ordinal=ordinal):
                connection.execute(ERASE, erased | {"ordinal": ordinal})
            case DatasetErased():
                connection.execute(ERASE, erased | {"ordinal": None})
                connection.execute(ERASE_REFUSED, erased)


def find(connection: Connection, image_id: str) -> ErasedRow | None:
    row = connection.execute(FIND, (image_id,)).fetchone()
    return None if row is None else _row(row)


def page(connection: Connection, after: tuple[int, str], limit: int) -> list[ErasedRow]:
    """Everything erased after (sequence, image id), including names of refused files, in that order."""
    return [_row(row) for row in connection.execute(PAGE, (*after, limit))]


def image_page(connection: Connection, after: tuple[int, str], limit: int) -> list[ErasedRow]:
    """The same, but only images."""
    return [_row(row) for row in connection.execute(IMAGE_PAGE, (*after, limit))]


def count_images(connection: Connection) -> int:
    return int(connection.execute(COUNT_IMAGES).fetchone()[0])


def count_of_dataset(connection: Connection, dataset_id: str) -> int:
    """The number of erased images of a data set."""
    return int(connection.execute(COUNT_OF_DATASET, (dataset_id,)).fetchone()[0])


def count_erased_in_version(connection: Connection, dataset_id: str, as_of: int) -> int:
    """The number of images of the version computed at `as_of` that were erased since."""
    return int(connection.execute(COUNT_IN_VERSION, {"dataset": dataset_id, "as_of": as_of}).fetchone()[0])


def span_of(connection: Connection, image_id: str) -> VersionRange:
    """The span of an image that was not erased."""
    row = connection.execute(SPAN, (image_id,)).fetchone()
    return VersionRange(row["added_sequence"], row["removed_sequence"] or MAX_SEQUENCE)


def active_jobs(connection: Connection, dataset_id: str, span: VersionRange = ALWAYS) -> list[JobId]:
    """The jobs that wait for or train on a version in the span."""
    rows = connection.execute(JOBS, (dataset_id, span.start, span.end))
    return [row["job"] for row in rows if row["state"] in ACTIVE_STATES]


def jobs_trained_on(connection: Connection, dataset_id: str, span: VersionRange = ALWAYS) -> list[AffectedLoraView]:
    """The jobs that started to train on a version in the span, oldest first."""
    rows = connection.execute(JOBS, (dataset_id, span.start, span.end))
    return [_affected_lora(row) for row in rows if _work(row).attempts]


def digests_in_use(connection: Connection, digests: Iterable[Digest]) -> set[Digest]:
    """Those of these blobs that an image that was not erased or a sample still refers to."""
    values = msgspec.json.encode(list(digests)).decode()
    found = {digest for row in connection.execute(DIGESTS_IN_USE, {"digests": values}) for digest in row}
    return found | {row["picture"] for row in connection.execute(SAMPLES, (values,))}


def _affected_lora(row: Row) -> AffectedLoraView:
    return AffectedLoraView(
        job=row["job"],
        name=msgspec.json.decode(row["request"], type=_Request).name,
        status=row["status"],
        version=row["number"],
        steps=_work(row).completed_units,
        artifacts=msgspec.json.decode(row["artifacts"], type=tuple[Artifact, ...]),
    )


def _work(row: Row) -> _Work:
    return msgspec.json.decode(row["work"], type=_Work)


def _row(row: Row) -> ErasedRow:
    columns = dict(row)
    return ErasedRow(**columns | {"at": datetime.fromisoformat(columns["at"])})
