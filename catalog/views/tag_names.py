"""Short ids of tags, in the order in which the log first names them: rows and sets of images have these.

This view comes first: it says which ids the tags of a batch have.
"""

from collections.abc import Iterable, Iterator

from catalog.database import Connection
from catalog.rows import json_array
from catalog.views.batch import CommitBatch
from contracts.events.base import Event
from contracts.events.datasets import TagsEdited
from contracts.events.tagging import TaggingPredicted

TABLES = """
CREATE TABLE IF NOT EXISTS tag_name (
    id INTEGER PRIMARY KEY,
    tag TEXT NOT NULL UNIQUE
);
"""

ADD = "INSERT INTO tag_name (tag) VALUES (?)"
LAST = "SELECT IFNULL(MAX(id), 0) FROM tag_name"
IDS = "SELECT tag, id FROM tag_name WHERE tag IN (SELECT value FROM json_each(?))"
NAMES = "SELECT id, tag FROM tag_name WHERE id IN (SELECT value FROM json_each(?))"


def apply(connection: Connection, batch: CommitBatch) -> None:
    named = list(
        dict.fromkeys(tag for _, event in batch.events(TagsEdited, TaggingPredicted) for tag in _tags_of(event))
    )
    batch.tag_ids = ids_of(connection, named)
    for tag in named:
        if tag not in batch.tag_ids:
            batch.tag_ids[tag] = int(connection.execute(ADD, (tag,)).lastrowid or 0)


def ids_of(connection: Connection, tags: Iterable[str]) -> dict[str, int]:
    """The ids of those of these tags that the log has named."""
    return dict(connection.execute(IDS, (json_array(tags),)).fetchall())


def names_of(connection: Connection, ids: Iterable[int]) -> dict[int, str]:
    return dict(connection.execute(NAMES, (json_array(ids),)).fetchall())


def _tags_of(event: Event) -> Iterator[str]:
    match event:
        case TagsEdited(asserted=asserted, rejected=rejected, withdrawn=withdrawn):
            yield from (*asserted, *rejected, *withdrawn)
        case TaggingPredicted(images=images):
            for image in images:
                for prediction in image.predictions:
                    yield prediction.tag
        case _:
            pass
