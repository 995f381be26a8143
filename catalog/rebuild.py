"""The child, `python -m catalog.rebuild FOLDER TARGET`: all views made again from the archive, beside the live ones.

FOLDER is the catalog's; it is only read. TARGET is a file for the rows made again. Reports go to stdout, one a line:
how far it is, about once a second, and at last what was found. It ends when its stdin closes.
"""

import hashlib
import itertools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from catalog import entries, views
from catalog.database import Connection, DatabaseError, Row, reader, scratch
from catalog.store import Checkpoint, checkpoint
from contracts.audit import Difference, ReplayReport
from contracts.errors import LoratoryError

AT_ONCE = 2000
"""Commits put through the views in one transaction, as at a start."""
SHOWN = 300
"""So many characters of a value are told."""
TELL_SECONDS = 1.0
CHECKPOINT = "checkpoint"
TABLES = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name"
KEYS = "SELECT name FROM pragma_table_info(?) WHERE pk > 0 ORDER BY pk"
COLUMNS = "SELECT name FROM pragma_table_info(?)"

Tell = Callable[[ReplayReport], None]


def main() -> int:
    folder, target = map(Path, sys.argv[1:3])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent; this ends when its pipe closes
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.nice(10)
    try:
        _say(rebuild(folder, target, _say))
    except (LoratoryError, DatabaseError) as error:
        _say(ReplayReport(state="failed", error=str(error)))
    return 0


def rebuild(folder: Path, target: Path, tell: Tell) -> ReplayReport:
    """What a catalog would show that was made anew from the archive, and where the live one shows something else.

    The live rows are those of one snapshot; it is held only while the last commits are put through and compared.
    """
    with (
        closing(reader(folder / "archive.db")) as log,
        closing(reader(folder / "read.db")) as live,
        closing(scratch(views.TABLES, target)) as again,
    ):
        at = _replayed(log, again, 0, checkpoint(live).sequence, tell)
        live.execute("BEGIN")
        mark = checkpoint(live)
        at = _replayed(log, again, at, mark.sequence, tell)
        difference, rows = _compared(live, again)
        difference = _misplaced(log, mark) or difference
    if difference is None:
        return ReplayReport(state="same", sequence=at, until=at, rows=rows)
    return ReplayReport(state="different", sequence=at, until=at, rows=rows, difference=difference)


def _replayed(log: Connection, again: Connection, after: int, last: int, tell: Tell) -> int:
    told = time.monotonic()
    for start in range(after, last, AT_ONCE):
        end = min(start + AT_ONCE, last)
        batch = list(entries.commits_at(log, range(start + 1, end + 1)))
        if len(batch) != end - start:
            raise LoratoryError(f"the archive lacks commits between {start + 1} and {end}")
        again.execute("BEGIN")
        views.apply(again, batch)
        again.execute("COMMIT")
        if time.monotonic() - told >= TELL_SECONDS:
            told = time.monotonic()
            tell(ReplayReport(state="running", sequence=end, until=last))
    return last


def _misplaced(log: Connection, mark: Checkpoint) -> Difference | None:
    """Does the live checkpoint name the commit that stands there?"""
    bodies = [stored.body for stored in entries.commits_at(log, [mark.sequence])]
    digests = [hashlib.sha256(body).hexdigest() for body in bodies]
    if mark.sequence == 0 or digests == [mark.digest]:
        return None
    key: dict[str, object] = {"sequence": mark.sequence}
    return Difference(
        table=CHECKPOINT, key=key, live={"digest": mark.digest}, replayed={"digest": digests[0] if digests else None}
    )


def _compared(live: Connection, again: Connection) -> tuple[Difference | None, dict[str, int]]:
    """The first difference, table by table in the order of their names, rows by their keys; and the rows that agree."""
    rows: dict[str, int] = {}
    names = [[row["name"] for row in one.execute(TABLES) if row["name"] != CHECKPOINT] for one in (live, again)]
    for table in sorted({*names[0], *names[1]}):
        if table not in names[0] or table not in names[1]:
            there: dict[str, object] = {}
            live_one, made_one = (there if table in found else None for found in names)
            return Difference(table=table, key={}, live=live_one, replayed=made_one), rows
        rows[table], difference = _compared_table(live, again, table)
        if difference is not None:
            return difference, rows
    return None, rows


def _compared_table(live: Connection, again: Connection, table: str) -> tuple[int, Difference | None]:
    keys = [row["name"] for row in again.execute(KEYS, (table,))]
    keys = keys or [row["name"] for row in again.execute(COLUMNS, (table,))]
    here, there = (_rows(one, table, keys) for one in (live, again))
    number = 0
    for mine, made in itertools.zip_longest(here, there):
        if mine is None or made is None or tuple(mine) != tuple(made):
            return number, _difference(table, keys, mine, made)
        number += 1
    return number, None


def _rows(connection: Connection, table: str, keys: list[str]) -> Iterator[Row]:
    order = ", ".join(f'"{key}"' for key in keys)
    return connection.execute(f'SELECT * FROM "{table}" ORDER BY {order}')  # noqa: S608 - names of our own schema


def _difference(table: str, keys: list[str], mine: Row | None, made: Row | None) -> Difference:
    """The rows of the smaller key: a row that only one side has stands alone."""
    if mine is not None and made is not None:
        first, second = tuple(mine[key] for key in keys), tuple(made[key] for key in keys)
        if first != second:
            mine, made = (mine, None) if first < second else (None, made)
    one = mine if mine is not None else made
    assert one is not None  # noqa: S101 - zip_longest ends before both are none
    key = {name: _plain(one[name]) for name in keys}
    alike = {name for name in one.keys() if mine is not None and made is not None and mine[name] == made[name]}  # noqa: SIM118 - a Row iterates over its values
    return Difference(table=table, key=key, live=_told(mine, alike), replayed=_told(made, alike))


def _told(row: Row | None, alike: set[str]) -> dict[str, object] | None:
    """The columns that are not alike; none where there is no row."""
    return None if row is None else {name: _plain(value) for name, value in dict(row).items() if name not in alike}


def _plain(value: Any) -> object:
    """A value for people: bytes as the text they hold, or in hex; long ones cut."""
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            value = value.hex()
    return value[:SHOWN] if isinstance(value, str) else value


def _say(report: ReplayReport) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(report) + b"\n")
    sys.stdout.buffer.flush()


def _end_with_parent() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
