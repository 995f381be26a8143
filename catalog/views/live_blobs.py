"""Which blobs and keys must be there, from the rows of the other views: the same as `catalog.domain.live_blobs`.

What names blobs has a line in NAMED. Erased images have no rows; what was given up is in `accepted_loss`.
"""

from collections.abc import Iterable, Iterator

from catalog.database import Connection
from catalog.domain.live_blobs import BlobReference
from catalog.rows import json_array, tuple_cursor
from contracts.ids import Digest, ImageId

NAMED = """
SELECT IFNULL(cut, source) AS digest, 'source' AS kind, id AS owner, CASE WHEN cut IS NULL THEN size END AS size
    FROM image
UNION ALL SELECT picture, 'picture', id, CASE WHEN picture = source THEN size END FROM image
UNION ALL SELECT thumbnail, 'thumbnail', id, NULL FROM image
UNION ALL SELECT DISTINCT mask.mask, 'mask', image.id, NULL
    FROM mask JOIN image ON (image.dataset_id, image.ordinal) = (mask.dataset_id, mask.ordinal)
    WHERE mask.mask IS NOT NULL
UNION ALL SELECT manifest, 'manifest', version_id, NULL FROM version
UNION ALL SELECT page.value, 'manifest', version_id, NULL FROM version, json_each(CAST(version.pages AS TEXT)) AS page
UNION ALL SELECT json_extract(CAST(version AS TEXT), '$.manifest'), 'manifest', id, NULL FROM job
    WHERE version IS NOT NULL
UNION ALL SELECT checkpoint, 'checkpoint', job_id, size FROM checkpoint_of_job
UNION ALL SELECT picture, 'sample', job_id, NULL FROM sample
UNION ALL SELECT json_extract(file.value, '$.digest'), 'artifact', job.id, json_extract(file.value, '$.size')
    FROM job, json_each(CAST(job.artifacts AS TEXT)) AS file
UNION ALL SELECT digest, 'image-set', owner, NULL FROM set_blob
"""
LIVE = f"""
SELECT digest, kind, owner, size FROM ({NAMED})
WHERE digest NOT IN (SELECT id FROM accepted_loss WHERE kind = 'blob')
"""  # noqa: S608 - constants
OF_DIGESTS = f"""
SELECT digest, kind, owner, size FROM ({NAMED}) WHERE digest IN (SELECT value FROM json_each(?))
"""  # noqa: S608 - constants
KEYS = """
SELECT id FROM (SELECT id FROM image UNION ALL SELECT image_id FROM refusal)
WHERE id NOT IN (SELECT id FROM accepted_loss WHERE kind = 'key')
"""


def references(connection: Connection) -> Iterator[BlobReference]:
    """Each name of each blob that must be there."""
    return _references(connection, LIVE)


def of_digests(connection: Connection, digests: Iterable[Digest]) -> list[BlobReference]:
    """All names of these blobs, also of those that were given up."""
    return list(_references(connection, OF_DIGESTS, json_array(digests)))


def in_use(connection: Connection, digests: Iterable[Digest]) -> set[Digest]:
    """Those of these blobs that anything names, and which must therefore not be deleted."""
    return {reference.digest for reference in of_digests(connection, digests)}


def key_images(connection: Connection) -> set[ImageId]:
    """The images, and refused files, whose keys must be there."""
    return {ImageId(row[0]) for row in connection.execute(KEYS)}


def _references(connection: Connection, query: str, *parameters: str) -> Iterator[BlobReference]:
    return map(BlobReference._make, tuple_cursor(connection).execute(query, parameters))
