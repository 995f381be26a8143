"""What events change in the columns of images."""

from collections import defaultdict

import numpy as np

from catalog.database import Connection
from catalog.rows import EPOCH, MICROSECOND
from catalog.views import columns, tagging
from catalog.views.batch import BULK, CommitBatch
from contracts.events.datasets import (
    CaptionSet,
    DatasetErased,
    ImageAdded,
    ImageErased,
    ImagesRemoved,
    MaskSet,
    TagsEdited,
    TagsOrdered,
)
from contracts.events.tagging import TaggingPredicted

TABLES = columns.TABLES


def apply(connection: Connection, batch: CommitBatch) -> None:
    _add(connection, batch)
    for dataset_id, changes in _changes(connection, batch).items():
        ordinals = sorted(changes)
        sequences = np.array([changes[ordinal] for ordinal in ordinals], dtype=np.int64)
        columns.raise_changed(connection, dataset_id, np.array(ordinals, dtype=np.int64), sequences)
    for recorded, event in batch.events(TagsEdited, ImagesRemoved):
        if event.images.count > BULK:
            columns.mark_changed(
                connection, recorded.commit.aggregate_id, batch.ordinals(event.images), recorded.sequence
            )
    for recorded, erased in batch.events(ImageErased):
        for name in columns.COLUMNS:
            ordinal = np.array([erased.ordinal], dtype=np.int64)
            columns.store(connection, recorded.commit.aggregate_id, name, ordinal, np.zeros(1, dtype=np.int64))
    for recorded, _ in batch.events(DatasetErased):
        columns.delete_all(connection, recorded.commit.aggregate_id)


def _add(connection: Connection, batch: CommitBatch) -> None:
    rows: defaultdict[str, dict[int, tuple[int, ...]]] = defaultdict(dict)
    for recorded, image in batch.events(ImageAdded):
        dhash = int.from_bytes(bytes.fromhex(image.dhash.rjust(16, "0")), signed=True)
        at = (recorded.commit.at - EPOCH) // MICROSECOND
        numbers = (image.width, image.height, image.size, dhash, recorded.sequence, at)
        rows[recorded.commit.aggregate_id].setdefault(image.ordinal, numbers)
    for dataset_id, by_ordinal in rows.items():
        ordinals = np.array(sorted(by_ordinal), dtype=np.int64)
        table = np.array([by_ordinal[ordinal] for ordinal in ordinals.tolist()], dtype=np.int64)
        for name, numbers in zip(columns.COLUMNS, table.T, strict=False):  # what comes with an image
            columns.store(connection, dataset_id, name, ordinals, numbers)


def _changes(connection: Connection, batch: CommitBatch) -> dict[str, dict[int, int]]:
    """By data set and ordinal: the last commit that names few images and changes what clients see of this one."""
    found: defaultdict[str, dict[int, int]] = defaultdict(dict)
    for recorded, event in batch.events(ImageAdded, CaptionSet, TagsOrdered, MaskSet):
        found[recorded.commit.aggregate_id][event.ordinal] = recorded.sequence
    runs = tagging.runs_by_id(connection, batch)
    for recorded, predicted in batch.events(TaggingPredicted):
        dataset = found[runs[recorded.commit.aggregate_id].request.dataset_id]
        for image in predicted.images:
            dataset[image.ordinal] = max(recorded.sequence, dataset.get(image.ordinal, 0))
    for recorded, event in batch.events(TagsEdited, ImagesRemoved):
        if event.images.count <= BULK:
            dataset = found[recorded.commit.aggregate_id]
            for ordinal in batch.ordinals(event.images):
                dataset[ordinal] = max(recorded.sequence, dataset.get(ordinal, 0))
    return found
