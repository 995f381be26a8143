"""The predictions of one tag, read by parts: `catalog/prediction_index.py` has them in memory. Reads only."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from catalog.database import Connection
from catalog.rows import fetch_value
from catalog.views import prediction_parts
from catalog.views.pairs import IMAGES_PER_PART, TagColumns

TAG_ID = "SELECT id FROM tag_name WHERE tag = ?"
ReadPart = Callable[[Connection, str, int, int], TagColumns]
"""The predictions of a part of a data set; the last argument is the sequence that changed it last."""


def read_part(connection: Connection, dataset_id: str, part: int, _sequence: int) -> TagColumns:
    """The current predictions of some images, from their row."""
    return prediction_parts.read(connection, dataset_id, part)


def confidences(
    connection: Connection, dataset_id: str, tag: str, ordinals: BitMap, read: ReadPart = read_part
) -> NDArray[np.float64]:
    """The highest current prediction of a tag for each of these images, by ascending ordinal; 0 without one.

    `read`: gives the predictions of a part, from memory if they are there.
    """
    highest = np.zeros(ordinals.max() + 1 if ordinals else 0, dtype=np.float64)
    named = np.frombuffer(ordinals.to_array(), dtype=np.uint32)
    found = fetch_value(connection, TAG_ID, (tag,))
    if found is not None:
        parts = set(np.unique(named // IMAGES_PER_PART).tolist())
        for part, sequence in prediction_parts.changes(connection, dataset_id):
            if part in parts:
                read(connection, dataset_id, part, sequence).raise_to(highest, found)
    return highest[named]
