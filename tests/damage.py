"""Damage to the files of a log and its archive, as disks, copies and people cause it."""

import os
import re
import shutil
import sqlite3
from pathlib import Path

import pytest

IGNORE_UNCLOSED_SOCKETS = pytest.mark.filterwarnings(
    # nats-py leaves the socket open when a reconnection attempt fails half-way.
    r"ignore:Exception ignored in. <function StreamWriter.__del__:pytest.PytestUnraisableExceptionWarning"
)
MESSAGE_FOLDER = "streams/jetstream/LORATORY/streams/EVT/msgs"


def block_files(nats: Path) -> list[Path]:
    """The log's block files in the data folder of a stopped nats-server, oldest first."""
    return sorted((nats / MESSAGE_FOLDER).glob("*.blk"), key=lambda file: int(file.stem))


def flip_bit(file: Path, position: int) -> None:
    """Flip one bit of the byte at `position`."""
    with file.open("r+b") as opened:
        opened.seek(position)
        (byte,) = opened.read(1)
        opened.seek(position)
        opened.write(bytes([byte ^ 4]))


def flip_bit_in_text(file: Path, text: bytes) -> None:
    """Flip a bit in the last byte of each occurrence of `text`: databases keep old copies of moved rows."""
    content = file.read_bytes()
    positions = [match.end() - 1 for match in re.finditer(re.escape(text), content)]
    assert positions
    for position in positions:
        flip_bit(file, position)


def truncate_within(file: Path, text: bytes) -> None:
    """Truncate the file in the middle of `text`."""
    os.truncate(file, file.read_bytes().index(text) + len(text) // 2)


def delete_index(nats: Path) -> None:
    """As after a crash: the server scans its blocks again."""
    (nats / MESSAGE_FOLDER / "index.db").unlink(missing_ok=True)


def delete_log(nats: Path) -> None:
    shutil.rmtree((nats / MESSAGE_FOLDER).parent)


def execute_sql(database: Path, statement: str, *values: object) -> None:
    """Change a SQLite file over a separate connection, while another process may have it open."""
    connection = sqlite3.connect(database, isolation_level=None)
    connection.execute(statement, values)
    connection.close()


def invert(file: Path, *, start: float, end: float) -> None:
    """Invert the bytes between two fractions of the file, as a disk with bad sectors returns others."""
    content = bytearray(file.read_bytes())
    first, last = int(len(content) * start), max(int(len(content) * end), int(len(content) * start) + 1)
    content[first:last] = bytes(byte ^ 0xFF for byte in content[first:last])
    file.write_bytes(content)


def truncate(file: Path) -> None:
    """Lose the last third."""
    os.truncate(file, file.stat().st_size * 2 // 3)


def damage_file(file: Path, how: str, other: Path) -> None:
    """`middle`, `end`, `emptied`, `deleted`, or `another`: that of another workshop takes its place."""
    match how:
        case "middle":
            invert(file, start=0.4, end=0.6)
        case "end":
            truncate(file)
        case "emptied":
            os.truncate(file, 0)
        case "deleted":
            file.unlink()
        case "another":
            shutil.copyfile(other, file)
        case _:
            raise ValueError(how)
