"""Rows as objects, and objects composed of others: what each field is filled from."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime

import msgspec
import pytest

from catalog.domain.compose import compose
from catalog.rows import fetch, fetch_number, fetch_one, fetch_value
from contracts.events.jobs import Artifact
from contracts.ids import Digest

ARTIFACT = Artifact(name="cat", format="kohya", digest=Digest("d"), size=1, tensors=Digest("t"))
TIME = datetime(2026, 11, 21, 12, tzinfo=UTC)


class Item(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    live: bool
    at: datetime
    ended_at: datetime | None
    best: Artifact | None
    artifacts: tuple[Artifact, ...]


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE item (number, name, live, at, ended_at, best, artifacts)")
        best, artifacts = msgspec.json.encode(ARTIFACT), msgspec.json.encode([ARTIFACT])
        rows = [
            (1, "null", 1, TIME.isoformat(), TIME.isoformat(), best, artifacts),
            (2, "b", 0, TIME.isoformat(), None, None, b"[]"),
        ]
        connection.executemany("INSERT INTO item VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        yield connection


def test_columns_have_the_types_of_the_fields_and_others_are_left_out(connection: sqlite3.Connection) -> None:
    assert fetch(connection, Item, "SELECT * FROM item ORDER BY number") == [
        Item(name="null", live=True, at=TIME, ended_at=TIME, best=ARTIFACT, artifacts=(ARTIFACT,)),
        Item(name="b", live=False, at=TIME, ended_at=None, best=None, artifacts=()),
    ]


def test_one_row_one_value_and_a_number(connection: sqlite3.Connection) -> None:
    found = fetch_one(connection, Item, "SELECT * FROM item WHERE number = ?", (2,))
    assert found is not None and found.name == "b"
    assert fetch_one(connection, Item, "SELECT * FROM item WHERE number = :number", {"number": 3}) is None
    assert fetch_value(connection, "SELECT name FROM item WHERE number = 2") == "b"
    assert fetch_value(connection, "SELECT name FROM item WHERE number = 3") is None
    assert fetch_number(connection, "SELECT COUNT(*) FROM item") == 2


class Label(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    size: int
    note: str = ""


def test_a_field_is_taken_from_the_first_source_that_has_it_unless_it_is_given() -> None:
    assert compose(Label, ARTIFACT, note="new") == Label(name="cat", size=1, note="new")
    assert compose(Label, Label(name="first", size=2), ARTIFACT, size=3) == Label(name="first", size=3)


def test_a_field_that_no_source_has_is_an_error_even_if_it_has_a_default() -> None:
    with pytest.raises(TypeError, match="nothing gives Label its note"):
        compose(Label, ARTIFACT)
