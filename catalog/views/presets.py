"""Presets people saved. Those that come with Loratory are no rows: `catalog.domain.builtin_presets`."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from catalog.database import Connection
from catalog.views.batch import Batch
from contracts.events import PresetRetired, PresetSaved
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
    touched INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS preset_by_name ON preset (name, retired);
"""

SAVE = """
INSERT INTO preset (id, name, recipe, parent, description, created_at, touched) VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET
    name = excluded.name, recipe = excluded.recipe, parent = excluded.parent, description = excluded.description,
    retired = 0, touched = excluded.touched
"""
RETIRE = "UPDATE preset SET retired = 1, touched = ? WHERE id = ?"
BY_NAME = "SELECT * FROM preset WHERE name = ? ORDER BY retired, id LIMIT 1"
PAGE = "SELECT * FROM preset WHERE retired = 0 AND name > ? ORDER BY name LIMIT ?"
COUNT = "SELECT COUNT(*) FROM preset WHERE retired = 0"


@dataclass(frozen=True, kw_only=True)
class PresetRow:
    id: PresetId
    name: str
    recipe: Recipe
    parent: str | None
    description: str
    retired: bool
    created_at: datetime
    touched: int


def apply(connection: Connection, batch: Batch) -> None:
    for stored, fact in batch.facts(PresetSaved, PresetRetired):
        commit = stored.commit
        match fact:
            case PresetSaved(name=name, recipe=recipe, parent=parent, description=description):
                words = (commit.thing, name, msgspec.json.encode(recipe), parent, description)
                connection.execute(SAVE, (*words, commit.at.isoformat(), stored.sequence))
            case PresetRetired():
                connection.execute(RETIRE, (stored.sequence, commit.thing))


def find(connection: Connection, name: str) -> PresetRow | None:
    """The preset of this name; a retired one if there is no other."""
    row = connection.execute(BY_NAME, (name,)).fetchone()
    return None if row is None else _row(dict(row))


def page(connection: Connection, after: str, limit: int) -> list[PresetRow]:
    """By name, those after a name."""
    return [_row(dict(row)) for row in connection.execute(PAGE, (after, limit))]


def count(connection: Connection) -> int:
    return int(connection.execute(COUNT).fetchone()[0])


def _row(row: dict[str, Any]) -> PresetRow:
    recipe = msgspec.json.decode(row["recipe"], type=Recipe)
    created_at = datetime.fromisoformat(row["created_at"])
    return PresetRow(**row | {"recipe": recipe, "created_at": created_at, "retired": bool(row["retired"])})
