"""Destroys every copy of erased images: keys, blobs, uploads, freed pages of the read model, and all backups.

Each start goes through all erasures in the log again, from the first to the last, so a purge that was interrupted is
completed, and bytes that were brought back from elsewhere are deleted again. Purging is idempotent.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from catalog.backups.manifest import BLOBS, MANIFEST, remove_from_manifest
from catalog.database import Connection
from catalog.key_file import remove_damaged_keys
from catalog.keys import KEYS, Keys, RegisteredBackup
from catalog.service.blob_pins import BlobPins
from catalog.service.execution import CommandExecutor
from catalog.store import checkpoint
from catalog.views import erasures, live_blobs, pending
from contracts.errors import LoratoryError, NotFound, Unavailable
from contracts.ids import Digest
from contracts.retry import Outage, repeat
from contracts.wire.blobs.source import read_source
from contracts.wire.blobs.store import Blobs, Damaged, LocalBlobs

FIRST_POSITION, AFTER_ALL_IMAGES = (0, ""), "~"
"""A position before all erasures, and an image id that sorts after all others."""

NotifyWorkers = Callable[[], Awaitable[None]]


class PurgeLimits(msgspec.Struct, frozen=True, kw_only=True):
    """`interval` seconds, at which reconnected backups are found and failed deletions retried; `wait` for a round."""

    batch_size: int = 500
    interval: float = 30.0
    wait: float = 8.0


DEFAULT_PURGE_LIMITS = PurgeLimits()


@dataclass
class _Progress:
    """How far a place that holds copies (the data folder, or a backup) has been purged, and what went wrong.

    `position`: sequence and image of the last erasure handled there.
    """

    position: tuple[int, str] = FIRST_POSITION
    failure: str = ""
    outage: Outage = field(default_factory=lambda: Outage("purge_failed"))


@dataclass
class Purger:
    """`run` is the background task; `purge_now` waits for one of its rounds."""

    executor: CommandExecutor
    keys: Keys
    blobs: Blobs
    staging: Path
    pins: BlobPins
    notify_workers: NotifyWorkers
    """Publishes that something was erased, so that each worker drops its cached copies."""
    limits: PurgeLimits = DEFAULT_PURGE_LIMITS
    _targets: dict[RegisteredBackup | None, _Progress] = field(default_factory=lambda: {None: _Progress()})
    """By backup; None is the data folder."""
    _rounds_started: int = 0
    _rounds_finished: int = 0
    _wake_up: asyncio.Event = field(default_factory=asyncio.Event)
    _round_finished: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def run(self) -> None:
        """Purge every `limits.interval` seconds, or when woken, until cancelled."""
        await repeat(self._run_round, every=self.limits.interval, wake=self._wake_up)

    async def _run_round(self) -> None:
        await self.purge()
        async with self._round_finished:
            self._rounds_finished = self._rounds_started
            self._round_finished.notify_all()

    async def purge_now(self) -> None:
        """Start a round and wait until it has tried every target, at most `limits.wait` seconds. See `pending`."""
        started = self._rounds_started  # the round in progress may have missed the newest erasure, so wait for the next
        self._wake_up.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(self.limits.wait), self._round_finished:
                await self._round_finished.wait_for(lambda: self._rounds_finished > started)

    def pending(self, sequence: int) -> tuple[str, ...]:
        """Targets that may still hold something erased up to this sequence, as sentences for people; empty if none."""
        return tuple(
            progress.failure or f"{_describe(target)} is being purged"
            for target, progress in self._targets.items()
            if progress.position < (sequence, AFTER_ALL_IMAGES)
        )

    async def purge(self) -> None:
        """One round over all targets; a failure in one does not stop the others."""
        backups = await self.keys.backups()
        self._targets = {target: self._targets.get(target) or _Progress() for target in (None, *backups)}
        self._rounds_started += 1
        for backup, progress in self._targets.items():
            try:
                await self._purge_target(backup, progress)
            except (LoratoryError, OSError) as error:
                reason = error.detail if isinstance(error, LoratoryError) else str(error.strerror)
                progress.failure = f"{_describe(backup)}: {reason}"
                progress.outage.begun(error, target=_describe(backup))
            else:
                progress.failure = ""
                progress.outage.ended()

    async def purge_data_folder(self) -> None:
        """Purge only the data folder, whatever comes of the backups. LoratoryError, OSError: it could not be done."""
        await self._purge_target(None, self._targets[None])

    async def _purge_target(self, backup: RegisteredBackup | None, progress: _Progress) -> None:
        """Purge one target, from where it stopped up to the newest erasure."""
        await self.executor.wait_until_applied()
        if not await self._next_batch(progress):
            return
        async with self._open_target(backup) as (keys, blobs):
            while rows := await self._next_batch(progress):
                if keys is not None:
                    await keys.destroy(row.image_id for row in rows)
                if backup is None:
                    await self._clear_staging(rows)
                    await asyncio.to_thread(remove_damaged_keys, self.keys.folder)
                await self._delete_blobs(blobs, rows, backup)
                if backup is None:
                    await self.executor.store.truncate_wal()
                progress.position = (rows[-1].sequence, rows[-1].image_id)
        if backup is None:
            await self.notify_workers()

    async def _next_batch(self, progress: _Progress) -> list[erasures.ErasedRow]:
        """The next erasures to purge there; if there are none, the target is clean up to what the read model shows."""

        def read(connection: Connection) -> tuple[list[erasures.ErasedRow], int]:
            end = pending.first_pending(connection) or checkpoint(connection).sequence + 1
            rows = erasures.page(connection, progress.position, self.limits.batch_size)
            return [row for row in rows if row.sequence < end], end - 1

        rows, sequence = await self.executor.store.read(read)
        if not rows:
            progress.position = max(progress.position, (sequence, AFTER_ALL_IMAGES))
        return rows

    @asynccontextmanager
    async def _open_target(self, backup: RegisteredBackup | None) -> AsyncIterator[tuple[Keys | None, Blobs]]:
        """Its keys, if it has any, and its blobs."""
        if backup is None:
            yield self.keys, self.blobs
            return
        if not any((backup.path / name).is_file() for name in (MANIFEST, KEYS)):
            raise Unavailable("its folder is missing; bring it back, or unregister the backup", service="catalog")
        blobs = LocalBlobs(backup.path / BLOBS)
        if not (backup.path / KEYS).is_file():
            yield None, blobs
            return
        async with await Keys.open(backup.path / KEYS) as keys:
            yield keys, blobs

    async def _delete_blobs(
        self, blobs: Blobs, rows: Sequence[erasures.ErasedRow], backup: RegisteredBackup | None
    ) -> None:
        """Delete all blobs that no remaining image uses. Unavailable: the same picture is being imported."""
        digests = frozenset[Digest]().union(*(row.digests for row in rows))
        async with self.pins.exclusive() as pinned:
            await self.executor.wait_until_applied()
            in_use = await self.executor.store.read(lambda connection: live_blobs.in_use(connection, digests))
            await blobs.delete(digests - in_use - pinned)
            if backup is not None:
                await asyncio.to_thread(remove_from_manifest, backup.path, digests - in_use - pinned)
        if (digests - in_use) & pinned:
            raise Unavailable("the same picture is being imported; its blobs are checked again afterwards")

    async def _clear_staging(self, rows: Sequence[erasures.ErasedRow]) -> None:
        """Delete complete or partial uploads that a killed gateway left behind.

        Uploads newer than the erasure stay: they belong to a new import.
        """
        files = [file for file in self.staging.iterdir() if file.is_file()]
        for row in rows if files else ():
            for file in files:
                with suppress(FileNotFoundError, NotFound, Damaged):  # its request has ended; the blob is gone already
                    if file.stat().st_mtime < row.at.timestamp() and await _is_prefix_of_source(self.blobs, row, file):
                        file.unlink()


async def _is_prefix_of_source(blobs: Blobs, row: erasures.ErasedRow, file: Path) -> bool:
    """Whether the file is not empty and the erased source starts with its bytes."""
    if row.cut is None:
        return await _is_prefix_of_blob(blobs, row.source, file)
    source = await read_source(blobs, row.source, picture=row.picture, cut=row.cut)
    if not 0 < file.stat().st_size <= len(source):
        return False
    return source.startswith(await asyncio.to_thread(file.read_bytes))


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
