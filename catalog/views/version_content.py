"""What a version of a data set contains, from the rows of the other views; reads only."""

from collections.abc import Sequence

from pyroaring import BitMap

from catalog.database import Connection
from catalog.domain.manifest import ManifestLine
from catalog.views import decisions, sets
from catalog.views.sets import json_array

IMAGES = """
SELECT ordinal, id, picture, width, height, caption FROM image
WHERE dataset_id = ? AND ordinal IN (SELECT value FROM json_each(?)) AND removed_sequence = 0 ORDER BY ordinal
"""
# Each kind of change of what a version contains.
CHANGED = """
SELECT ordinal FROM image WHERE dataset_id = :dataset
    AND MAX(added_sequence, removed_sequence, caption_sequence) > :since
UNION SELECT ordinal FROM image_change WHERE dataset_id = :dataset AND sequence > :since
UNION SELECT ordinal FROM decision WHERE dataset_id = :dataset AND sequence > :since
UNION SELECT ordinal FROM erased WHERE dataset_id = :dataset AND ordinal IS NOT NULL AND sequence > :since
"""
# Predictions are large rows without an index by sequence: that a run has gone on is enough to read all images again.
RUN_SINCE = """
SELECT EXISTS (
    SELECT 1 FROM tagging JOIN work ON work.class = 'tag' AND work.id = tagging.id
    WHERE tagging.dataset_id = ? AND work.etag > ?
)
"""


def changed_images(connection: Connection, dataset_id: str, since: int) -> BitMap:
    """The ordinals of the images that may have changed after a sequence; it may name more of them than have."""
    changed = BitMap(row[0] for row in connection.execute(CHANGED, {"dataset": dataset_id, "since": since}))
    if connection.execute(RUN_SINCE, (dataset_id, since)).fetchone()[0]:
        changed |= sets.load(connection, dataset_id, "live")
    return changed


def read_lines(dataset_id: str, ordinals: Sequence[int], connection: Connection) -> list[ManifestLine]:
    """These images of a data set with their tags and captions as they are now, by ordinal."""
    tags = decisions.effective_tags(connection, dataset_id, ordinals)
    rows = connection.execute(IMAGES, (dataset_id, json_array(ordinals)))
    return [
        ManifestLine(
            ordinal=ordinal,
            image=image,
            picture=picture,
            width=width,
            height=height,
            tags=tags[ordinal].names,
            caption=caption,
        )
        for ordinal, image, picture, width, height, caption in rows
    ]
