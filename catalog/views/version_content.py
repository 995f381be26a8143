"""What a version of a data set contains, from the rows of the other views; reads only."""

from collections.abc import Sequence

from pyroaring import BitMap

from catalog.database import Connection
from catalog.domain.manifest import ManifestLine
from catalog.rows import Parameters, json_array
from catalog.views import columns, datasets, decisions, losses, repeats
from catalog.views.tag_names import Names

IMAGES = """
SELECT ordinal, id, picture, width, height, caption, mask FROM image
WHERE dataset_id = ? AND ordinal IN (SELECT value FROM json_each(?)) AND removed_sequence = 0 ORDER BY ordinal
"""
ERASED = "SELECT ordinal FROM erased WHERE dataset_id = ? AND ordinal IS NOT NULL AND sequence > ?"
# Models may disagree about the category of a tag: then other thresholds may order tags anew and change none.
OF_SEVERAL_MODELS = """
SELECT ordinal FROM prediction WHERE dataset_id = ? AND current = 1 GROUP BY ordinal HAVING COUNT(*) > 1
"""


def changed_images(connection: Connection, dataset_id: str, since: int) -> BitMap:
    """The ordinals of the images that may have changed after a sequence; it may name more of them than have."""
    changed = columns.changed_since(connection, dataset_id, since)
    changed |= _ordinals(connection, ERASED, (dataset_id, since))
    changed |= BitMap(losses.keys_of_dataset(connection, dataset_id))  # at any time: a key may have been found again
    if datasets.settings_at(connection, dataset_id, since) != datasets.settings_at(connection, dataset_id):
        changed |= _ordinals(connection, OF_SEVERAL_MODELS, (dataset_id,))
    return changed


def _ordinals(connection: Connection, query: str, parameters: Parameters) -> BitMap:
    return BitMap(row[0] for row in connection.execute(query, parameters))


def read_lines(dataset_id: str, ordinals: Sequence[int], known: Names, connection: Connection) -> list[ManifestLine]:
    """These images of a data set with their tags and captions as they are now, by ordinal.

    `known`: names of tags that were read before, to which those of these images are added.
    """
    tags = decisions.shown_tags(connection, dataset_id, ordinals, known)
    repeated = repeats.of_images(connection, dataset_id, ordinals)
    rows = connection.execute(IMAGES, (dataset_id, json_array(ordinals)))
    return [
        ManifestLine(
            ordinal=ordinal,
            image=image,
            picture=picture,
            width=width,
            height=height,
            tags=tags[ordinal],
            caption=caption,
            repeats=repeated[ordinal],
            mask=mask,
        )
        for ordinal, image, picture, width, height, caption, mask in rows
    ]
