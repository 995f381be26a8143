"""What a version of a data set contains, from the rows of the other views; reads only."""

import msgspec
from pyroaring import BitMap

from catalog.database import Connection
from catalog.domain.compose import compose
from catalog.domain.manifest import PAGE_IMAGES, ManifestLine, ordinals_of_page, page_number
from catalog.rows import fetch
from catalog.views import decisions, sets
from contracts.events.base import Sealed
from contracts.ids import Digest, ImageId

IMAGES = """
SELECT ordinal, id AS image, picture, width, height, caption FROM image
WHERE dataset_id = ? AND ordinal BETWEEN ? AND ? AND removed_sequence = 0 ORDER BY ordinal
"""
# Each kind of change of what a version contains, by the page of the image.
CHANGED_PAGES = f"""
SELECT DISTINCT ordinal / {PAGE_IMAGES} FROM (
    SELECT ordinal FROM image WHERE dataset_id = :dataset
        AND MAX(added_sequence, removed_sequence, caption_sequence) > :since
    UNION ALL SELECT ordinal FROM image_change WHERE dataset_id = :dataset AND sequence > :since
    UNION ALL SELECT ordinal FROM decision WHERE dataset_id = :dataset AND sequence > :since
    UNION ALL SELECT ordinal FROM erased WHERE dataset_id = :dataset AND ordinal IS NOT NULL AND sequence > :since
)
"""  # noqa: S608 - constants
# Predictions are large rows without an index by sequence: that a run has gone on is enough to read all images again.
RUN_SINCE = """
SELECT EXISTS (
    SELECT 1 FROM tagging JOIN work ON work.class = 'tag' AND work.id = tagging.id
    WHERE tagging.dataset_id = ? AND work.etag > ?
)
"""


class _Image(msgspec.Struct, frozen=True, kw_only=True):
    ordinal: int
    image: ImageId
    picture: Digest
    width: int
    height: int
    caption: Sealed | None


def pages_of(connection: Connection, dataset_id: str) -> list[int]:
    """The numbers of the pages that have images, ascending."""
    live, numbers = sets.load(connection, dataset_id, "live"), []
    while live:
        numbers.append(page_number(live.min()))
        live -= BitMap(ordinals_of_page(numbers[-1]))
    return numbers


def changed_pages(connection: Connection, dataset_id: str, since: int) -> frozenset[int]:
    """The numbers of the pages that may have changed after a sequence; it may name more of them than have."""
    if connection.execute(RUN_SINCE, (dataset_id, since)).fetchone()[0]:
        return frozenset(pages_of(connection, dataset_id))
    rows = connection.execute(CHANGED_PAGES, {"dataset": dataset_id, "since": since})
    return frozenset(row[0] for row in rows)


def read_page(dataset_id: str, number: int, connection: Connection) -> list[ManifestLine]:
    """The images of a page with their tags and captions as they are now, by ordinal."""
    ordinals = ordinals_of_page(number)
    found = fetch(connection, _Image, IMAGES, (dataset_id, ordinals.start, ordinals.stop - 1))
    tags = decisions.effective_tags(connection, dataset_id, [image.ordinal for image in found])
    return [compose(ManifestLine, image, tags=tags[image.ordinal].names) for image in found]
