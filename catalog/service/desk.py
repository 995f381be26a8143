"""What every family of wishes needs: its turn, the answer it got before, the append, and waiting to see it.

A data set has a lane: its wishes are decided one after the other from rows that already show the one before. A lost
race with another writer reads and decides again; only a rule says no to the user.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import msgspec
import structlog

from catalog.store import Store
from catalog.views import commands
from contracts.commands import Origin, Receipt
from contracts.errors import Behind, Conflict, KeyReused
from contracts.events import AnyFact
from contracts.subjects import Kind
from contracts.wire.log import EventLog, Head, draw_up

TRIES = 20
SEEN_WITHIN = 10.0
"""Seconds an accepted wish waits for the read model to show it; it stands in the log whether or not."""

_log = structlog.get_logger()


@dataclass(frozen=True)
class Change:
    """Facts of one thing, to be stored on top of what it was when they were decided."""

    kind: Kind
    thing: str
    facts: Sequence[AnyFact]
    after: Head


class Desk:
    """Where wishes are handled."""

    def __init__(self, log: EventLog, store: Store) -> None:
        self.log = log
        self.store = store
        self._granted = 0
        """Sequence of the newest commit made here: nothing is decided from rows that do not show it."""
        self._lanes: dict[str, tuple[asyncio.Lock, int]] = {}

    async def settle(self, origin: Origin, lane: str, once: Callable[[], Awaitable[Receipt]]) -> Receipt:
        """Answer a wish: as before if it was granted before, else by `once`, tried again after a lost race."""
        async with self._lane(lane):
            await self.seen()
            for _ in range(TRIES):
                before = await self.answered(origin)
                if before is not None:
                    return before
                try:
                    return await once()
                except Conflict:
                    _log.info("race_lost", lane=lane)
                    _, end = await self.log.end()
                    await self.store.wait_for(end, SEEN_WITHIN)
            raise Conflict("this changes too fast to be decided; try again")

    async def seen(self) -> None:
        """Returns when readers see all that was granted here; Behind when that takes too long."""
        await self.store.wait_for(self._granted, SEEN_WITHIN)

    async def answered(self, origin: Origin) -> Receipt | None:
        """What this very command was answered before: asked first of all, as what it names may be gone meanwhile.

        None also where only the first of its commits can be seen yet. KeyReused when it was another request.
        """
        before = await self.store.read(lambda connection: commands.answered(connection, origin.command))
        if before is None:
            return None
        if before.fingerprint != origin.fingerprint:
            raise KeyReused
        if before.answer == b"null":
            return None
        receipt = msgspec.json.decode(before.answer, type=Receipt)
        return msgspec.structs.replace(receipt, sequence=before.sequence)

    async def append(self, change: Change, origin: Origin, receipt: Receipt) -> Receipt:
        """Store the facts as one commit and wait until readers see it. Conflict: decide again."""
        return await self.append_together([change], origin, receipt)

    async def append_together(self, changes: Sequence[Change], origin: Origin, receipt: Receipt) -> Receipt:
        """The same for a wish that changes several things: all of it is stored, or nothing.

        The last change is the one the wish is about: its commit keeps the answer, and its sequence is the answer's.
        """
        commits = [
            draw_up(
                change.kind,
                change.thing,
                change.facts,
                after=change.after,
                origin=origin,
                answer=receipt if change is changes[-1] else None,
            )
            for change in changes
        ]
        stored = await self.log.append_together(
            [(commit, change.after) for commit, change in zip(commits, changes, strict=True)]
        )
        sequence = stored[-1].sequence
        self._granted = max(self._granted, sequence)
        try:
            await self.store.wait_for(sequence, SEEN_WITHIN)
        except Behind:
            _log.warning("read_model_behind", sequence=sequence, applied=self.store.applied)
        return msgspec.structs.replace(receipt, sequence=sequence)

    def unchanged(self, receipt: Receipt) -> Receipt:
        """It was so already: no commit, and the answer says so."""
        return msgspec.structs.replace(receipt, changed=False, sequence=self.store.applied)

    @asynccontextmanager
    async def _lane(self, name: str) -> AsyncIterator[None]:
        """One at a time; a lane is forgotten with its last user."""
        lock, users = self._lanes.get(name, (asyncio.Lock(), 0))
        self._lanes[name] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            _, users = self._lanes[name]
            if users == 1:
                del self._lanes[name]
            else:
                self._lanes[name] = (lock, users - 1)
