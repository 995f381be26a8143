"""Captions, the order of tags, and texts as received, with their histories: an undo brings back what held before.

The row of an image has the current caption.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec
from pyroaring import BitMap

from catalog.database import MAX_SEQUENCE, Connection
from catalog.rows import json_array
from catalog.views import sets, undos
from catalog.views.batch import CommitBatch, Toggle, delete_erased
from contracts.events.base import TextKind
from contracts.events.datasets import CaptionSet, TagsOrdered, TextReceived

TABLES = """
CREATE TABLE IF NOT EXISTS caption (
    dataset_id TEXT NOT NULL,
    ordinal INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    caption BLOB,
    source TEXT NOT NULL,
    PRIMARY KEY (dataset_id, ordinal, sequence)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS caption_by_commit ON caption (dataset_id, sequence);
CREATE TABLE IF NOT EXISTS tag_order (
    dataset_id TEXT NOT NULL,
    ordinal INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    tags BLOB NOT NULL,
    PRIMARY KEY (dataset_id, ordinal, sequence)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS received_text (
    dataset_id TEXT NOT NULL,
    ordinal INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    text BLOB NOT NULL,
    read_as TEXT NOT NULL,
    PRIMARY KEY (dataset_id, ordinal, sequence)
) WITHOUT ROWID;
"""

ADD_CAPTION = "INSERT OR REPLACE INTO caption VALUES (?, ?, ?, ?, ?)"
ADD_ORDER = "INSERT OR REPLACE INTO tag_order VALUES (?, ?, ?, ?)"
ADD_TEXT = "INSERT OR REPLACE INTO received_text VALUES (?, ?, ?, ?, ?)"
SET_CAPTION = """
UPDATE image SET caption = ?, caption_source = ?, caption_sequence = ? WHERE dataset_id = ? AND ordinal = ?
"""
# As with edits, the caption in the commit that added an image counts as long as the image exists.
CAPTIONS = """
SELECT caption.ordinal, sequence, caption.caption, caption.source, sequence = image.added_sequence AS is_first
FROM caption LEFT JOIN image ON (image.dataset_id, image.ordinal) = (caption.dataset_id, caption.ordinal)
WHERE caption.dataset_id = ? AND caption.ordinal IN (SELECT value FROM json_each(?)) ORDER BY sequence
"""
IMAGES_OF = """
SELECT ordinal FROM caption WHERE dataset_id = ? AND sequence IN (SELECT value FROM json_each(?))
"""
ORDERS = """
SELECT ordinal, sequence, tags FROM tag_order
WHERE dataset_id = ? AND ordinal IN (SELECT value FROM json_each(?)) AND sequence <= ? ORDER BY sequence DESC
"""
TEXTS = """
SELECT received.ordinal, sequence, text, read_as, sequence = image.added_sequence AS is_first
FROM received_text AS received
LEFT JOIN image ON (image.dataset_id, image.ordinal) = (received.dataset_id, received.ordinal)
WHERE received.dataset_id = ? AND received.ordinal IN (SELECT value FROM json_each(?)) ORDER BY sequence
"""

_encode = msgspec.json.Encoder().encode
_tags = msgspec.json.Decoder(tuple[str, ...]).decode


def apply(connection: Connection, batch: CommitBatch) -> None:
    for recorded, event in batch.events(CaptionSet):
        dataset_id, caption = recorded.commit.aggregate_id, event.caption
        connection.execute(ADD_CAPTION, (dataset_id, event.ordinal, recorded.sequence, caption, event.source))
        row = (*_written(caption, event.source), recorded.sequence, dataset_id, event.ordinal)
        connection.execute(SET_CAPTION, row)
    orders = [
        (recorded.commit.aggregate_id, event.ordinal, recorded.sequence, _encode(event.tags))
        for recorded, event in batch.events(TagsOrdered)
    ]
    connection.executemany(ADD_ORDER, orders)
    received = [
        (recorded.commit.aggregate_id, event.ordinal, recorded.sequence, event.text, event.read_as)
        for recorded, event in batch.events(TextReceived)
    ]
    connection.executemany(ADD_TEXT, received)
    for toggle in batch.toggles:
        _restore_captions(connection, toggle)
    delete_erased(connection, batch, "caption", "tag_order", "received_text")


@dataclass(frozen=True)
class ReceivedText:
    """A text as received with an image's file, sealed. `since`: the sequence from which on it was this one.

    A text that is received again, or read another way, is the same one.
    """

    since: int
    text: bytes
    read_as: TextKind


def received(connection: Connection, dataset_id: str, ordinals: Iterable[int]) -> dict[int, ReceivedText]:
    """The text that each of these images was last imported with, as far as that import counts."""
    rows = connection.execute(TEXTS, (dataset_id, json_array(ordinals))).fetchall()
    voided = undos.voided(connection, dataset_id) if rows else {}
    found: dict[int, ReceivedText] = {}
    for ordinal, sequence, text, read_as, is_first in rows:
        if is_first or sequence not in voided:
            before = found.get(ordinal)
            since = before.since if before is not None and before.text == text else sequence
            found[ordinal] = ReceivedText(since, text, read_as)
    return found


def _restore_captions(connection: Connection, toggle: Toggle) -> None:
    """The latest captions of the commits that count now. Such an image is changed by the undo itself."""
    dataset_id, voided = toggle.dataset_id, undos.voided(connection, toggle.dataset_id)
    captioned_by = connection.execute(IMAGES_OF, (dataset_id, json_array(toggle.commits)))
    rows = connection.execute(CAPTIONS, (dataset_id, json_array({row["ordinal"] for row in captioned_by}))).fetchall()
    changed = {row["ordinal"] for row in rows if row["sequence"] in toggle.commits and not row["is_first"]}
    latest: dict[int, tuple[bytes | None, str | None]] = dict.fromkeys(changed, (None, None))
    for ordinal, sequence, caption, source, is_first in rows:
        if ordinal in changed and (is_first or sequence not in voided):
            latest[ordinal] = _written(caption, source)
    connection.executemany(
        SET_CAPTION, [(*caption, toggle.sequence, dataset_id, ordinal) for ordinal, caption in latest.items()]
    )
    captioned = sets.load(connection, dataset_id, "captioned") - BitMap(changed)
    captioned.update(ordinal for ordinal, (caption, _) in latest.items() if caption is not None)
    sets.save(connection, dataset_id, "captioned", captioned)


def captions_at(
    connection: Connection, dataset_id: str, ordinals: Iterable[int], until: int
) -> dict[int, tuple[bytes | None, str | None]]:
    """The written captions of these images with their sources, as of a sequence; none where there was none."""
    voided = undos.voided(connection, dataset_id, until)
    found: dict[int, tuple[bytes | None, str | None]] = dict.fromkeys(ordinals, (None, None))
    for ordinal, sequence, caption, source, is_first in connection.execute(CAPTIONS, (dataset_id, json_array(found))):
        if sequence <= until and (is_first or sequence not in voided):
            found[ordinal] = _written(caption, source)
    return found


def caption_decisions(connection: Connection, dataset_id: str, ordinals: Iterable[int]) -> dict[int, tuple[str, int]]:
    """Who set or removed the caption of these images last, and its sequence, as far as anybody did and it counts."""
    rows = connection.execute(CAPTIONS, (dataset_id, json_array(ordinals))).fetchall()
    voided = undos.voided(connection, dataset_id) if rows else {}
    return {
        ordinal: (source, sequence)
        for ordinal, sequence, _, source, is_first in rows
        if is_first or sequence not in voided
    }


def _written(caption: bytes | None, source: str) -> tuple[bytes | None, str | None]:
    """A caption has a source, the lack of one has none."""
    return caption, None if caption is None else source


def orders(
    connection: Connection, dataset_id: str, ordinals: Iterable[int], until: int = MAX_SEQUENCE
) -> dict[int, tuple[str, ...]]:
    """The order of the tags of these images, where one was set and counts, as of a sequence."""
    return {ordinal: tags for ordinal, (tags, _) in order_decisions(connection, dataset_id, ordinals, until).items()}


def order_decisions(
    connection: Connection, dataset_id: str, ordinals: Iterable[int], until: int = MAX_SEQUENCE
) -> dict[int, tuple[tuple[str, ...], int]]:
    """The same, each with the sequence of the commit that set it."""
    rows = connection.execute(ORDERS, (dataset_id, json_array(ordinals), until)).fetchall()
    voided = undos.voided(connection, dataset_id, None if until == MAX_SEQUENCE else until) if rows else {}
    found: dict[int, tuple[tuple[str, ...], int]] = {}
    for ordinal, sequence, tags in rows:
        if ordinal not in found and sequence not in voided:
            found[ordinal] = _tags(tags), sequence
    return found
