"""Blobs that an import has put away and no fact names yet: whoever deletes blobs must leave them."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from contracts.ids import Digest


class Holds:
    """One for a catalog: imports hold, a sweep deletes in its turn."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._held: Counter[Digest] = Counter()

    @asynccontextmanager
    async def hold(self, digests: Iterable[Digest]) -> AsyncIterator[None]:
        """From before the bytes are put until readers see the fact that names them. Waits for a sweep under way."""
        wanted = list(digests)
        async with self._turn:
            self._held.update(wanted)
        try:
            yield
        finally:
            self._held.subtract(wanted)
            self._held = +self._held

    @asynccontextmanager
    async def sweep(self) -> AsyncIterator[frozenset[Digest]]:
        """What is held now. Nothing more is held while the block lasts."""
        async with self._turn:
            yield frozenset(self._held)
