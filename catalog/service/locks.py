"""The locks of command execution: by name, each held by one command, or shared by commands on different parts."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from weakref import WeakValueDictionary

from contracts.commits import Aggregate, StreamRevision


@dataclass(frozen=True)
class Scope:
    """What a command is decided from: aggregates, or with `part` (an image) only that part of one.

    `locks` are held while it is decided and appended, so that nobody changes what it was decided from.
    """

    locks: tuple[str, ...]
    part: str = ""

    def overlaps(self, other: "Scope") -> bool:
        """Whether a command of one is decided from what a command of the other changes."""
        return self.shares_lock(other) and (not self.part or not other.part or self.part == other.part)

    def shares_lock(self, other: "Scope") -> bool:
        return not set(self.locks).isdisjoint(other.locks)


class Lock:
    """Served in the order of arrival: who waits for it alone keeps later ones out."""

    def __init__(self) -> None:
        self.appending = asyncio.Lock()
        """Held during each append, also by those who share the lock."""
        self._revisions: dict[Aggregate, StreamRevision] = {}
        self._arriving = asyncio.Lock()
        self._sharing = 0
        self._unshared = asyncio.Event()

    def set_revisions(self, revisions: Mapping[Aggregate, StreamRevision]) -> None:
        """Where a command that shares the lock left the aggregates. Others have read rows from before it."""
        for aggregate, revision in revisions.items():
            self._revisions[aggregate] = max(revision, self.revision(aggregate))

    def revision(self, aggregate: Aggregate) -> StreamRevision:
        """The newest that was set; the initial one if none was."""
        return self._revisions.get(aggregate, StreamRevision())

    @asynccontextmanager
    async def shared(self) -> AsyncIterator[None]:
        async with self._arriving:
            self._sharing += 1
            self._unshared.clear()
        try:
            yield
        finally:
            self._sharing -= 1
            if not self._sharing:
                self._unshared.set()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        async with self._arriving:
            while self._sharing:
                await self._unshared.wait()
            yield


class Locks:
    """All locks that are in use; each is dropped with its last user."""

    def __init__(self) -> None:
        self._by_name: WeakValueDictionary[str, Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def hold(self, scope: Scope) -> AsyncIterator[Lock]:
        """Hold the locks of a scope; the first of them is the one for appending."""
        names = sorted(set(scope.locks))  # everybody in the same order, so that nobody waits in a circle
        locks = [self._by_name.setdefault(name, Lock()) for name in names]
        async with AsyncExitStack() as held:
            for lock in locks:
                await held.enter_async_context(lock.shared() if scope.part else lock.alone())
            if scope.part:
                part = self._by_name.setdefault(f"{names[0]} {scope.part}", Lock())
                await held.enter_async_context(part.alone())
            yield locks[0]
