"""Writes a WAL back into its database beside the transactions; within one, all that follow would wait for it."""

import sqlite3
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import structlog

CHECKPOINT = "PRAGMA wal_checkpoint(PASSIVE)"

_log = structlog.get_logger(__name__)


class Checkpoints:
    """Those of one file, on a connection and a thread of their own. Its WAL must be truncated when it is reset."""

    def __init__(self, path: Path, connection: sqlite3.Connection, wal_bytes: int) -> None:
        """`connection` writes to the file and is closed here; `wal_bytes`: size of a WAL that is written back."""
        self._path, self._wal = path, path.with_name(f"{path.name}-wal")
        self._connection, self._wal_bytes = connection, wal_bytes
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"checkpoint-{path.stem}")
        self._running: Future[None] | None = None
        self._due = wal_bytes

    def begin_if_due(self) -> None:
        """To be called after each transaction."""
        if (self._running is None or self._running.done()) and self._wal.stat().st_size >= self._due:
            self._running = self._thread.submit(self._write_back)

    def wait(self) -> None:
        """Nothing is written back afterwards, until the next transaction has ended."""
        if self._running is not None:
            self._running.result()

    def close(self) -> None:
        self._thread.shutdown()
        self._connection.close()

    def _write_back(self) -> None:
        """A part that snapshots still need stays in the WAL, until it has grown by as much again."""
        try:
            _, pages, written = self._connection.execute(CHECKPOINT).fetchone()
        except sqlite3.OperationalError as error:  # as on a full disk: the WAL has everything
            _log.warning("checkpoint_failed", file=self._path.name, reason=str(error))
            pages, written = 1, 0
        self._due = self._wal_bytes if written == pages else self._wal.stat().st_size + self._wal_bytes
