"""Short ids of tags, in the order in which the log first names them: rows and sets of images have these.

This view comes first: it says which ids the tags of a batch have.
"""

from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from itertools import chain

import msgspec

from catalog.database import Connection
from catalog.rows import fetch_value, json_array
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
# All names in one row: for each row that SQLite returns, a thread gives up the interpreter and waits for it again.
NAMES = "SELECT json_group_array(json_array(id, tag)) FROM tag_name WHERE id IN (SELECT value FROM json_each(?))"

_pairs: msgspec.json.Decoder[list[tuple[int, str]]] = msgspec.json.Decoder(list[tuple[int, str]])

Names = dict[int, str]
"""By id."""


def apply(connection: Connection, batch: CommitBatch) -> None:
    groups = (group for _, event in batch.events(TagsEdited, TaggingPredicted) for group in _tags_of(event))
    named = dict.fromkeys(chain.from_iterable(groups))
    batch.tag_ids = ids_of(connection, named)
    for tag in named:
        if tag not in batch.tag_ids:
            batch.tag_ids[tag] = int(connection.execute(ADD, (tag,)).lastrowid or 0)


def ids_of(connection: Connection, tags: Iterable[str]) -> dict[str, int]:
    """The ids of those of these tags that the log has named."""
    return dict(connection.execute(IDS, (json_array(tags),)).fetchall())


def names_of(connection: Connection, ids: Iterable[int]) -> dict[int, str]:
    return dict(_pairs.decode(fetch_value(connection, NAMES, (json_array(ids),))))


def add_names(connection: Connection, ids: AbstractSet[int], known: Names) -> Names:
    """The names known so far, with those of these ids: what has a name keeps it."""
    if missing := [tag for tag in ids if tag not in known]:  # not `ids - known.keys()`, which looks at all known ones
        known.update(names_of(connection, missing))
    return known


def _tags_of(event: Event) -> Iterator[Iterable[str]]:
    """In groups, because a batch may have millions."""
    match event:
        case TagsEdited(asserted=asserted, rejected=rejected, withdrawn=withdrawn):
            yield from (asserted, rejected, withdrawn)
        case TaggingPredicted(images=images):
            for image in images:
                yield [prediction.tag for prediction in image.predictions]
        case _:
            pass
