"""A connection to NATS that does not give up and counts its troubles; its `flush` is a barrier, its `request` cheap."""

import asyncio
from collections import Counter
from itertools import count
from typing import Any, NoReturn

import nats.errors
import structlog
from nats.aio.client import DEFAULT_FLUSH_TIMEOUT, Client
from nats.aio.msg import Msg
from nats.errors import (
    ConnectionClosedError,
    ConnectionDrainingError,
    ConnectionReconnectingError,
    Error,
    FlushTimeoutError,
    NoRespondersError,
    SlowConsumerError,
)
from nats.js.api import Header

from contracts.errors import SetupError, Unavailable
from contracts.wire.permissions import inbox
from contracts.wire.tasks import wanted

PATIENCE = 15.0
"""Seconds the first connection may take: services and server start side by side."""

RETRY_EVERY = 0.25
"""Seconds between two tries to reconnect; with nats-py's 2 s, work stands still long after the server is back."""

log = structlog.get_logger(__name__)


class Bus(Client):
    """nats-py's client, with `troubles` counted by kind: `line`, `slow_consumer`, `not_permitted`."""

    def __init__(self) -> None:
        super().__init__()
        self.troubles: Counter[str] = Counter()
        self._since_connected: Counter[str] = Counter()
        self._gone = asyncio.Event()
        self._replies = ""
        self._asked: dict[str, asyncio.Future[Msg]] = {}
        self._numbers = count()

    async def request(
        self,
        subject: str,
        payload: bytes = b"",
        timeout: float = 0.5,
        old_style: bool = False,
        headers: dict[str, Any] | None = None,
    ) -> Msg:
        """As nats-py's, for a third less time: numbers instead of random names, a timer instead of a waiting task.

        A quarter of what an append costs here would otherwise be spent on those (`benchmarks/append.py`).
        """
        if old_style:
            return await super().request(subject, payload, timeout, old_style=True)
        if self.is_draining_pubs:
            raise ConnectionDrainingError
        if not self._replies:
            self._replies = self.new_inbox()
            await self.subscribe(f"{self._replies}.*", cb=self._on_reply)
        loop, number = asyncio.get_running_loop(), str(next(self._numbers))
        answered: asyncio.Future[Msg] = loop.create_future()
        self._asked[number] = answered
        timer = loop.call_later(timeout, _fail, answered, nats.errors.TimeoutError)
        try:
            await self.publish(subject, payload, reply=f"{self._replies}.{number}", headers=headers)
            reply = await answered
        finally:
            timer.cancel()
            del self._asked[number]
        if reply.headers and reply.headers.get(Header.STATUS) == "503":
            raise NoRespondersError
        return reply

    async def _on_reply(self, reply: Msg) -> None:
        answered = self._asked.get(reply.subject.rpartition(".")[2])
        if answered is not None and not answered.done():
            answered.set_result(reply)

    async def flush(self, timeout: int = DEFAULT_FLUSH_TIMEOUT) -> None:
        """Returns when the server has seen all that was published and subscribed before; FlushTimeoutError if it hangs.

        nats-py 2.16 writes its PING ahead of what still waits to be sent, so only a second one comes after it.
        """
        await self._ping(timeout)
        await self._ping(timeout)

    @staticmethod
    def _parse_header_lines(raw: bytes) -> dict[str, str]:
        """The same as nats-py's, but for its walk through each letter of a name: half of what reading the log cost."""
        headers: dict[str, str] = {}
        for line in raw.split(b"\r\n"):
            name, colon, value = line.partition(b":")
            if colon and name.isascii() and len(words := name.split()) < 2:
                headers[b"".join(words).decode()] = value.strip().decode("utf-8", "replace")
        return headers

    async def _flush_pending(self, force_flush: bool = False) -> Any:
        """As nats-py's, which writes itself where its writer has just ended: then the line is lost, nothing worse."""
        try:
            return await super()._flush_pending(force_flush)
        except (RuntimeError, OSError) as error:  # as uvloop and asyncio say it
            raise ConnectionReconnectingError from error

    async def _ping(self, timeout: float) -> None:
        """nats-py's own cancels what has waited too long; of the PONG that comes after all its reader then dies."""
        if self.is_closed:
            raise ConnectionClosedError
        answered: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        try:
            await self._send_ping(answered)
        except RuntimeError as error:  # so uvloop says that the line has just been lost
            raise ConnectionReconnectingError from error
        done, _ = await asyncio.wait({answered}, timeout=timeout)
        if not done:
            raise FlushTimeoutError

    async def close(self) -> None:
        """For good; what could not be sent any more is lost."""
        try:
            await super().close()
        except (RuntimeError, OSError) as error:  # the line is gone already, as asyncio or uvloop say it
            await log.awarning("bus_not_closed_cleanly", error=str(error))
        except asyncio.CancelledError:
            # All who wait for the end of a line share one future; who is cancelled among them (nats-py cancels the task
            # that connects again) cancels it for all.
            if not wanted():
                raise
            self._gone.set()

    async def watch(self) -> NoReturn:
        """Waits until the connection is closed for good, and raises Unavailable; run it beside the service."""
        await self._gone.wait()
        raise Unavailable(f"the connection to NATS is closed for good: {self.last_error or 'no reason given'}")

    async def note_error(self, error: Exception) -> None:
        """Counts every trouble, but tells only the 1st, 10th, 100th … of a kind since the line last stood."""
        kind = _kind(error)
        self.troubles[kind] += 1
        self._since_connected[kind] += 1
        times = self._since_connected[kind]
        if str(times).strip("0") == "1":
            await log.awarning("bus_trouble", kind=kind, error=str(error) or type(error).__name__, times=times)

    async def note_disconnected(self) -> None:
        if not self.is_closed:
            await log.awarning("bus_disconnected")

    async def note_reconnected(self) -> None:
        self._since_connected.clear()
        await log.ainfo("bus_reconnected")

    async def note_closed(self) -> None:
        self._gone.set()
        for answered in self._asked.values():
            _fail(answered, ConnectionClosedError)


async def connect(url: str, user: str, password: str, name: str, *, patience: float = PATIENCE) -> Bus:
    """A connection as `user` (a role of `permissions`); `name` shows in the server's monitoring.

    After the first success it reconnects for ever. SetupError when there is none within `patience` seconds.
    """
    bus = Bus()
    try:
        async with asyncio.timeout(patience):
            await bus.connect(
                url,
                user=user,
                password=password,
                name=name,
                inbox_prefix=inbox(user),
                max_reconnect_attempts=-1,
                reconnect_time_wait=RETRY_EVERY,  # type: ignore[arg-type]  # annotated int, used as seconds to sleep
                connect_timeout=2,
                ping_interval=20,
                drain_timeout=5,
                error_cb=bus.note_error,
                disconnected_cb=bus.note_disconnected,
                reconnected_cb=bus.note_reconnected,
                closed_cb=bus.note_closed,
            )
    except TimeoutError as error:
        reason = bus.last_error or "no answer"
        await bus.close()
        raise SetupError(f"no connection to NATS at {url} as {user} within {patience:g} s: {reason}") from error
    except (Error, ValueError) as error:
        await bus.close()
        raise SetupError(f"cannot connect to NATS at {url}: {error}") from error
    return bus


def _fail(answered: asyncio.Future[Msg], error: type[Error]) -> None:
    if not answered.done():
        answered.set_exception(error())


def _kind(error: Exception) -> str:
    if isinstance(error, SlowConsumerError):
        return "slow_consumer"
    # nats-py has no class for a refused publish or subscribe, only the server's words.
    return "not_permitted" if "permissions violation" in str(error).lower() else "line"
