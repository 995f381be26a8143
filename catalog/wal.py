"""Reads a SQLite database with its WAL without opening it: to open one applies a WAL, also that of another database."""

import sqlite3
import struct
from collections.abc import Iterator

HEADER, FRAME_HEADER = 32, 24
"""Bytes; the format is https://www.sqlite.org/fileformat2.html#the_write_ahead_log."""
MASK = 0xFFFFFFFF


def in_memory(file: bytes, wal: bytes = b"") -> sqlite3.Connection:
    """A copy of a database in memory, as SQLite would open the file with this WAL."""
    content = bytearray(file)
    for start, page in _committed_pages(wal):
        content[start : start + len(page)] = page
    content[18:20] = b"\1\1"  # in memory there is no WAL
    connection = sqlite3.connect(":memory:")
    connection.row_factory = sqlite3.Row
    connection.deserialize(bytes(content))
    return connection


def _committed_pages(wal: bytes) -> Iterator[tuple[int, bytes]]:
    """The place of each page in the file, and its bytes, in order, up to the last whole transaction."""
    if len(wal) < HEADER:
        return
    order = ">II" if wal[3] & 1 else "<II"
    size = int.from_bytes(wal[8:12], "big")
    salts, checksum = wal[16:24], _checksum(order, wal[:24], (0, 0))
    if checksum != struct.unpack(">II", wal[24:32]) or not size:
        return
    pages: list[tuple[int, bytes]] = []
    for start in range(HEADER, len(wal) - FRAME_HEADER - size + 1, FRAME_HEADER + size):
        head, page = wal[start : start + FRAME_HEADER], wal[start + FRAME_HEADER : start + FRAME_HEADER + size]
        checksum = _checksum(order, page, _checksum(order, head[:8], checksum))
        if head[8:16] != salts or checksum != struct.unpack(">II", head[16:24]):
            return
        number, size_after_commit = struct.unpack(">II", head[:8])
        pages.append(((number - 1) * size, page))
        if size_after_commit:
            yield from pages
            pages.clear()


def _checksum(order: str, content: bytes, before: tuple[int, int]) -> tuple[int, int]:
    first, second = before
    for one, two in struct.iter_unpack(order, content):
        first = (first + one + second) & MASK
        second = (second + two + first) & MASK
    return first, second
