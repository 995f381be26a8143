"""Model predictions, one row per run and image. Current: of each model, those of the newest run that read the image.

Runs that were undone do not count. This view comes before `tags`, and says which (tag, image) pairs it changed.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import groupby, repeat
from operator import itemgetter
from typing import Any

import msgspec
from pyroaring import BitMap

from catalog.database import MAX_SEQUENCE, Connection
from catalog.domain.effective_tags import Predicted, Rules
from catalog.rows import fetch_value, json_array
from catalog.views import pairs, prediction_parts, tag_names, tagging, undos
from catalog.views.batch import CommitBatch, ImagesStep, Pairs, Toggle, delete_erased, takes_long
from catalog.views.bitmaps import serialize
from catalog.views.pairs import IMAGES_PER_PART
from contracts.events.datasets import DatasetErased, ImageErased
from contracts.events.tagging import TaggingPredicted
from contracts.tags import Acceptance, Fixed

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
SELECTED = "WHERE dataset_id = ? AND ordinal IN (SELECT value FROM json_each(?))"
CURRENT = f"SELECT ordinal, packed FROM prediction {SELECTED} AND current = 1"  # noqa: S608 - constants
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
CURRENT_BY_AGE = f"""
SELECT ordinal, packed FROM prediction {SELECTED} AND current = 1 ORDER BY ordinal, run_sequence DESC
"""  # noqa: S608 - constants
OF_IMAGES = f"""
SELECT ordinal, run_id, model, run_sequence, sequence, packed FROM prediction
{SELECTED} AND sequence <= ? AND unreadable IS NULL ORDER BY ordinal, run_sequence DESC
"""  # noqa: S608 - constants
CURRENT_OF_IMAGES = f"""
SELECT ordinal, run_id, sequence, packed FROM prediction {SELECTED} AND current = 1 ORDER BY ordinal, run_sequence DESC
"""  # noqa: S608 - constants
# In one row: for each row that SQLite returns, a thread gives up the interpreter and waits for it again.
ORDINALS_OF_RUN = "SELECT json_group_array(ordinal) FROM prediction WHERE dataset_id = ? AND run_id = ?"
PREDICTED_ORDINALS = "SELECT DISTINCT ordinal FROM prediction WHERE dataset_id = ? AND model = ? ORDER BY ordinal"

_ordinals = msgspec.json.Decoder(list[int]).decode


def apply(connection: Connection, batch: CommitBatch) -> None:
    new = _new_rows(connection, batch)
    for dataset_id, rows in new.items():
        ordinals = BitMap(row[1] for row in rows)
        rules = rules_by_id(connection, batch.acceptance_of(connection, dataset_id))
        before = _passing_now(connection, dataset_id, ordinals, rules)
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
            rules = rules_by_id(connection, batch.acceptance_of(connection, toggle.dataset_id))
            before = _passing_now(connection, toggle.dataset_id, ordinals, rules)
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


def _passing_now(connection: Connection, dataset_id: str, ordinals: BitMap, rules: Rules) -> Pairs:
    rows = connection.execute(CURRENT, (dataset_id, json_array(ordinals))).fetchall()
    return pairs.passing(rows, rules)


def passing_tags(connection: Connection, dataset_id: str, ordinals: BitMap, rules: Rules) -> set[int]:
    """The tags that predictions give these images now, whatever was decided."""
    return {tag for tag, _ in pairs.by_tag(_passing_now(connection, dataset_id, ordinals, rules))}


def _update_current(
    connection: Connection, dataset_id: str, ordinals: BitMap, changed: int | Mapping[int, int]
) -> list[tuple[int, bytes]]:
    """Say which rows of these images are current; returns those. `changed`: by which commit, or for each part."""
    connection.execute(UPDATE_CURRENT, (dataset_id, json_array(ordinals)))
    rows = connection.execute(CURRENT, (dataset_id, json_array(ordinals))).fetchall()
    prediction_parts.replace(connection, dataset_id, ordinals, rows, changed)
    return rows


def _images_of_runs(connection: Connection, toggle: Toggle) -> BitMap:
    return BitMap.union(BitMap(), *(images_of_run(connection, toggle.dataset_id, run) for run in toggle.runs))


def images_of_run(connection: Connection, dataset_id: str, run: str) -> BitMap:
    """The images that a tagging run has processed."""
    return BitMap(_ordinals(fetch_value(connection, ORDINALS_OF_RUN, (dataset_id, run))))


def rules_by_id(connection: Connection, acceptance: Acceptance) -> Rules:
    """The rules of a data set by the ids of tags."""
    named = (*acceptance.deny, *(acceptance.threshold.tags if isinstance(acceptance.threshold, Fixed) else ()))
    return pairs.rules_by_id(acceptance, tag_names.ids_of(connection, named) if named else {})


class FindCurrent(ImagesStep, frozen=True, kw_only=True):
    """Says anew which predictions of these images are current, after a commit that is no tagging run's."""

    sequence: int

    def first(self, images: BitMap) -> BitMap:
        return prediction_parts.split(images)[0][1]

    def change(self, connection: Connection, images: BitMap) -> None:
        _update_current(connection, self.dataset_id, images, self.sequence)


def load_current(
    connection: Connection, dataset_id: str, ordinals: Iterable[int], until: int = MAX_SEQUENCE
) -> dict[int, list[list[Predicted]]]:
    """The current predictions as of a sequence, by ordinal, newest run first."""
    if until == MAX_SEQUENCE:
        rows = connection.execute(CURRENT_OF_IMAGES, (dataset_id, json_array(ordinals))).fetchall()
    else:
        rows = [row for some in _rows_at(connection, dataset_id, ordinals, until).values() for row in some]
    found: defaultdict[int, list[list[Predicted]]] = defaultdict(list)
    for row, (tags, categories, probabilities) in zip(rows, pairs.unpack([row["packed"] for row in rows]), strict=True):
        of_run = zip(tags, categories, probabilities, repeat(row["run_id"]), repeat(row["sequence"]))
        found[row["ordinal"]].append(list(of_run))
    return found


def _rows_at(connection: Connection, dataset_id: str, ordinals: Iterable[int], until: int) -> dict[int, list[Any]]:
    rows = connection.execute(OF_IMAGES, (dataset_id, json_array(ordinals), until)).fetchall()
    undone = undos.undone_runs(connection, dataset_id, until)
    found: dict[int, list[Any]] = {}
    for ordinal, of_image in groupby((row for row in rows if row["run_id"] not in undone), key=itemgetter(0)):
        newest: dict[str, Any] = {}
        for row in of_image:
            newest.setdefault(row["model"], row)
        found[ordinal] = list(newest.values())
    return found


def passing_at(connection: Connection, dataset_id: str, ordinals: Iterable[int], until: int, rules: Rules) -> Pairs:
    """The tags that predictions gave these images as of a sequence, whatever was decided."""
    found = _rows_at(connection, dataset_id, ordinals, until)
    return pairs.passing([(ordinal, row["packed"]) for ordinal, rows in found.items() for row in rows], rules)


def current_rows(connection: Connection, dataset_id: str, ordinals: Iterable[int]) -> list[tuple[int, bytes]]:
    """Ordinal and packed predictions of these images now, by ordinal, newest run first."""
    return connection.execute(CURRENT_BY_AGE, (dataset_id, json_array(ordinals))).fetchall()


def predicted_ordinals(connection: Connection, dataset_id: str, model: str) -> list[int]:
    """The images that some run of this model has processed, ascending: those that `only_new` excludes."""
    return [row["ordinal"] for row in connection.execute(PREDICTED_ORDINALS, (dataset_id, model))]
