"""Harm done to files: what disks, copies and people do to a log and its archive."""

import os
import re
import shutil
import sqlite3
from pathlib import Path

import pytest

LOST_LINES = pytest.mark.filterwarnings(
    # nats-py does not close the socket of a try to reconnect that failed half-way.
    r"ignore:Exception ignored in. <function StreamWriter.__del__:pytest.PytestUnraisableExceptionWarning"
)
BLOCKS = "streams/jetstream/LORATORY/streams/EVT/msgs"


def blocks(nats: Path) -> list[Path]:
    """The log's block files under the data folder of a nats-server that is stopped, oldest first."""
    return sorted((nats / BLOCKS).glob("*.blk"), key=lambda file: int(file.stem))


def flip_bit(file: Path, place: int) -> None:
    """Of the byte at `place`."""
    with file.open("r+b") as opened:
        opened.seek(place)
        (byte,) = opened.read(1)
        opened.seek(place)
        opened.write(bytes([byte ^ 4]))


def flip_in(file: Path, text: bytes) -> None:
    """A bit of the last byte of `text`, wherever it stands: databases leave old copies of what they moved."""
    content = file.read_bytes()
    places = [match.end() - 1 for match in re.finditer(re.escape(text), content)]
    assert places
    for place in places:
        flip_bit(file, place)


def cut(file: Path, text: bytes) -> None:
    """The file ends in the middle of `text`."""
    os.truncate(file, file.read_bytes().index(text) + len(text) // 2)


def forget_index(nats: Path) -> None:
    """As after a crash: the server looks through its blocks anew."""
    (nats / BLOCKS / "index.db").unlink(missing_ok=True)


def delete_log(nats: Path) -> None:
    shutil.rmtree((nats / BLOCKS).parent)


def change(database: Path, statement: str, *values: object) -> None:
    """Of a SQLite file, behind the back of who has it open."""
    connection = sqlite3.connect(database, isolation_level=None)
    connection.execute(statement, values)
    connection.close()
