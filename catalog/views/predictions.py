"""Model predictions, one row per run and image. Current: of each model, those of the newest run that read the image.

Runs that were undone do not count. This view comes before `tags`, and says which (tag, image) pairs it changed.
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from pyroaring import BitMap

from catalog.database import Connection
from catalog.rows import json_array
from catalog.views import image_predictions, pairs, prediction_parts, tagging
from catalog.views.batch import CommitBatch, ImagesStep, Toggle, delete_erased, takes_long
from catalog.views.bitmaps import serialize
from catalog.views.image_predictions import CURRENT, SELECTED
from catalog.views.pairs import IMAGES_PER_PART
from contracts.events.datasets import DatasetErased, ImageErased
from contracts.events.tagging import TaggingPredicted

TABLES = f"""
CREATE TABLE IF NOT EXISTS prediction (
    dataset_id TEXT NOT NULL,
    ordinal INTEGER NOT NULL,
    run_id TEXT NOT NULL,
    model TEXT NOT NULL,
    run_sequence INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    current INTEGER NOT NULL DEFAULT 0,
    packed BLOB NOT NULL,
    unreadable TEXT,
    PRIMARY KEY (dataset_id, ordinal, run_id)
);
{prediction_parts.TABLES}
"""

SAVE = """
INSERT OR REPLACE INTO prediction (dataset_id, ordinal, run_id, model, run_sequence, sequence, packed, unreadable)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""
# Of each model, the newest run that could read the image and was not undone.
UPDATE_CURRENT = f"""
UPDATE prediction SET current = NOT current {SELECTED} AND current != (unreadable IS NULL
    AND NOT EXISTS (SELECT 1 FROM voided_run WHERE voided_run.run_id = prediction.run_id)
    AND NOT EXISTS (
        SELECT 1 FROM prediction AS newer WHERE newer.dataset_id = prediction.dataset_id
            AND newer.ordinal = prediction.ordinal AND newer.model = prediction.model AND newer.unreadable IS NULL
            AND newer.run_sequence > prediction.run_sequence
            AND NOT EXISTS (SELECT 1 FROM voided_run WHERE voided_run.run_id = newer.run_id)
    ))
"""  # noqa: S608 - constants


def apply(connection: Connection, batch: CommitBatch) -> None:
    new = _new_rows(connection, batch)
    for dataset_id, rows in new.items():
        ordinals = BitMap(row[1] for row in rows)
        rules = image_predictions.rules_by_id(connection, batch.acceptance_of(connection, dataset_id))
        before = image_predictions.passing_now(connection, dataset_id, ordinals, rules)
        connection.executemany(SAVE, rows)
        last = {row[1] // IMAGES_PER_PART: row[5] for row in rows}
        after = _update_current(connection, dataset_id, ordinals, last)
        batch.predicted[dataset_id] = pairs.change(before, pairs.passing(after, rules))
    for toggle in batch.toggles:
        ordinals = _images_of_runs(connection, toggle)
        if takes_long(len(ordinals)):
            batch.repredicted.add(toggle.dataset_id)
            batch.steps.append(
                FindCurrent(dataset_id=toggle.dataset_id, images=serialize(ordinals), sequence=toggle.sequence)
            )
        elif ordinals:
            rules = image_predictions.rules_by_id(connection, batch.acceptance_of(connection, toggle.dataset_id))
            before = image_predictions.passing_now(connection, toggle.dataset_id, ordinals, rules)
            after = _update_current(connection, toggle.dataset_id, ordinals, toggle.sequence)
            batch.predicted[toggle.dataset_id] = pairs.change(before, pairs.passing(after, rules))
    for recorded, erased in batch.events(ImageErased):
        dataset_id, image = recorded.commit.aggregate_id, BitMap([erased.ordinal])
        if of_image := connection.execute(CURRENT, (dataset_id, json_array(image))).fetchall():
            found = pairs.unpack([packed for _, packed in of_image])
            batch.tags_of_erased |= {tag for tags, _, _ in found for tag in tags}
            prediction_parts.replace(connection, dataset_id, image, (), recorded.sequence)
    delete_erased(connection, batch, "prediction")
    for recorded, _ in batch.events(DatasetErased):
        batch.steps.append(prediction_parts.delete(recorded.commit.aggregate_id))


def _new_rows(connection: Connection, batch: CommitBatch) -> dict[str, list[tuple[Any, ...]]]:
    """The rows of the predictions in a batch, by data set."""
    runs = tagging.runs_by_id(connection, batch)
    found: defaultdict[str, list[tuple[Any, ...]]] = defaultdict(list)
    for recorded, event in batch.events(TaggingPredicted):
        run = runs[recorded.commit.aggregate_id]
        dataset_id, of_run = run.request.dataset_id, (run.id, run.request.model, run.created_sequence)
        for image in event.images:
            packed = pairs.pack(image.predictions, batch.tag_ids)
            found[dataset_id].append((dataset_id, image.ordinal, *of_run, recorded.sequence, packed, image.unreadable))
    return found


def _update_current(
    connection: Connection, dataset_id: str, ordinals: BitMap, changed: int | Mapping[int, int]
) -> list[tuple[int, bytes]]:
    """Say which rows of these images are current; returns those. `changed`: by which commit, or for each part."""
    connection.execute(UPDATE_CURRENT, (dataset_id, json_array(ordinals)))
    rows = connection.execute(CURRENT, (dataset_id, json_array(ordinals))).fetchall()
    prediction_parts.replace(connection, dataset_id, ordinals, rows, changed)
    return rows


def _images_of_runs(connection: Connection, toggle: Toggle) -> BitMap:
    return BitMap.union(
        BitMap(), *(image_predictions.images_of_run(connection, toggle.dataset_id, run) for run in toggle.runs)
    )


class FindCurrent(ImagesStep, frozen=True, kw_only=True):
    """Says anew which predictions of these images are current, after a commit that is no tagging run's."""

    sequence: int

    def first(self, images: BitMap) -> BitMap:
        return prediction_parts.split(images)[0][1]

    def change(self, connection: Connection, images: BitMap) -> None:
        _update_current(connection, self.dataset_id, images, self.sequence)
