"""Reads stored blobs and compares their bytes with their digests: slowly again and again, or all at once on demand."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field

import msgspec

from catalog.watch.presence import is_intact
from contracts.cancellation import not_cancelled
from contracts.errors import Conflict, Unavailable
from contracts.ids import Digest
from contracts.losses import BlobAudit
from contracts.wire.blobs.store import Blobs

PREFIXES = 256
"""Parts that a store is read in: by the first two hex digits of the digests."""

Pace = Callable[[int], Awaitable[None]]
"""Waits after so many bytes were read."""


class PatrolPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How slowly the patrol reads. A store that is too large for `round_seconds` takes longer: the rate limits it.

    An object store is read in ranges that are requested one by one, so no connection is open while the patrol waits.
    """

    round_seconds: float = 3 * 24 * 3600.0
    """Time in which the whole store is read once."""
    bytes_per_second: float = 20_000_000
    """Maximum rate while it reads: a small part of what a disk does."""


DEFAULT_PATROL = PatrolPolicy()


@dataclass
class Patrol:
    """`on_damaged` is called with each blob whose bytes are not those of its digest."""

    blobs: Blobs
    on_damaged: Callable[[Digest], Awaitable[None]]
    policy: PatrolPolicy = DEFAULT_PATROL
    last_audit: BlobAudit = field(default_factory=lambda: BlobAudit(state="never"))
    """The reading of all blobs on demand."""
    _requested: asyncio.Event = field(default_factory=asyncio.Event)

    async def run_round(self) -> None:
        """Read the whole store slowly, from a random part on and in random order: cut short, it has read a sample."""
        pause = self.policy.round_seconds / PREFIXES
        for prefix in _prefixes(random.randrange(PREFIXES)):
            started = time.monotonic()
            async for digest, intact in _read(self.blobs, prefix, self._wait):
                if not intact:
                    await self.on_damaged(digest)
            await asyncio.sleep(max(0.0, pause - (time.monotonic() - started)))

    def start_audit(self) -> BlobAudit:
        """Start to read all blobs at once. Conflict: that is being done."""
        if self.last_audit.state == "running":
            raise Conflict("the blobs are being read already; try again when that has ended")
        self.last_audit = BlobAudit(state="running")
        self._requested.set()
        return self.last_audit

    async def run_audits(self) -> None:
        """Do what `start_audit` asked for, until cancelled."""
        while not_cancelled():
            await self._requested.wait()
            self._requested.clear()
            try:
                await self.audit_all()
            except (OSError, Unavailable) as error:
                self.last_audit = msgspec.structs.replace(self.last_audit, state="failed", error=str(error))

    async def audit_all(self) -> None:
        """Read all blobs at once; the result is `last_audit`."""
        read = damaged = 0
        for prefix in _prefixes():
            async for digest, intact in _read(self.blobs, prefix):
                read += 1
                if not intact:
                    damaged += 1
                    await self.on_damaged(digest)
            self.last_audit = BlobAudit(state="running", read=read, damaged=damaged)
        self.last_audit = msgspec.structs.replace(self.last_audit, state="ended")

    async def _wait(self, read: int) -> None:
        await asyncio.sleep(read / self.policy.bytes_per_second)


async def _read(blobs: Blobs, prefix: str, pace: Pace | None = None) -> AsyncIterator[tuple[Digest, bool]]:
    """The blobs with this prefix, and whether their bytes are those of their digests."""
    async for part in blobs.listing(prefix):
        for digest, _ in random.sample(part, len(part)):
            intact = await is_intact(blobs, digest, pace)
            if intact or await blobs.exists(digest):  # else deleted since it was listed
                yield digest, intact


def _prefixes(first: int = 0) -> Iterator[str]:
    """All prefixes, beginning with the one of this number."""
    return (f"{(first + number) % PREFIXES:02x}" for number in range(PREFIXES))
