"""What was erased for good: who it was and by which digests its bytes are known, until nothing of it is left anywhere.

This view comes before `images` and `refusals`: it remembers of their rows what the sweep needs, and then they go.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import msgspec

from catalog.database import Connection, Row
from catalog.views.batch import Batch
from contracts.events import Artifact, DatasetErased, ImageErased
from contracts.ids import DatasetId, Digest, ImageId, JobId
from contracts.queries import SawView

TABLES = """
CREATE TABLE IF NOT EXISTS erased (
    image_id TEXT PRIMARY KEY,
    dataset_id TEXT NOT NULL,
    ordinal INTEGER,
    source TEXT NOT NULL DEFAULT '',
    picture TEXT NOT NULL DEFAULT '',
    thumbnail TEXT NOT NULL DEFAULT '',
    added INTEGER NOT NULL DEFAULT 0,
    removed INTEGER NOT NULL DEFAULT 0,
    sequence INTEGER NOT NULL,
    at TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS erased_in_order ON erased (sequence, image_id);
CREATE INDEX IF NOT EXISTS erased_of_dataset ON erased (dataset_id, ordinal);
"""

ERASE = """
INSERT OR IGNORE INTO erased (image_id, dataset_id, ordinal, source, picture, thumbnail, added, removed, sequence, at)
SELECT id, dataset_id, ordinal, source, picture, thumbnail, added, removed, :sequence, :at FROM image
WHERE dataset_id = :dataset AND (:ordinal IS NULL OR ordinal = :ordinal)
"""
ERASE_REFUSED = """
INSERT OR IGNORE INTO erased (image_id, dataset_id, sequence, at)
SELECT image_id, dataset_id, :sequence, :at FROM refusal WHERE dataset_id = :dataset
"""
FIND = "SELECT * FROM erased WHERE image_id = ?"
AFTER = "SELECT * FROM erased WHERE (sequence, image_id) > (?, ?) ORDER BY sequence, image_id LIMIT ?"
PICTURES = """
SELECT * FROM erased WHERE ordinal IS NOT NULL AND (sequence, image_id) > (?, ?) ORDER BY sequence, image_id LIMIT ?
"""
COUNT = "SELECT COUNT(*) FROM erased WHERE ordinal IS NOT NULL"
OF_DATASET = "SELECT COUNT(*) FROM erased WHERE dataset_id = ? AND ordinal IS NOT NULL"
# An image is in the versions that were computed while it was there: since it came, until it was removed or erased.
IN_VERSION = """
SELECT COUNT(*) FROM erased WHERE dataset_id = :dataset AND ordinal IS NOT NULL
    AND added <= :as_of AND (removed = 0 OR removed > :as_of) AND sequence > :as_of
"""
JOBS = """
SELECT job.id AS job, work.state, work.status, work.work, job.asked, job.artifacts, version.number
FROM job JOIN version ON version.version_id = json_extract(CAST(job.asked AS TEXT), '$.version_id')
    JOIN work ON work.class = 'train' AND work.id = job.id
WHERE version.dataset_id = ? AND version.as_of >= ? AND version.as_of < ? ORDER BY job.created
"""
IN_USE = """
SELECT source, picture, thumbnail FROM image
WHERE source IN (SELECT value FROM json_each(:wanted)) OR picture IN (SELECT value FROM json_each(:wanted))
    OR thumbnail IN (SELECT value FROM json_each(:wanted))
"""
SAMPLES = "SELECT picture FROM sample WHERE picture IN (SELECT value FROM json_each(?))"
SPAN_OF_LIVING = "SELECT added, removed FROM image WHERE id = ?"
AT_WORK = frozenset({"queued", "running", "cancelling"})
NEVER = 2**62
"""A sequence after all others."""


@dataclass(frozen=True)
class Span:
    """Versions with an `as_of` from `start` up to, not including, `end` hold the image, or some of the data set."""

    start: int = 0
    end: int = NEVER


ALWAYS = Span()
"""Of a whole data set: no version of it is empty."""


@dataclass(frozen=True, kw_only=True)
class ErasedRow:
    """`ordinal` none: a file that was refused, of which there was only a name. `sequence`: of the fact."""

    image_id: ImageId
    dataset_id: DatasetId
    ordinal: int | None
    source: Digest
    picture: Digest
    thumbnail: Digest
    added: int
    removed: int
    sequence: int
    at: datetime

    @property
    def span(self) -> Span:
        return Span(self.added, min(self.removed or NEVER, self.sequence))

    @property
    def digests(self) -> frozenset[Digest]:
        return frozenset({self.source, self.picture, self.thumbnail} - {Digest("")})


class _Asked(msgspec.Struct):
    name: str


class _Work(msgspec.Struct):
    attempts: int = 0
    kept: int = 0


def apply(connection: Connection, batch: Batch) -> None:
    for stored, fact in batch.facts(ImageErased, DatasetErased):
        commit = stored.commit
        moment = {"dataset": commit.thing, "sequence": stored.sequence, "at": commit.at.isoformat()}
        match fact:
            case ImageErased(ordinal=ordinal):
                connection.execute(ERASE, moment | {"ordinal": ordinal})
            case DatasetErased():
                connection.execute(ERASE, moment | {"ordinal": None})
                connection.execute(ERASE_REFUSED, moment)


def find(connection: Connection, image_id: str) -> ErasedRow | None:
    row = connection.execute(FIND, (image_id,)).fetchone()
    return None if row is None else _row(row)


def after(connection: Connection, place: tuple[int, str], limit: int) -> list[ErasedRow]:
    """All that was erased after (sequence, image), also names of refused files, in that order."""
    return [_row(row) for row in connection.execute(AFTER, (*place, limit))]


def pictures(connection: Connection, place: tuple[int, str], limit: int) -> list[ErasedRow]:
    """The same, but only images."""
    return [_row(row) for row in connection.execute(PICTURES, (*place, limit))]


def count(connection: Connection) -> int:
    return int(connection.execute(COUNT).fetchone()[0])


def of_dataset(connection: Connection, dataset_id: str) -> int:
    """How many images of a data set were erased."""
    return int(connection.execute(OF_DATASET, (dataset_id,)).fetchone()[0])


def in_version(connection: Connection, dataset_id: str, as_of: int) -> int:
    """How many images of the version that was computed at `as_of` were erased since."""
    return int(connection.execute(IN_VERSION, {"dataset": dataset_id, "as_of": as_of}).fetchone()[0])


def span_of(connection: Connection, image_id: str) -> Span:
    """Of an image that was not erased."""
    row = connection.execute(SPAN_OF_LIVING, (image_id,)).fetchone()
    return Span(row["added"], row["removed"] or NEVER)


def at_work(connection: Connection, dataset_id: str, span: Span = ALWAYS) -> list[JobId]:
    """The jobs that wait or train on such a version of the data set."""
    rows = connection.execute(JOBS, (dataset_id, span.start, span.end))
    return [row["job"] for row in rows if row["state"] in AT_WORK]


def saw(connection: Connection, dataset_id: str, span: Span = ALWAYS) -> list[SawView]:
    """The jobs that began to train on such a version, the oldest first."""
    rows = connection.execute(JOBS, (dataset_id, span.start, span.end))
    return [_saw(row) for row in rows if _work(row).attempts]


def in_use(connection: Connection, digests: Iterable[Digest]) -> set[Digest]:
    """Those of these blobs that an image which was not erased still needs, or a sample shows."""
    wanted = msgspec.json.encode(list(digests)).decode()
    needed = {digest for row in connection.execute(IN_USE, {"wanted": wanted}) for digest in row}
    return needed | {row["picture"] for row in connection.execute(SAMPLES, (wanted,))}


def _saw(row: Row) -> SawView:
    return SawView(
        job=row["job"],
        name=msgspec.json.decode(row["asked"], type=_Asked).name,
        status=row["status"],
        version=row["number"],
        steps=_work(row).kept,
        artifacts=msgspec.json.decode(row["artifacts"], type=tuple[Artifact, ...]),
    )


def _work(row: Row) -> _Work:
    return msgspec.json.decode(row["work"], type=_Work)


def _row(row: Row) -> ErasedRow:
    columns = dict(row)
    return ErasedRow(**columns | {"at": datetime.fromisoformat(columns["at"])})
