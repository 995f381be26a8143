"""What one socket still has to be told. Facts wait in the feed's ring, so there is no queue to overflow."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

from gateway.cursor import Place
from gateway.frames import FactFrame

MOST_BEHIND = 256
STALL_SECONDS = 5.0
"""A socket that takes nothing for so long, with more than MOST_BEHIND facts waiting, is closed; it can come again."""
MOST_NOTICES = 64
SLOW, GOING, LOG_GONE, FLOOD = 4408, 1012, 4410, 4429


class Listener:
    """One socket's place in the log, and the newest of what has no place in it."""

    def __init__(self, place: Place, thing: str | None = None) -> None:
        self.place = place
        self.thing = thing
        """Only facts and progress of this job; none = of everything."""
        self.wake = asyncio.Event()
        self.ended: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()
        """Close code and reason, once somebody wants this socket closed."""
        self._newest: dict[str, str] = {}
        self._notices: list[str] = []
        self._sending: float | None = None

    def wants(self, fact: FactFrame) -> bool:
        return self.thing is None or (fact.kind == "job" and fact.thing == self.thing)

    def put_newest(self, key: str, text: str) -> None:
        """Progress or presence: only the last one under a key is worth telling."""
        self._newest[key] = text
        self.wake.set()

    def notice(self, text: str) -> None:
        """An answer or a change of state. A client that asks without reading the answers is sent away."""
        if len(self._notices) >= MOST_NOTICES:
            self.end(FLOOD, "too many questions at once")
            return
        self._notices.append(text)
        self.wake.set()

    def end(self, code: int, reason: str) -> None:
        if not self.ended.done():
            self.ended.set_result((code, reason))

    def take(self) -> Iterator[str]:
        """What waits beside the facts, and forget it."""
        notices, self._notices = self._notices, []
        newest, self._newest = self._newest, {}
        yield from notices
        yield from newest.values()

    @asynccontextmanager
    async def sending(self) -> AsyncIterator[None]:
        self._sending = time.monotonic()
        try:
            yield
        finally:
            self._sending = None

    @property
    def stuck(self) -> bool:
        """Has one frame been on its way for STALL_SECONDS?"""
        return self._sending is not None and time.monotonic() - self._sending > STALL_SECONDS
