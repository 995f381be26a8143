"""Model predictions, one row per run and image; the current ones are from each model's newest run that read it."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from operator import itemgetter
from typing import Any

import msgspec

from catalog.database import MAX_SEQUENCE, Connection
from catalog.domain.effective_tags import ModelPredictions
from catalog.views import tagging
from catalog.views.batch import CommitBatch, delete_erased
from catalog.views.sets import json_array
from contracts.events.tagging import Prediction, TaggingPredicted
from contracts.ids import RunId

TABLES = """
CREATE TABLE IF NOT EXISTS prediction (
    dataset_id TEXT NOT NULL,
    ordinal INTEGER NOT NULL,
    run_id TEXT NOT NULL,
    model TEXT NOT NULL,
    run_sequence INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    predictions BLOB NOT NULL,
    unreadable TEXT,
    PRIMARY KEY (dataset_id, ordinal, run_id)
);
"""

SAVE = "INSERT OR REPLACE INTO prediction VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
OF_IMAGES = """
SELECT ordinal, run_id, model, run_sequence, sequence, predictions FROM prediction
WHERE dataset_id = ? AND ordinal IN (SELECT value FROM json_each(?)) AND sequence <= ? AND unreadable IS NULL
"""
OF_DATASET = """
SELECT ordinal, run_id, model, run_sequence, sequence, predictions FROM prediction
WHERE dataset_id = ? AND unreadable IS NULL ORDER BY ordinal
"""
PREDICTED_ORDINALS = "SELECT DISTINCT ordinal FROM prediction WHERE dataset_id = ? AND model = ? ORDER BY ordinal"

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(tuple[Prediction, ...]).decode


class RunPrediction(msgspec.Struct, frozen=True):
    """One run's predictions for one image; none, and the reason in `unreadable`, if it could not read the image.

    Runs are ordered by `run_sequence`, the sequence at which they were requested.
    """

    run: RunId
    model: str
    run_sequence: int
    sequence: int
    predictions: tuple[Prediction, ...]
    unreadable: str | None = None


PredictionsByRun = dict[int, dict[RunId, RunPrediction]]
"""By ordinal and run."""
PredictionChange = tuple[int, list[ModelPredictions], list[ModelPredictions]]
"""An ordinal, and its current predictions before and after."""


def apply(connection: Connection, batch: CommitBatch) -> None:
    connection.executemany(
        SAVE,
        [
            (
                *(dataset_id, ordinal, run, found.model, found.run_sequence, found.sequence),
                *(_encode(found.predictions), found.unreadable),
            )
            for dataset_id, by_ordinal in _predictions_in(connection, batch).items()
            for ordinal, by_run in by_ordinal.items()
            for run, found in by_run.items()
        ],
    )
    delete_erased(connection, batch, "prediction")


def changes(connection: Connection, batch: CommitBatch) -> dict[str, list[PredictionChange]]:
    """By data set, for each image with predictions in a batch not yet applied: (ordinal, current before, after)."""
    found: dict[str, list[PredictionChange]] = {}
    for dataset_id, by_ordinal in _predictions_in(connection, batch).items():
        stored = _by_ordinal(connection.execute(OF_IMAGES, (dataset_id, json_array(by_ordinal), MAX_SEQUENCE)))
        found[dataset_id] = [
            (ordinal, _current(old), _current(old | new))
            for ordinal, new in by_ordinal.items()
            for old in (stored.get(ordinal, {}),)
        ]
    return found


def load_current(
    connection: Connection, dataset_id: str, ordinals: str, until: int
) -> dict[int, list[ModelPredictions]]:
    """The current predictions as of a sequence, by ordinal, newest run first. `ordinals` is a JSON array."""
    stored = _by_ordinal(connection.execute(OF_IMAGES, (dataset_id, ordinals, until)))
    return {ordinal: _current(by_run) for ordinal, by_run in stored.items()}


def iter_current(connection: Connection, dataset_id: str) -> Iterator[tuple[int, list[ModelPredictions]]]:
    """The current predictions of all images of a data set, image by image."""
    rows = connection.execute(OF_DATASET, (dataset_id,))
    for ordinal, of_image in groupby(rows, key=itemgetter(0)):
        yield ordinal, _current(_by_ordinal(of_image)[ordinal])


def predicted_ordinals(connection: Connection, dataset_id: str, model: str) -> list[int]:
    """The images that some run of this model has processed, ascending: those that `only_new` excludes."""
    return [row["ordinal"] for row in connection.execute(PREDICTED_ORDINALS, (dataset_id, model))]


def _predictions_in(connection: Connection, batch: CommitBatch) -> dict[str, PredictionsByRun]:
    """The predictions in a batch, by data set."""
    runs = tagging.runs_by_id(connection, batch)
    found: dict[str, PredictionsByRun] = {}
    for recorded, event in batch.events(TaggingPredicted):
        run = runs[recorded.commit.aggregate_id]
        by_ordinal = found.setdefault(run.request.dataset_id, {})
        for image in event.images:
            by_ordinal.setdefault(image.ordinal, {})[run.id] = RunPrediction(
                run.id, run.request.model, run.created_sequence, recorded.sequence, image.predictions, image.unreadable
            )
    return found


def _by_ordinal(rows: Iterable[Any]) -> PredictionsByRun:
    found: PredictionsByRun = {}
    for ordinal, run, model, run_sequence, sequence, predictions in rows:
        found.setdefault(ordinal, {})[run] = RunPrediction(run, model, run_sequence, sequence, _decode(predictions))
    return found


def _current(by_run: Mapping[RunId, RunPrediction]) -> list[ModelPredictions]:
    """Of each model the newest run that could read the image."""
    models: dict[str, ModelPredictions] = {}
    for found in sorted(by_run.values(), key=lambda prediction: -prediction.run_sequence):
        if found.unreadable is None and found.model not in models:
            models[found.model] = ModelPredictions(
                run=found.run, sequence=found.sequence, predictions=found.predictions
            )
    return list(models.values())
