"""What was erased is destroyed wherever it lies: keys, blobs, uploads, old pages of the read model, every backup.

Driven by what the log says was erased, from the first to the last at every start: who was killed in between, or brings
old bytes back from somewhere, finds them gone soon after. To destroy what is gone already changes nothing.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from catalog.backups import BLOBS, KEYS, MANIFEST, strike_out
from catalog.database import Connection
from catalog.keys import Backup, Keys
from catalog.service.desk import Desk
from catalog.service.holds import Holds
from catalog.store import checkpoint
from catalog.views import erasures
from catalog.views.erasures import ErasedRow
from contracts.errors import LoratoryError, NotFound, Unavailable
from contracts.ids import Digest
from contracts.wire.blobs import Blobs, LocalBlobs
from contracts.wire.tasks import wanted

AT_ONCE = 500
AGAIN_SECONDS = 30.0
"""So often a new or returned backup is looked for, and what could not be destroyed is tried again."""
BEGINNING, LAST = (0, ""), "~"
"""Before all images, and an id after all."""

_log = structlog.get_logger()

Tell = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class Place:
    """Where copies lie: here (`backup` none), or in a backup."""

    keys: Keys | None
    """None: a backup without keys."""
    blobs: Blobs
    backup: Backup | None = None


class Sweeper:
    """`run` it once; `finish` waits for it."""

    def __init__(self, desk: Desk, keys: Keys, blobs: Blobs, staging: Path, holds: Holds, tell: Tell) -> None:  # noqa: PLR0913, PLR0917 - all that holds something of an image
        """`tell` says to the workers that something was erased: each drops its own copies."""
        self.keys = keys
        self._desk, self._blobs = desk, blobs
        self._staging, self._holds, self._tell = staging, holds, tell
        self._done: dict[Backup | None, tuple[int, str]] = {None: BEGINNING}
        """How far each place has been swept: the sequence and the image of the last one."""
        self._trouble: dict[Backup | None, str] = {}
        self._begun = self._ended = 0
        """Rounds."""
        self._woken = asyncio.Event()
        self._turned = asyncio.Condition()

    async def run(self) -> None:
        """Ends only when it is cancelled."""
        while wanted():
            self._woken.clear()
            await self.sweep()
            async with self._turned:
                self._ended = self._begun
                self._turned.notify_all()
            with suppress(TimeoutError):
                async with asyncio.timeout(AGAIN_SECONDS):
                    await self._woken.wait()

    async def finish(self, within: float) -> None:
        """Sweep now; returns when that has been tried everywhere, or `within` seconds are over. See `left`."""
        begun = self._begun  # the round under way may have begun without what is asked for now
        self._woken.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(within), self._turned:
                await self._turned.wait_for(lambda: self._ended > begun)

    def left(self, sequence: int) -> tuple[str, ...]:
        """Where something erased up to this sequence may still lie, in words; empty when it is gone everywhere."""
        return tuple(
            self._trouble.get(place) or f"{_name(place)} is being swept"
            for place, done in self._done.items()
            if done < (sequence, LAST)
        )

    async def sweep(self) -> None:
        """One round over all places. What is in the way of one does not save the others."""
        backups = await self.keys.backups()
        self._done = {place: self._done.get(place, BEGINNING) for place in (None, *backups)}
        self._begun += 1
        for backup in self._done:
            try:
                await self._sweep(backup)
                self._trouble.pop(backup, None)
            except (LoratoryError, OSError) as error:
                reason = error.detail if isinstance(error, LoratoryError) else str(error.strerror)
                if self._trouble.get(backup) is None:  # once, not every round
                    _log.warning("not_swept", place=_name(backup), error=str(error))
                self._trouble[backup] = f"{_name(backup)}: {reason}"

    async def _sweep(self, backup: Backup | None) -> None:
        """From where it stopped to the newest erasure."""
        await self._desk.seen()
        if not await self._next(backup):
            return
        async with self._opened(backup) as place:
            while rows := await self._next(backup):
                if place.keys is not None:
                    await place.keys.destroy(row.image_id for row in rows)
                if backup is None:
                    await self._clear_staging(rows)
                await self._delete_blobs(place, rows)
                if backup is None:
                    await self._desk.store.let_go()
                self._done[backup] = (rows[-1].sequence, rows[-1].image_id)
        if backup is None:
            await self._tell()

    async def _next(self, backup: Backup | None) -> list[ErasedRow]:
        """What is to be swept there; when nothing is, the place is clean up to where the rows stand."""

        def look(connection: Connection) -> tuple[list[ErasedRow], int]:
            return erasures.after(connection, self._done[backup], AT_ONCE), checkpoint(connection).sequence

        rows, sequence = await self._desk.store.read(look)
        if not rows:
            self._done[backup] = max(self._done[backup], (sequence, LAST))
        return rows

    @asynccontextmanager
    async def _opened(self, backup: Backup | None) -> AsyncIterator[Place]:
        if backup is None:
            yield Place(self.keys, self._blobs)
            return
        if not any((backup.path / name).is_file() for name in (MANIFEST, KEYS)):
            raise Unavailable("it is not where it was made; bring it back, or unregister it", service="catalog")
        keys = Keys(backup.path / KEYS) if (backup.path / KEYS).is_file() else None
        try:
            yield Place(keys, LocalBlobs(backup.path / BLOBS), backup)
        finally:
            if keys is not None:
                await keys.close()

    async def _delete_blobs(self, place: Place, rows: Sequence[ErasedRow]) -> None:
        """All but those that a living image needs. Unavailable: an import of the same picture is under way."""
        digests = frozenset[Digest]().union(*(row.digests for row in rows))
        async with self._holds.sweep() as held:
            await self._desk.seen()
            needed = await self._desk.store.read(lambda connection: erasures.in_use(connection, digests))
            await place.blobs.delete(digests - needed - held)
            if place.backup is not None:
                await asyncio.to_thread(strike_out, place.backup.path, digests - needed - held)
        if (digests - needed) & held:
            raise Unavailable("the same picture is being imported; when that is over, it is looked at again")

    async def _clear_staging(self, rows: Sequence[ErasedRow]) -> None:
        """Uploads, whole or cut off, that a killed gateway left; what was sent after the erasure is a new wish."""
        files = [file for file in self._staging.iterdir() if file.is_file()]
        for row in rows if files else ():
            for file in files:
                with suppress(FileNotFoundError, NotFound):  # its request has ended; the blob is gone already
                    if file.stat().st_mtime < row.at.timestamp() and await _begins(self._blobs, row.source, file):
                        file.unlink()


async def _begins(blobs: Blobs, digest: Digest, file: Path) -> bool:
    """Does the blob begin with all the bytes of the file, of which there are some?"""
    size = file.stat().st_size
    if not digest or not 0 < size <= await blobs.size(digest):
        return False
    with await asyncio.to_thread(file.open, "rb") as part:
        async for piece in blobs.stream(digest, 0, size):
            if await asyncio.to_thread(part.read, len(piece)) != piece:
                return False
    return True


def _name(backup: Backup | None) -> str:
    return "the data folder" if backup is None else f"the backup of {backup.at:%Y-%m-%d %H:%M} UTC"
