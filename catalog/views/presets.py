"""Presets saved by users. The built-in ones are in `catalog.domain.builtin_presets` and have no rows."""

from datetime import datetime

import msgspec

from catalog.database import Connection
from catalog.rows import fetch, fetch_number, fetch_one
from catalog.views.batch import CommitBatch
from contracts.events.presets import PresetRetired, PresetSaved
from contracts.ids import PresetId
from contracts.recipe import Recipe

TABLES = """
CREATE TABLE IF NOT EXISTS preset (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    recipe BLOB NOT NULL,
    parent TEXT,
    description TEXT NOT NULL,
    retired INTEGER NOT NULL DEFAULT 0,
    created_at TEXT NOT NULL,
    etag INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS preset_by_name ON preset (name, retired);
"""

SAVE = """
INSERT INTO preset (id, name, recipe, parent, description, created_at, etag) VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET
    name = excluded.name, recipe = excluded.recipe, parent = excluded.parent, description = excluded.description,
    retired = 0, etag = excluded.etag
"""
RETIRE = "UPDATE preset SET retired = 1, etag = ? WHERE id = ?"
BY_NAME = "SELECT * FROM preset WHERE name = ? ORDER BY retired, id LIMIT 1"
PAGE = "SELECT * FROM preset WHERE retired = 0 AND name > ? ORDER BY name LIMIT ?"
COUNT = "SELECT COUNT(*) FROM preset WHERE retired = 0"


class PresetRow(msgspec.Struct, frozen=True, kw_only=True):
    id: PresetId
    name: str
    recipe: Recipe
    parent: str | None
    description: str
    retired: bool
    created_at: datetime
    etag: int


def apply(connection: Connection, batch: CommitBatch) -> None:
    for recorded, event in batch.events(PresetSaved, PresetRetired):
        commit = recorded.commit
        match event:
            case PresetSaved(name=name, recipe=recipe, parent=parent, description=description):
                row = (commit.aggregate_id, name, msgspec.json.encode(recipe), parent, description)
                connection.execute(SAVE, (*row, commit.at.isoformat(), recorded.sequence))
            case PresetRetired():
                connection.execute(RETIRE, (recorded.sequence, commit.aggregate_id))


def find(connection: Connection, name: str) -> PresetRow | None:
    """The preset of this name; a retired one if there is no other."""
    return fetch_one(connection, PresetRow, BY_NAME, (name,))


def page(connection: Connection, after: str, limit: int) -> list[PresetRow]:
    """By name, those after a name."""
    return fetch(connection, PresetRow, PAGE, (after, limit))


def count(connection: Connection) -> int:
    return fetch_number(connection, COUNT)
