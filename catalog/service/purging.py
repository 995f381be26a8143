"""Destroys every copy of erased images: keys, blobs, uploads, freed pages of the read model, and all backups.

Each start goes through all erasures in the log again, from the first to the last, so a purge that was interrupted is
completed, and bytes that were brought back from elsewhere are deleted again. Purging is idempotent.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from catalog.backups import BLOBS, KEYS, MANIFEST, remove_from_manifest
from catalog.database import Connection
from catalog.keys import Keys, RegisteredBackup
from catalog.service.blob_pins import BlobPins
from catalog.service.execution import CommandExecutor
from catalog.store import checkpoint
from catalog.views import erasures
from catalog.views.erasures import ErasedRow
from contracts.errors import LoratoryError, NotFound, Unavailable
from contracts.ids import Digest
from contracts.wire.blobs import Blobs, LocalBlobs
from contracts.wire.cancellation import not_cancelled

PURGE_BATCH_SIZE = 500
PURGE_INTERVAL_SECONDS = 30.0
"""Interval at which new or reconnected backups are found and failed deletions are retried."""
FIRST_POSITION, AFTER_ALL_IMAGES = (0, ""), "~"
"""A position before all erasures, and an image id that sorts after all others."""

_log = structlog.get_logger()

NotifyWorkers = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class PurgeTarget:
    """A place that holds copies: the data folder (`backup` is None), or a backup."""

    keys: Keys | None
    """None for a backup without keys."""
    blobs: Blobs
    backup: RegisteredBackup | None = None


class Purger:
    """`run` is the background task; `purge_now` waits for one of its rounds."""

    def __init__(  # noqa: PLR0913, PLR0917 - everything that holds a copy of an image
        self,
        executor: CommandExecutor,
        keys: Keys,
        blobs: Blobs,
        staging: Path,
        pins: BlobPins,
        notify_workers: NotifyWorkers,
    ) -> None:
        """`notify_workers` publishes that something was erased, so that each worker drops its cached copies."""
        self.keys = keys
        self._executor, self._blobs = executor, blobs
        self._staging, self._pins, self._notify_workers = staging, pins, notify_workers
        self._progress: dict[RegisteredBackup | None, tuple[int, str]] = {None: FIRST_POSITION}
        """How far each target has been purged: sequence and image of the last erasure handled there."""
        self._failures: dict[RegisteredBackup | None, str] = {}
        self._rounds_started = self._rounds_finished = 0
        """Counters of purge rounds over all targets."""
        self._wake_up = asyncio.Event()
        self._round_finished = asyncio.Condition()

    async def run(self) -> None:
        """Purge every PURGE_INTERVAL_SECONDS, or when woken, until cancelled."""
        while not_cancelled():
            self._wake_up.clear()
            await self.purge()
            async with self._round_finished:
                self._rounds_finished = self._rounds_started
                self._round_finished.notify_all()
            with suppress(TimeoutError):
                async with asyncio.timeout(PURGE_INTERVAL_SECONDS):
                    await self._wake_up.wait()

    async def purge_now(self, timeout: float) -> None:
        """Start a round and wait until it has tried every target, at most `timeout` seconds. See `pending`."""
        started = self._rounds_started  # the round in progress may have missed the newest erasure, so wait for the next
        self._wake_up.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout), self._round_finished:
                await self._round_finished.wait_for(lambda: self._rounds_finished > started)

    def pending(self, sequence: int) -> tuple[str, ...]:
        """Targets that may still hold something erased up to this sequence, as sentences for people; empty if none."""
        return tuple(
            self._failures.get(target) or f"{_describe(target)} is being purged"
            for target, progress in self._progress.items()
            if progress < (sequence, AFTER_ALL_IMAGES)
        )

    async def purge(self) -> None:
        """One round over all targets; a failure in one does not stop the others."""
        backups = await self.keys.backups()
        self._progress = {target: self._progress.get(target, FIRST_POSITION) for target in (None, *backups)}
        self._rounds_started += 1
        for backup in self._progress:
            try:
                await self._purge_target(backup)
                self._failures.pop(backup, None)
            except (LoratoryError, OSError) as error:
                reason = error.detail if isinstance(error, LoratoryError) else str(error.strerror)
                if self._failures.get(backup) is None:  # log once, not every round
                    _log.warning("purge_failed", target=_describe(backup), error=str(error))
                self._failures[backup] = f"{_describe(backup)}: {reason}"

    async def _purge_target(self, backup: RegisteredBackup | None) -> None:
        """Purge one target, from where it stopped up to the newest erasure."""
        await self._executor.wait_until_applied()
        if not await self._next_batch(backup):
            return
        async with self._open_target(backup) as target:
            while rows := await self._next_batch(backup):
                if target.keys is not None:
                    await target.keys.destroy(row.image_id for row in rows)
                if backup is None:
                    await self._clear_staging(rows)
                await self._delete_blobs(target, rows)
                if backup is None:
                    await self._executor.store.purge_deleted()
                self._progress[backup] = (rows[-1].sequence, rows[-1].image_id)
        if backup is None:
            await self._notify_workers()

    async def _next_batch(self, backup: RegisteredBackup | None) -> list[ErasedRow]:
        """The next erasures to purge there; if there are none, the target is clean up to the read model's sequence."""

        def read(connection: Connection) -> tuple[list[ErasedRow], int]:
            return erasures.page(connection, self._progress[backup], PURGE_BATCH_SIZE), checkpoint(connection).sequence

        rows, sequence = await self._executor.store.read(read)
        if not rows:
            self._progress[backup] = max(self._progress[backup], (sequence, AFTER_ALL_IMAGES))
        return rows

    @asynccontextmanager
    async def _open_target(self, backup: RegisteredBackup | None) -> AsyncIterator[PurgeTarget]:
        if backup is None:
            yield PurgeTarget(self.keys, self._blobs)
            return
        if not any((backup.path / name).is_file() for name in (MANIFEST, KEYS)):
            raise Unavailable("its folder is missing; bring it back, or unregister the backup", service="catalog")
        keys = Keys(backup.path / KEYS) if (backup.path / KEYS).is_file() else None
        try:
            yield PurgeTarget(keys, LocalBlobs(backup.path / BLOBS), backup)
        finally:
            if keys is not None:
                await keys.close()

    async def _delete_blobs(self, target: PurgeTarget, rows: Sequence[ErasedRow]) -> None:
        """Delete all blobs that no remaining image uses. Unavailable: the same picture is being imported."""
        digests = frozenset[Digest]().union(*(row.digests for row in rows))
        async with self._pins.exclusive() as pinned:
            await self._executor.wait_until_applied()
            in_use = await self._executor.store.read(lambda connection: erasures.digests_in_use(connection, digests))
            await target.blobs.delete(digests - in_use - pinned)
            if target.backup is not None:
                await asyncio.to_thread(remove_from_manifest, target.backup.path, digests - in_use - pinned)
        if (digests - in_use) & pinned:
            raise Unavailable("the same picture is being imported; its blobs are checked again afterwards")

    async def _clear_staging(self, rows: Sequence[ErasedRow]) -> None:
        """Delete complete or partial uploads that a killed gateway left behind.

        Uploads newer than the erasure stay: they belong to a new import.
        """
        files = [file for file in self._staging.iterdir() if file.is_file()]
        for row in rows if files else ():
            for file in files:
                with suppress(FileNotFoundError, NotFound):  # its request has ended; the blob is gone already
                    if file.stat().st_mtime < row.at.timestamp() and await _is_prefix_of_blob(
                        self._blobs, row.source, file
                    ):
                        file.unlink()


async def _is_prefix_of_blob(blobs: Blobs, digest: Digest, file: Path) -> bool:
    """Whether the file is not empty and the blob starts with its bytes."""
    size = file.stat().st_size
    if not digest or not 0 < size <= await blobs.size(digest):
        return False
    with await asyncio.to_thread(file.open, "rb") as upload:
        async for chunk in blobs.stream(digest, 0, size):
            if await asyncio.to_thread(upload.read, len(chunk)) != chunk:
                return False
    return True


def _describe(backup: RegisteredBackup | None) -> str:
    return "the data folder" if backup is None else f"the backup of {backup.at:%Y-%m-%d %H:%M} UTC"
