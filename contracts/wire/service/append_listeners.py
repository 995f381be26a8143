"""Those who follow the log in a process, woken by what the process appends itself."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

Listener = Callable[[int], Awaitable[None]]
"""Called with the sequence of a commit that was appended."""

MAX_GROUP = 16
"""Maximum number of appends announced together: then the followers are woken although others are about to append."""


class AppendListeners:
    """Called after each append, or once for several of them where more are about to follow.

    What is read of the log together is archived and applied together, which costs little more than one commit does.
    Who is not woken sees the commits at the next comparison with the log (`FollowPolicy.poll`).
    """

    def __init__(self) -> None:
        self._listeners: set[Listener] = set()
        self._about_to_append = 0
        self._not_announced = 0
        self._newest = 0

    def __len__(self) -> int:
        return len(self._listeners)

    def add(self, listener: Listener) -> None:
        self._listeners.add(listener)

    def discard(self, listener: Listener) -> None:
        self._listeners.discard(listener)

    @asynccontextmanager
    async def about_to_append(self) -> AsyncIterator[None]:
        """Held by all that append one after the other: they are announced by the last one."""
        self._about_to_append += 1
        try:
            yield
        finally:
            self._about_to_append -= 1
            if self._not_announced and not self._about_to_append:
                await self._wake()

    async def announce(self, sequence: int) -> None:
        self._newest = max(self._newest, sequence)
        self._not_announced += 1
        if self._about_to_append <= 1 or self._not_announced >= MAX_GROUP:
            await self._wake()

    async def _wake(self) -> None:
        self._not_announced = 0
        for listener in tuple(self._listeners):
            await listener(self._newest)
