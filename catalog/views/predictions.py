"""Model predictions, one row per run and image. Current: of each model, those of the newest run that read the image.

Runs that were undone do not count. This view comes before `tags`, and says which (tag, image) pairs it changed.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from itertools import groupby, repeat
from operator import itemgetter
from typing import Any

import numpy as np
from pyroaring import BitMap

from catalog.database import MAX_SEQUENCE, Connection
from catalog.domain.effective_tags import Predicted, Rules
from catalog.rows import fetch_number, json_array
from catalog.views import pairs, tag_names, tagging, undos
from catalog.views.batch import CommitBatch, ImagesStep, PairChange, Pairs, Toggle, delete_erased, takes_long
from catalog.views.pairs import IMAGES_PER_PART, NO_PAIRS, PassingImages
from contracts.events.datasets import DatasetErased, ImageErased
from contracts.events.tagging import TaggingPredicted
from contracts.tags import Acceptance, Fixed

TABLES = """
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
CREATE TABLE IF NOT EXISTS prediction_change (
    dataset_id TEXT NOT NULL,
    part INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    PRIMARY KEY (dataset_id, part)
) WITHOUT ROWID;
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
CURRENT_OF_DATASET = (
    "SELECT ordinal, packed FROM prediction WHERE dataset_id = ? AND current = 1 AND ordinal >= ? LIMIT ?"
)
ORDINALS_OF_RUN = "SELECT ordinal FROM prediction WHERE dataset_id = ? AND run_id = ?"
PREDICTED_ORDINALS = "SELECT DISTINCT ordinal FROM prediction WHERE dataset_id = ? AND model = ? ORDER BY ordinal"
SET_CHANGE = """
INSERT INTO prediction_change VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET sequence = MAX(sequence, excluded.sequence)
"""
DELETE_CHANGES = "DELETE FROM prediction_change WHERE dataset_id = ?"
ROWS_AT_ONCE = 20_000
"""Rows of predictions in memory at once, each some 400 bytes."""


def apply(connection: Connection, batch: CommitBatch) -> None:
    new = _new_rows(connection, batch)
    for dataset_id, rows in new.items():
        ordinals = BitMap(row[1] for row in rows)
        rules = rules_by_id(connection, batch.acceptance_of(connection, dataset_id))
        before = _passing_now(connection, dataset_id, ordinals, rules)
        connection.executemany(SAVE, rows)
        batch.predicted[dataset_id] = _update(connection, dataset_id, ordinals, rules, before)
        last = {row[1] // IMAGES_PER_PART: row[5] for row in rows}
        connection.executemany(SET_CHANGE, [(dataset_id, part, sequence) for part, sequence in last.items()])
    for toggle in batch.toggles:
        ordinals = _images_of_runs(connection, toggle)
        if takes_long(len(ordinals)):
            batch.steps.append(FindCurrent(dataset_id=toggle.dataset_id, images=bytes(ordinals.serialize())))
            batch.repredicted.add(toggle.dataset_id)
            _note_change(connection, toggle, ordinals)
        elif ordinals:
            rules = rules_by_id(connection, batch.acceptance_of(connection, toggle.dataset_id))
            before = _passing_now(connection, toggle.dataset_id, ordinals, rules)
            batch.predicted[toggle.dataset_id] = _update(connection, toggle.dataset_id, ordinals, rules, before)
            _note_change(connection, toggle, ordinals)
    for recorded, erased in batch.events(ImageErased):
        of_image = connection.execute(CURRENT, (recorded.commit.aggregate_id, json_array([erased.ordinal])))
        batch.tags_of_erased |= set(pairs.joined(of_image.fetchall())[1]["tag"].tolist())
        part = erased.ordinal // IMAGES_PER_PART
        connection.execute(SET_CHANGE, (recorded.commit.aggregate_id, part, recorded.sequence))
    delete_erased(connection, batch, "prediction")
    for recorded, _ in batch.events(DatasetErased):
        connection.execute(DELETE_CHANGES, (recorded.commit.aggregate_id,))


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


def _update(connection: Connection, dataset_id: str, ordinals: BitMap, rules: Rules, before: Pairs) -> PairChange:
    """Say which rows of these images are current; returns what passes since."""
    connection.execute(UPDATE_CURRENT, (dataset_id, json_array(ordinals)))
    return pairs.change(before, _passing_now(connection, dataset_id, ordinals, rules))


def _note_change(connection: Connection, toggle: Toggle, ordinals: BitMap) -> None:
    parts = {ordinal // IMAGES_PER_PART for ordinal in ordinals}
    connection.executemany(SET_CHANGE, [(toggle.dataset_id, part, toggle.sequence) for part in parts])


def _images_of_runs(connection: Connection, toggle: Toggle) -> BitMap:
    return BitMap.union(BitMap(), *(images_of_run(connection, toggle.dataset_id, run) for run in toggle.runs))


def images_of_run(connection: Connection, dataset_id: str, run: str) -> BitMap:
    """The images that a tagging run has processed."""
    return BitMap(row["ordinal"] for row in connection.execute(ORDINALS_OF_RUN, (dataset_id, run)))


def rules_by_id(connection: Connection, acceptance: Acceptance) -> Rules:
    """The rules of a data set by the ids of tags."""
    named = (*acceptance.deny, *(acceptance.threshold.tags if isinstance(acceptance.threshold, Fixed) else ()))
    return pairs.rules_by_id(acceptance, tag_names.ids_of(connection, named) if named else {})


def passing_images(
    connection: Connection, dataset_id: str, rules: Rules, tags: Collection[int] | None, known: Iterable[int]
) -> PassingImages:
    """The images of a whole data set that predictions give these tags (None: all); `known`: tags to include anyway."""
    chosen = None
    if tags is not None:
        chosen = np.zeros(fetch_number(connection, tag_names.LAST) + 1, dtype=np.bool_)
        chosen[list(tags)] = True
    parts = [pairs.passing_unsorted(rows, rules, chosen) for rows in _all_current(connection, dataset_id)]
    found = pairs.unique(np.concatenate([NO_PAIRS, *parts]))
    of_pairs = (found >> np.uint64(32)).astype(np.int64)
    passing = of_pairs[np.append(True, np.diff(of_pairs) > 0)] if len(found) else of_pairs
    return PassingImages(np.union1d(passing, np.fromiter(known, np.int64)), found)


class FindCurrent(ImagesStep, frozen=True):
    """Says anew which predictions of these images are current."""

    def change(self, connection: Connection, images: BitMap) -> None:
        connection.execute(UPDATE_CURRENT, (self.dataset_id, json_array(images)))


def _all_current(connection: Connection, dataset_id: str) -> Iterator[list[tuple[int, bytes]]]:
    """All current predictions of a data set, some images at a time; the rows of one image are together."""
    start = 0
    while rows := connection.execute(CURRENT_OF_DATASET, (dataset_id, start, ROWS_AT_ONCE)).fetchall():
        if len(rows) == ROWS_AT_ONCE and rows[0][0] != rows[-1][0]:
            rows = [row for row in rows if row[0] != rows[-1][0]]  # the last image may have more
        yield rows
        start = rows[-1][0] + 1


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
