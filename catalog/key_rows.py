"""The rows of `keys.db`, each with a digest: SQLite finds damaged pages, but no changed byte in a key.

A row whose digest is wrong counts as missing, so nothing is sealed with a wrong key and the loss is noticed.
"""

import hashlib
from collections.abc import Iterator
from sqlite3 import Connection, Row

import msgspec

DIGEST_BYTES = 8
DIGEST = "digest"
TABLES = {
    "erased": ["image_id"],
    "backup": ["path", "at"],
    "signer": ["one", "key", "replaces"],
    "log": ["log_id"],
    "key": ["image_id", "key"],
}
"""With their columns but for the digest; `key` last: which keys are taken from a file depends on what was erased."""
COLUMNS = "SELECT name FROM pragma_table_info(?)"


def row_digest(table: str, *values: str | bytes | int | None) -> bytes:
    """8 bytes that belong to a row: another one has them with a probability of 2^-64."""
    return hashlib.sha256(msgspec.msgpack.encode((table, *values))).digest()[:DIGEST_BYTES]


def read_any_text(connection: Connection) -> None:
    """Read damaged text as other text, whose digest is wrong: otherwise no row after it could be read."""
    connection.text_factory = _decode


def columns_of(connection: Connection, table: str) -> list[str]:
    """Empty if there is no such table."""
    return [row[0] for row in connection.execute(COLUMNS, (table,))]


def intact_rows(connection: Connection, table: str) -> Iterator[Row]:
    """The rows with the right digest; all rows of a file from before there were digests, none without the table."""
    return (row for row in _rows(connection, table) if is_intact(table, row))


def count_damaged(connection: Connection, table: str) -> int:
    return sum(not is_intact(table, row) for row in _rows(connection, table))


def is_intact(table: str, row: Row) -> bool:
    """Whether a whole row has the right digest."""
    if DIGEST not in row.keys():  # noqa: SIM118 - a row is no mapping: `in` would look at its values
        return True
    *values, digest = row
    return bool(digest == row_digest(table, *values))


def _rows(connection: Connection, table: str) -> Iterator[Row]:
    if columns_of(connection, table):
        yield from connection.execute(f"SELECT * FROM {table}")  # noqa: S608 - names of our own schema


def _decode(text: bytes) -> str:
    return text.decode(errors="replace")
