"""What models saw: one row for each run and image. What counts is the newest run of each model that read the image."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

import msgspec

from catalog.database import Connection
from catalog.domain.standing import Seen
from catalog.views import tagging
from catalog.views.batch import Batch
from catalog.views.sets import listed
from contracts.events import DatasetErased, ImageErased, Prediction, TaggingPredicted
from contracts.ids import RunId

TABLES = """
CREATE TABLE IF NOT EXISTS prediction (
    dataset_id TEXT NOT NULL,
    ordinal INTEGER NOT NULL,
    run_id TEXT NOT NULL,
    model TEXT NOT NULL,
    requested INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    predictions BLOB NOT NULL,
    unreadable TEXT,
    PRIMARY KEY (dataset_id, ordinal, run_id)
);
"""

KEEP = "INSERT OR REPLACE INTO prediction VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
OF_IMAGES = """
SELECT ordinal, run_id, model, requested, sequence, predictions FROM prediction
WHERE dataset_id = ? AND ordinal IN (SELECT value FROM json_each(?)) AND sequence <= ? AND unreadable IS NULL
"""
OF_DATASET = """
SELECT ordinal, run_id, model, requested, sequence, predictions FROM prediction
WHERE dataset_id = ? AND unreadable IS NULL ORDER BY ordinal
"""
ERASE_ONE = "DELETE FROM prediction WHERE dataset_id = ? AND ordinal = ?"
ERASE_ALL = "DELETE FROM prediction WHERE dataset_id = ?"
COVERED = "SELECT DISTINCT ordinal FROM prediction WHERE dataset_id = ? AND model = ? ORDER BY ordinal"

NOW = 2**63 - 1
"""A sequence after all others."""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(tuple[Prediction, ...]).decode


@dataclass(frozen=True)
class Sight:
    """What one run says of one image. `requested` orders the runs; `predictions` none where it could not read it."""

    run: RunId
    model: str
    requested: int
    sequence: int
    predictions: tuple[Prediction, ...]
    unreadable: str | None = None


Sights = dict[int, dict[RunId, Sight]]
"""By ordinal and run."""


def apply(connection: Connection, batch: Batch) -> None:
    connection.executemany(
        KEEP,
        [
            (dataset_id, ordinal, run, one.model, one.requested, one.sequence, _encode(one.predictions), one.unreadable)
            for dataset_id, sights in _said(connection, batch).items()
            for ordinal, of_image in sights.items()
            for run, one in of_image.items()
        ],
    )
    for stored, erased in batch.facts(ImageErased):
        connection.execute(ERASE_ONE, (stored.commit.thing, erased.ordinal))
    for stored, _ in batch.facts(DatasetErased):
        connection.execute(ERASE_ALL, (stored.commit.thing,))


def changes(connection: Connection, batch: Batch) -> dict[str, list[tuple[int, list[Seen], list[Seen]]]]:
    """By data set, for each image looked at in a batch not yet applied: (ordinal, what counted, what counts now)."""
    found: dict[str, list[tuple[int, list[Seen], list[Seen]]]] = {}
    for dataset_id, sights in _said(connection, batch).items():
        kept = _kept(connection.execute(OF_IMAGES, (dataset_id, listed(sights), NOW)))
        found[dataset_id] = [
            (ordinal, _newest(old), _newest(old | new))
            for ordinal, new in sights.items()
            for old in (kept.get(ordinal, {}),)
        ]
    return found


def current(connection: Connection, dataset_id: str, ordinals: str, until: int) -> dict[int, list[Seen]]:
    """What the newest run of each model, as of a sequence, saw in these images (a JSON list); the newest run first."""
    kept = _kept(connection.execute(OF_IMAGES, (dataset_id, ordinals, until)))
    return {ordinal: _newest(sights) for ordinal, sights in kept.items()}


def current_of_all(connection: Connection, dataset_id: str) -> Iterator[tuple[int, list[Seen]]]:
    """The same of all images now, one by one."""
    rows = connection.execute(OF_DATASET, (dataset_id,))
    for ordinal, of_image in groupby(rows, key=itemgetter(0)):
        yield ordinal, _newest(_kept(of_image)[ordinal])


def covered(connection: Connection, dataset_id: str, model: str) -> list[int]:
    """The images some run of this model has looked at, rising: what `only_new` leaves out."""
    return [row["ordinal"] for row in connection.execute(COVERED, (dataset_id, model))]


def _said(connection: Connection, batch: Batch) -> dict[str, Sights]:
    runs = tagging.runs_in(connection, batch)
    said: dict[str, Sights] = {}
    for stored, fact in batch.facts(TaggingPredicted):
        run = runs[stored.commit.thing]
        sights = said.setdefault(run.asked.dataset_id, {})
        for image in fact.images:
            sights.setdefault(image.ordinal, {})[run.id] = Sight(
                run.id, run.asked.model, run.created, stored.sequence, image.predictions, image.unreadable
            )
    return said


def _kept(rows: Iterable[Any]) -> Sights:
    kept: Sights = {}
    for ordinal, run, model, requested, sequence, predictions in rows:
        kept.setdefault(ordinal, {})[run] = Sight(run, model, requested, sequence, _decode(predictions))
    return kept


def _newest(sights: Mapping[RunId, Sight]) -> list[Seen]:
    models: dict[str, Seen] = {}
    for one in sorted(sights.values(), key=lambda one: -one.requested):
        if one.unreadable is None and one.model not in models:
            models[one.model] = Seen(run=one.run, sequence=one.sequence, predictions=one.predictions)
    return list(models.values())
