"""The child process `python -m catalog.rebuild FOLDER TARGET`: rebuilds all views from the archive and compares them.

FOLDER is the catalog's; it is only read. TARGET is a file for the rebuilt rows. Reports (`REPORTS`) go to stdout:
progress about once a second, and finally the result. The process exits when its stdin closes.
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
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from catalog import views
from catalog.archive.rows import ENTRIES_AFTER, read_batch, read_entries
from catalog.database import Connection, DatabaseError, Row, open_reader, open_scratch
from catalog.domain.image_sets import EMPTY, unread_blobs, with_bitmaps
from catalog.entries import accepted_losses
from catalog.store import Checkpoint, checkpoint
from catalog.views import pending, set_blobs
from contracts.audit import Difference, ReplayReport
from contracts.commits import ForeignMessage, RecordedCommit
from contracts.errors import LoratoryError
from contracts.ids import Digest
from contracts.wire.system.pipe import Frames

MAX_SHOWN_CHARACTERS = 300
"""Longer values are cut in a report."""
REPORT_INTERVAL_SECONDS = 1.0
PENDING_SECONDS = 0.1
"""Interval at which a rebuild that has caught up looks whether the live read model still works in something."""
CHECKPOINT = "checkpoint"
TABLES = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name"
KEYS = "SELECT name FROM pragma_table_info(?) WHERE pk > 0 ORDER BY pk"
COLUMNS = "SELECT name FROM pragma_table_info(?)"

REPORTS: Frames[ReplayReport] = Frames(ReplayReport, 1 << 20)

OnProgress = Callable[[ReplayReport], None]


@dataclass(frozen=True)
class Copies:
    """The archive, the live read model, and the one that is rebuilt from the archive."""

    log: Connection
    live: Connection
    rebuilt: Connection


def main() -> int:
    folder, target = map(Path, sys.argv[1:3])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent; this process exits when its pipe closes
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    os.nice(10)
    report = partial(REPORTS.write, sys.stdout.buffer)
    try:
        report(rebuild(folder, target, report))
    except (LoratoryError, DatabaseError) as error:
        report(ReplayReport(state="failed", error=str(error)))
    return 0


def rebuild(folder: Path, target: Path, report: OnProgress) -> ReplayReport:
    """Rebuild the read model from the archive and find the first difference from the live one.

    The live rows are those of one snapshot; it is held only while the last commits are applied and compared.
    """
    with (
        closing(open_reader(folder / "archive.db")) as log,
        closing(open_reader(folder / "read.db")) as live,
        closing(open_scratch(views.TABLES, target)) as rebuilt,
    ):
        copies = Copies(log, live, rebuilt)
        at = _replay(copies, 0, checkpoint(live).sequence, report)
        _begin_when_nothing_is_pending(live)
        live_checkpoint = checkpoint(live)
        at = _replay(copies, at, live_checkpoint.sequence, report)
        difference, rows = _compare(live, rebuilt)
        difference = _compare_checkpoint(log, live_checkpoint) or difference
    state: Literal["same", "different"] = "same" if difference is None else "different"
    return ReplayReport(state=state, sequence=at, until=at, rows=rows, difference=difference)


def _begin_when_nothing_is_pending(live: Connection) -> None:
    """Long applications go in slices: their rows can be compared only when they have ended."""
    while True:
        live.execute("BEGIN")
        if pending.first_pending(live) is None:
            return
        live.execute("ROLLBACK")
        time.sleep(PENDING_SECONDS)


def _replay(copies: Copies, after: int, last: int, report: OnProgress) -> int:
    reported, log, rebuilt = time.monotonic(), copies.log, copies.rebuilt
    while after < last:
        batch = read_batch(log, after, last)
        if not batch or batch[-1].sequence != after + len(batch):
            raise LoratoryError(f"the archive lacks commits between {after + 1} and {last}")
        after = batch[-1].sequence
        rebuilt.execute("BEGIN")
        views.apply(rebuilt, _with_sets(copies, [entry for entry in batch if isinstance(entry, RecordedCommit)]))
        views.add_foreign(rebuilt, [entry for entry in batch if isinstance(entry, ForeignMessage)])
        rebuilt.execute("COMMIT")
        if time.monotonic() - reported >= REPORT_INTERVAL_SECONDS:
            reported = time.monotonic()
            report(ReplayReport(state="running", sequence=after, until=last))
    return last


def _with_sets(copies: Copies, commits: list[RecordedCommit]) -> list[RecordedCommit]:
    """The commits with their sets of images, from the copies in the live read model that have the right digest."""
    named = {digest for recorded in commits for digest in unread_blobs(recorded)}
    if not named:
        return commits
    found, given_up = set_blobs.find(copies.live, named), accepted_losses(copies.log)

    def resolve(recorded: RecordedCommit) -> RecordedCommit:
        def bitmap(digest: Digest) -> bytes:
            if given_up.get(digest, 0) > recorded.sequence:
                return EMPTY.bitmap
            if digest not in found:
                raise LoratoryError(f"the read model has no intact copy of the set of images {digest}")
            return found[digest]

        return with_bitmaps(recorded, bitmap)

    return [resolve(recorded) for recorded in commits]


def _compare_checkpoint(log: Connection, live: Checkpoint) -> Difference | None:
    """A difference if the digest of the live checkpoint is not that of the archived commit."""
    bodies = [entry.body for entry in read_entries(log, ENTRIES_AFTER, (live.sequence - 1, 1))]
    digests = [hashlib.sha256(body).hexdigest() for body in bodies]
    if live.sequence == 0 or digests == [live.digest]:
        return None
    key: dict[str, object] = {"sequence": live.sequence}
    return Difference(
        table=CHECKPOINT, key=key, live={"digest": live.digest}, replayed={"digest": digests[0] if digests else None}
    )


def _compare(live: Connection, rebuilt: Connection) -> tuple[Difference | None, dict[str, int]]:
    """The first difference, tables by name and rows by key, and the number of equal rows of each table before it."""
    rows: dict[str, int] = {}
    live_tables, rebuilt_tables = _table_names(live), _table_names(rebuilt)
    for table in sorted(live_tables | rebuilt_tables):
        if table not in live_tables or table not in rebuilt_tables:
            in_live: dict[str, object] | None = {} if table in live_tables else None
            in_rebuilt: dict[str, object] | None = {} if table in rebuilt_tables else None
            return Difference(table=table, key={}, live=in_live, replayed=in_rebuilt), rows
        rows[table], difference = _compare_table(live, rebuilt, table)
        if difference is not None:
            return difference, rows
    return None, rows


def _table_names(connection: Connection) -> set[str]:
    return {row["name"] for row in connection.execute(TABLES)} - {CHECKPOINT}


def _compare_table(live: Connection, rebuilt: Connection, table: str) -> tuple[int, Difference | None]:
    """The number of equal rows before the first difference, and the difference."""
    keys = [row["name"] for row in rebuilt.execute(KEYS, (table,))]
    keys = keys or [row["name"] for row in rebuilt.execute(COLUMNS, (table,))]
    count = 0
    for left, right in itertools.zip_longest(_rows(live, table, keys), _rows(rebuilt, table, keys)):
        if left is None or right is None or tuple(left) != tuple(right):
            return count, _difference(table, keys, left, right)
        count += 1
    return count, None


def _rows(connection: Connection, table: str, keys: list[str]) -> Iterator[Row]:
    order = ", ".join(f'"{key}"' for key in keys)
    return connection.execute(f'SELECT * FROM "{table}" ORDER BY {order}')  # noqa: S608 - names of our own schema


def _difference(table: str, keys: list[str], live: Row | None, rebuilt: Row | None) -> Difference:
    """If the keys differ, only the row with the smaller key: the other side has no such row."""
    if live is not None and rebuilt is not None:
        live_key, rebuilt_key = tuple(live[key] for key in keys), tuple(rebuilt[key] for key in keys)
        if live_key != rebuilt_key:
            live, rebuilt = (live, None) if live_key < rebuilt_key else (None, rebuilt)
    row = live if live is not None else rebuilt
    assert row is not None  # noqa: S101 - zip_longest ends before both are none
    key = {name: _plain(row[name]) for name in keys}
    equal = {name for name in row.keys() if live is not None and rebuilt is not None and live[name] == rebuilt[name]}  # noqa: SIM118 - a Row iterates over its values
    return Difference(
        table=table, key=key, live=_differing_columns(live, equal), replayed=_differing_columns(rebuilt, equal)
    )


def _differing_columns(row: Row | None, equal: set[str]) -> dict[str, object] | None:
    """All columns but the equal ones; none if there is no row."""
    return None if row is None else {name: _plain(value) for name, value in dict(row).items() if name not in equal}


def _plain(value: Any) -> object:
    """A printable value: bytes as UTF-8 text, or in hex; long ones are cut."""
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            value = value.hex()
    return value[:MAX_SHOWN_CHARACTERS] if isinstance(value, str) else value


def _exit_with_parent() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
