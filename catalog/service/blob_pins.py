"""Pins on blobs that an import has stored and that no event names yet, so that a purge does not delete them."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from contracts.ids import Digest


class BlobPins:
    """One per catalog: imports pin blobs, purges delete while no new pin can be set."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._pinned: Counter[Digest] = Counter()

    @asynccontextmanager
    async def pin(self, digests: Iterable[Digest]) -> AsyncIterator[None]:
        """Hold from before the blobs are stored until the read model shows the event that names them.

        Waits while a purge is deleting.
        """
        pinned = list(digests)
        async with self._lock:
            self._pinned.update(pinned)
        try:
            yield
        finally:
            self._pinned.subtract(pinned)
            self._pinned = +self._pinned

    @asynccontextmanager
    async def exclusive(self) -> AsyncIterator[frozenset[Digest]]:
        """The digests pinned now. No further pin is set while the block lasts."""
        async with self._lock:
            yield frozenset(self._pinned)
