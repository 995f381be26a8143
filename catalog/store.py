"""The read model's file: a batch of commits and the checkpoint are written in one transaction, reads are snapshots.

It may be deleted at any time and is rebuilt identically, so a file that is damaged, or of another schema or log, is
just replaced.
"""

import asyncio
import hashlib
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn, Protocol, TypeVar

from catalog.checkpoints import Checkpoints
from catalog.database import (
    QUICK_CHECK,
    WAL_PAGES,
    Connection,
    Database,
    Snapshot,
    check_integrity,
    create_tables,
    is_corrupt,
    open_writer,
    peek,
    remove_database,
)
from catalog.pending import Pending, Planned, Slice, Waiting
from contracts.commits import Aggregate, ForeignMessage, LogEntry, RecordedCommit
from contracts.errors import Behind, LogDamaged, Unavailable

T = TypeVar("T")
ApplyCommits = Callable[[Connection, Sequence[RecordedCommit]], None]
CommitsAt = Callable[[Sequence[int]], Awaitable[Sequence[RecordedCommit]]]
MakePlan = Callable[[Planned], Awaitable[object]]
"""Makes the plan of a step, from rows that nothing of it has changed yet."""

SLICE_SECONDS = 0.02
"""Time after which a slice of a long application ends, to let others write; its last part and the commit come then."""
MAX_PENDING = 1000
"""Commits pending at which no more are taken in."""
CACHE_KIB = 48 * 1024
"""Large, because a batch touches rows far apart: pages that are not cached are read again for each batch."""
CHECKED_AT_START_BYTES = 64 << 20
"""A larger file is checked for damage once it serves: reading it may take longer than all else at the start."""
WAL_BYTES = WAL_PAGES * 4096
"""Size of a WAL that is written back beside the transactions."""
CHECKPOINTED_APART = (f"PRAGMA wal_autocheckpoint = {4 * WAL_PAGES}", "PRAGMA journal_size_limit = 0")
"""A transaction writes the WAL back only when it has become several times as large as it is when this begins apart."""

CHECKPOINT = """
CREATE TABLE IF NOT EXISTS checkpoint (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    schema INTEGER NOT NULL,
    log_id TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    digest TEXT NOT NULL
);
"""
READ_CHECKPOINT = "SELECT schema, log_id, sequence, digest FROM checkpoint"
CREATE_CHECKPOINT = "INSERT OR IGNORE INTO checkpoint VALUES (1, ?, ?, 0, '')"
RENAME_LOG = "UPDATE checkpoint SET log_id = ?"
MOVE_CHECKPOINT = "UPDATE checkpoint SET sequence = ?, digest = ?"


class ReadModel(Protocol):
    """All views together. Another VERSION causes the tables to be rebuilt from the log."""

    VERSION: int
    TABLES: str

    def apply(self, connection: Connection, commits: Sequence[RecordedCommit]) -> None: ...

    def take_in(self, connection: Connection, commits: Sequence[RecordedCommit]) -> None: ...

    def take_up(self, connection: Connection, commits: Iterable[RecordedCommit]) -> None: ...

    def next_work(self, connection: Connection) -> Slice | Waiting | None: ...

    def run(self, connection: Connection, part: Slice, plan: object, go_on: Callable[[], bool]) -> None: ...

    def read_pending(self, connection: Connection) -> Pending: ...

    def first_of_dataset(self, connection: Connection, dataset_id: str) -> int | None: ...

    def add_foreign(self, connection: Connection, messages: Sequence[ForeignMessage]) -> None: ...

    def foreign_heads(self, connection: Connection) -> dict[Aggregate, int]: ...


@dataclass(frozen=True)
class _Unsettled:
    """The first commit of an aggregate that is not applied completely."""

    aggregate: Aggregate
    sequence: int


@dataclass(frozen=True)
class Checkpoint:
    """The last commit applied to the rows: its sequence and the sha256 of its body."""

    schema: int
    log_id: str
    sequence: int
    digest: str


