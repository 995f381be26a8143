"""Decisions of people and imports on the tags of images, and the effective tags, current or as of a sequence."""

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from catalog.database import MAX_SEQUENCE, Connection
from catalog.domain.effective_tags import Decision, EffectiveTags, derive_effective_tags, latest_decisions
from catalog.views import datasets, predictions
from catalog.views.batch import CommitBatch, delete_erased
from catalog.views.sets import json_array
from contracts.events.datasets import TagsEdited

TABLES = """
CREATE TABLE IF NOT EXISTS decision (
    dataset_id TEXT NOT NULL,
    ordinal INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    event_index INTEGER NOT NULL,
    asserted BLOB NOT NULL,
    rejected BLOB NOT NULL,
    source TEXT NOT NULL,
    actor TEXT NOT NULL,
    PRIMARY KEY (dataset_id, ordinal, sequence, event_index)
) WITHOUT ROWID;
"""

ADD = "INSERT OR IGNORE INTO decision VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
OF_IMAGES = """
SELECT ordinal, asserted, rejected, source, actor, sequence FROM decision
WHERE dataset_id = ? AND ordinal IN (SELECT value FROM json_each(?)) AND sequence <= ?
ORDER BY ordinal, sequence, event_index
"""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(tuple[str, ...]).decode


def apply(connection: Connection, batch: CommitBatch) -> None:
    connection.executemany(ADD, _rows(batch))
    delete_erased(connection, batch, "decision")


def _rows(batch: CommitBatch) -> Iterator[tuple[object, ...]]:
    for index, recorded, edit in batch.indexed_events(TagsEdited):
        commit = recorded.commit
        decision = (_encode(edit.asserted), _encode(edit.rejected), edit.source, commit.actor)
        for ordinal in batch.ordinals(edit.images):
            yield (commit.aggregate_id, ordinal, recorded.sequence, index, *decision)


def latest_of_image(connection: Connection, dataset_id: str, ordinal: int) -> dict[str, Decision]:
    """The latest decision on each tag of an image: asserted or rejected."""
    return latest_decisions(_decisions(connection, dataset_id, [ordinal], MAX_SEQUENCE).get(ordinal, []))


def effective_tags(
    connection: Connection, dataset_id: str, ordinals: Sequence[int], as_of: int | None = None
) -> dict[int, EffectiveTags]:
    """The effective tags by ordinal, now or as of a sequence of the log (edits, runs and thresholds alike)."""
    until = MAX_SEQUENCE if as_of is None else as_of
    thresholds = datasets.thresholds_at(connection, dataset_id, until)
    decisions = _decisions(connection, dataset_id, ordinals, until)
    predicted = predictions.load_current(connection, dataset_id, json_array(ordinals), until)
    return {
        ordinal: derive_effective_tags(decisions.get(ordinal, ()), predicted.get(ordinal, ()), thresholds)
        for ordinal in ordinals
    }


def tag_names(connection: Connection, dataset_id: str, ordinal: int, as_of: int | None = None) -> tuple[str, ...]:
    """The effective tags of one image; with `as_of` those that a client with this ETag saw."""
    return effective_tags(connection, dataset_id, [ordinal], as_of)[ordinal].names


def _decisions(
    connection: Connection, dataset_id: str, ordinals: Iterable[int], until: int
) -> dict[int, list[Decision]]:
    found: dict[int, list[Decision]] = {}
    for row in connection.execute(OF_IMAGES, (dataset_id, json_array(ordinals), until)):
        ordinal, asserted, rejected, source, actor, sequence = row
        found.setdefault(ordinal, []).extend(
            Decision(tag=tag, asserted=is_asserted, source=source, actor=actor, sequence=sequence)
            for tags, is_asserted in ((asserted, True), (rejected, False))
            for tag in _decode(tags)
        )
    return found