class Store(Database):
    """`applied` is a sequence that every new snapshot includes; `checkpoint` reads that of a snapshot."""

    def __init__(
        self, path: Path, log_id: str, model: ReadModel, *, checked_at_start: int = CHECKED_AT_START_BYTES
    ) -> None:
        """`checked_at_start`: maximum size in bytes of a file that is checked for damage before it serves."""
        self._log_id = log_id
        self._checked_at_start = checked_at_start
        self._model = model
        self._advanced = asyncio.Condition()
        self._pending: Mapping[Aggregate, int] = {}
        self._pending_commits = 0
        self.make_plan: MakePlan = lambda step: self.read(step.plan)
        self._plan: tuple[Slice, object] | None = None
        """Of the step that is being worked on; the same for all its slices."""
        self._damaged = asyncio.Event()
        self.before_apply: list[Callable[[Sequence[LogEntry]], None]] = []
        """Called with the entries that the rows show next."""
        self.foreign_heads: dict[Aggregate, int] = {}
        """The newest foreign message on the subject of each aggregate (kind, id) that has any."""
        super().__init__(path, self._open_writer(path))

    def _open_writer(self, path: Path) -> Connection:
        self._is_checked = not path.exists() or path.stat().st_size <= self._checked_at_start
        found = peek(path, _intact_checkpoint if self._is_checked else checkpoint)
        if found is None or (found.schema, found.log_id) != (self._model.VERSION, self._log_id):
            remove_database(path)
            found = None
        self.applied = found.sequence if found else 0
        tables = partial(create_tables, CHECKPOINT + self._model.TABLES)
        writer = open_writer(path, tables, secure_delete=True, rebuildable=True, cache_kib=CACHE_KIB)
        for pragma in CHECKPOINTED_APART:
            writer.execute(pragma)
        self._checkpoints = Checkpoints(path, open_writer(path, lambda _: None, rebuildable=True), WAL_BYTES)
        self.foreign_heads = self._model.foreign_heads(writer)
        self._set_pending(self._model.read_pending(writer))
        return writer

    @property
    def last_foreign(self) -> int:
        """Sequence of the newest foreign message applied; 0: there is none."""
        return max(self.foreign_heads.values(), default=0)

    async def write(self, work: Callable[[Connection], T]) -> T:
        """As `Database.write`. Unavailable: the file is damaged."""
        try:
            return await super().write(work)
        except sqlite3.DatabaseError as error:
            self._notice_damage(error)
            raise

    async def read(self, work: Callable[[Connection], T]) -> T:
        """As `Database.read`. Unavailable: the file is damaged."""
        try:
            return await super().read(work)
        except sqlite3.DatabaseError as error:
            self._notice_damage(error)
            raise

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Snapshot]:
        """As `Database.snapshot`. Unavailable: the file is damaged."""
        try:
            async with super().snapshot() as snapshot:
                yield snapshot
        except sqlite3.DatabaseError as error:
            self._notice_damage(error)
            raise

    async def fail_when_damaged(self) -> NoReturn:
        """Raises Unavailable once SQLite finds the file damaged: the next start rebuilds it. Looks for damage first."""
        if not self._is_checked:
            await self.read(partial(check_integrity, check=QUICK_CHECK))
        await self._damaged.wait()
        raise Unavailable("the read model's file is damaged; it is rebuilt at the next start", service="catalog")

    def _write(self, work: Callable[[Connection], T]) -> T:
        result = super()._write(work)
        self._checkpoints.begin_if_due()
        return result

    def _truncate_wal(self) -> None:
        self._checkpoints.wait()  # SQLite writes back once at a time
        super()._truncate_wal()

    def _close(self) -> None:
        super()._close()
        self._checkpoints.close()

    async def close(self) -> None:
        await super().close()
        if self._damaged.is_set():
            remove_database(self._path)

    async def apply(self, batch: Sequence[LogEntry]) -> int:
        """Apply entries in the order of the log, skipping those applied before. Returns the new `applied`.

        Nothing may be pending. LogDamaged, and nothing changed, if a commit is missing after the last applied one.
        """
        return await self._advance(batch, self._model.apply)

    async def take_in(self, batch: Sequence[LogEntry]) -> int:
        """As `apply`, but what takes long is pending afterwards, with all that must wait for it: see `work_on`."""
        return await self._advance(batch, self._model.take_in)

    async def _advance(self, batch: Sequence[LogEntry], apply: ApplyCommits) -> int:
        for observe in self.before_apply:
            observe(batch)
        applied, pending = await self.write(lambda connection: self._apply(connection, batch, apply))
        self._set_pending(pending)
        self.foreign_heads |= {entry.aggregate: entry.sequence for entry in batch if isinstance(entry, ForeignMessage)}
        self.applied = max(self.applied, applied)
        await self._notify()
        return self.applied

    async def wait_for(self, sequence: int, timeout: float = 2.0) -> None:
        """Wait until this sequence is applied; Behind after `timeout` seconds."""
        await self._wait_until(lambda: self.applied >= sequence, sequence, timeout)

    async def wait_until_settled(self, sequence: int, timeout: float) -> None:
        """Wait until all commits up to this sequence are shown completely; Behind after `timeout` seconds."""

        def is_settled() -> bool:
            return self.applied >= sequence < min(self._pending.values(), default=sequence + 1)

        await self._wait_until(is_settled, sequence, timeout)

    def is_shown(self, aggregate: Aggregate, sequence: int) -> bool:
        """Whether every new snapshot includes all that this commit of this aggregate changed."""
        first_pending = self._pending.get(aggregate, sequence + 1)
        return self.applied >= sequence < first_pending

    @property
    def pending(self) -> Mapping[Aggregate, int]:
        """The aggregates that are still being worked in, each with the first sequence not shown completely."""
        return self._pending

    async def work_on(self, commits_at: CommitsAt) -> bool:
        """Do one slice of what is pending, in a transaction; False: nothing is.

        The first of all is finished first. `commits_at` returns the commits of the log at ascending sequences.
        """
        work = await self.read(self._model.next_work)
        if work is None:
            self._plan = None
            return False
        if isinstance(work, Waiting):
            commits = await commits_at(work.sequences)
            pending = await self.write(lambda connection: self._take_up(connection, commits))
        else:
            plan = await self._plan_of(work)
            pending = await self.write(lambda connection: self._run(connection, work, plan))
        self._set_pending(pending)
        await self._notify()
        return True

    async def wait_until_pending(self) -> None:
        await self._wait_until(lambda: bool(self._pending), self.applied, None)

    async def wait_for_room(self) -> None:
        """Wait until so little is pending that more may be taken in."""
        await self._wait_until(lambda: self._pending_commits < MAX_PENDING, self.applied, None)

    async def read_settled(
        self, dataset_of: Callable[[Connection], str | None], work: Callable[[Connection], T], timeout: float
    ) -> T:
        """As `read`, on a snapshot in which no commit of a data set is applied in part; Behind after `timeout` seconds.

        `dataset_of` finds the data set on the snapshot; None: what is read depends on none.
        """

        def read(connection: Connection) -> T | _Unsettled:
            return self._first_unsettled(connection, dataset_of) or work(connection)

        end = time.monotonic() + timeout
        while isinstance(result := await self.read(read), _Unsettled):
            await self.wait_until_shown(result.aggregate, result.sequence, max(0.0, end - time.monotonic()))
        return result

    def _first_unsettled(
        self, connection: Connection, dataset_of: Callable[[Connection], str | None]
    ) -> _Unsettled | None:
        if not self._model.read_pending(connection).commits or (dataset_id := dataset_of(connection)) is None:
            return None
        first = self._model.first_of_dataset(connection, dataset_id)
        return None if first is None else _Unsettled(("dataset", dataset_id), first)

    async def _plan_of(self, work: Slice) -> object:
        if self._plan is None or not self._plan[0].is_of_same_step(work):
            self._plan = None  # its memory is free before the next one is made
            self._plan = (work, await self.make_plan(work.step))
        return self._plan[1]

    def _take_up(self, connection: Connection, commits: Sequence[RecordedCommit]) -> Pending:
        self._model.take_up(connection, commits)
        return self._model.read_pending(connection)

    def _run(self, connection: Connection, work: Slice, plan: object) -> Pending:
        end = time.monotonic() + SLICE_SECONDS
        self._model.run(connection, work, plan, lambda: time.monotonic() < end)
        return self._model.read_pending(connection)

    def _set_pending(self, pending: Pending) -> None:
        self._pending, self._pending_commits = pending.first, pending.commits

    async def wait_until_shown(self, aggregate: Aggregate, sequence: int, timeout: float | None = None) -> None:
        """Wait until this commit of this aggregate is shown; Behind after `timeout` seconds, if given."""
        await self._wait_until(lambda: self.is_shown(aggregate, sequence), sequence, timeout)

    async def _notify(self) -> None:
        async with self._advanced:
            self._advanced.notify_all()

    async def _wait_until(self, condition: Callable[[], bool], sequence: int, timeout: float | None) -> None:
        if condition():  # as for nearly all reads; a timeout costs something
            return
        try:
            async with asyncio.timeout(timeout), self._advanced:
                await self._advanced.wait_for(condition)
        except TimeoutError as error:
            raise Behind(applied=self.applied, asked=sequence) from error

    async def reset(self) -> None:
        """Delete all rows; the next batch must begin at the log's first commit."""
        await self.close()
        remove_database(self._path)
        super().__init__(self._path, self._open_writer(self._path))

    def _notice_damage(self, error: sqlite3.DatabaseError) -> None:
        """Raises Unavailable if SQLite finds the file damaged."""
        if is_corrupt(error):
            self._damaged.set()
            raise Unavailable(f"the read model is damaged and will be rebuilt: {error}", service="catalog") from error

    def _apply(self, connection: Connection, batch: Sequence[LogEntry], apply: ApplyCommits) -> tuple[int, Pending]:
        connection.execute(CREATE_CHECKPOINT, (self._model.VERSION, self._log_id))
        at = checkpoint(connection).sequence
        new = [recorded for recorded in batch if recorded.sequence > at]
        for expected, recorded in enumerate(new, start=at + 1):
            if recorded.sequence != expected:
                raise LogDamaged(f"commit {expected} is missing before {recorded.sequence}", first_bad=expected)
        if new:
            commits = [entry for entry in new if isinstance(entry, RecordedCommit)]
            apply(connection, commits)
            if len(commits) < len(new):
                self._model.add_foreign(connection, [entry for entry in new if isinstance(entry, ForeignMessage)])
            digest = hashlib.sha256(new[-1].body).hexdigest()
            connection.execute(MOVE_CHECKPOINT, (new[-1].sequence, digest))
        return at + len(new), self._model.read_pending(connection)


def checkpoint(connection: Connection) -> Checkpoint:
    """The last commit that this snapshot includes."""
    row: sqlite3.Row | None = connection.execute(READ_CHECKPOINT).fetchone()
    return Checkpoint(*row) if row else Checkpoint(0, "", 0, "")


def rename_log(path: Path, log_id: str) -> None:
    """Assign the rows to a restored log with a new id and the same commits. The file must not be open."""
    peek(path, lambda connection: connection.execute(RENAME_LOG, (log_id,)))


def _intact_checkpoint(connection: Connection) -> Checkpoint:
    """DatabaseError if the file is damaged."""
    check_integrity(connection, QUICK_CHECK)
    return checkpoint(connection)
