"""A NATS connection that reconnects for ever and counts its errors; its `flush` is a barrier."""

import asyncio
from collections import Counter
from typing import Any, NoReturn, Self

import nats.errors
import structlog
from nats.aio.client import DEFAULT_FLUSH_TIMEOUT
from nats.js import JetStreamContext

from contracts import subjects
from contracts.cancellation import is_cancelled
from contracts.errors import SetupError, Unavailable
from contracts.wire.service.append_listeners import AppendListeners
from contracts.wire.service.credentials import AuthenticatedClient, Credential, Tls, parse_addresses
from contracts.wire.service.replies import ReplyClient

CONNECT_TIMEOUT_SECONDS = 15.0
"""Timeout of the first connection: services and server start at the same time."""
CLOSE_SECONDS = 2.0
"""Maximum time for the server to take the end of a connection."""
RECONNECT_SECONDS = 0.25
"""Interval of reconnect attempts; with nats-py's 2 s, work pauses long after the server is back."""

log = structlog.get_logger(__name__)


class Bus(AuthenticatedClient, ReplyClient):
    """nats-py's client, with `error_counts` by kind: `connection`, `slow_consumer`, `not_permitted`."""

    def __init__(self, role: str, credential: Credential, tls: Tls | None = None) -> None:
        super().__init__(role, credential, tls)
        self.api = subjects.jetstream_api(role)
        """Prefix of JetStream's API, as this connection's account knows it."""
        self.append_listeners = AppendListeners()
        """Called with the sequences of commits that are appended over this connection."""
        self.error_counts: Counter[str] = Counter()
        self._since_connected: Counter[str] = Counter()
        self._closed_for_good = asyncio.Event()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def jetstream(self, **options: Any) -> JetStreamContext:
        return super().jetstream(**{"prefix": self.api} | options)

    async def flush(self, timeout: int = DEFAULT_FLUSH_TIMEOUT) -> None:
        """Returns once the server has processed all earlier publishes and subscriptions; FlushTimeoutError if it hangs.

        nats-py 2.16 writes its PING ahead of data that is still buffered, so only a second PING comes after it.
        """
        await self._ping(timeout)
        await self._ping(timeout)

    @staticmethod
    def _parse_header_lines(raw: bytes) -> dict[str, str]:
        """Like nats-py's, without its loop over the characters of names: half the cost of reading the log."""
        headers: dict[str, str] = {}
        for line in raw.split(b"\r\n"):
            name, colon, value = line.partition(b":")
            if colon and name.isascii() and len(words := name.split()) < 2:
                headers[b"".join(words).decode()] = value.strip().decode("utf-8", "replace")
        return headers

    async def _flush_pending(self, force_flush: bool = False) -> Any:
        """Like nats-py's, which writes itself if its writer has just ended: that means a lost connection."""
        try:
            return await super()._flush_pending(force_flush)
        except (RuntimeError, OSError) as error:  # as raised by uvloop and asyncio
            raise nats.errors.ConnectionReconnectingError from error

    async def _ping(self, timeout: float) -> None:
        """nats-py's own cancels a future that timed out; a late PONG then ends its read loop."""
        if self.is_closed:
            raise nats.errors.ConnectionClosedError
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        try:
            await self._send_ping(future)
        except RuntimeError as error:  # uvloop's error for a connection that was just lost
            raise nats.errors.ConnectionReconnectingError from error
        done, _ = await asyncio.wait({future}, timeout=timeout)
        if not done:
            raise nats.errors.FlushTimeoutError

    async def close(self) -> None:
        """Closes for good; data that was not sent yet is lost."""
        try:
            await super().close()
        except (RuntimeError, OSError) as error:  # already disconnected, as raised by asyncio or uvloop
            await log.awarning("bus_not_closed_cleanly", error=str(error))
        except asyncio.CancelledError:
            # All tasks that wait for the end of a connection share one future; cancelling one of them (nats-py cancels
            # its reconnect task) cancels it for all.
            if is_cancelled():
                raise
            self._closed_for_good.set()
        finally:
            # An attempt to connect that was cancelled at its end left its socket open, and the client marked closed.
            if self._transport is not None:
                self._transport.close()  # type: ignore[no-untyped-call]  # nats-py has no types here

    async def _select_next_server(self) -> None:
        """Like nats-py's, which tries for ever once a cancellation was lost (`contracts.cancellation`)."""
        if is_cancelled():
            raise asyncio.CancelledError
        await super()._select_next_server()

    async def _close(self, status: int, do_cbs: bool = True) -> None:
        """Like nats-py's, which waits for the end of a stream whose TLS handshake was given up: for ever."""
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await super()._close(status, do_cbs)
        except TimeoutError:
            if do_cbs:
                await self.note_closed()

    async def wait_connected(self, timeout: float) -> bool:
        """Whether it is connected, within `timeout` seconds: a client whose key was rotated is away for a moment."""
        deadline = asyncio.get_running_loop().time() + timeout
        while not self.is_connected and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110 - no event for it
            await asyncio.sleep(0.01)
        return self.is_connected

    async def watch(self) -> NoReturn:
        """Waits until the connection is closed for good, then raises Unavailable; run it next to the service."""
        await self._closed_for_good.wait()
        raise Unavailable(f"the connection to NATS is closed for good: {self.last_error or 'no reason given'}")

    async def note_error(self, error: Exception) -> None:
        """Counts every error, but logs only the 1st, 10th, 100th … of a kind since the last connect."""
        kind = _kind(error)
        self.error_counts[kind] += 1
        self._since_connected[kind] += 1
        times = self._since_connected[kind]
        if str(times).strip("0") == "1":
            await log.awarning("bus_error", kind=kind, error=str(error) or type(error).__name__, times=times)

    async def note_disconnected(self) -> None:
        self.end_streams()
        if not self.is_closed:
            await log.awarning("bus_disconnected")

    async def note_reconnected(self) -> None:
        self._since_connected.clear()
        await self.resend_requests()
        await log.ainfo("bus_reconnected")

    async def note_closed(self) -> None:
        self._closed_for_good.set()
        self.end_streams()
        self.fail_requests()


async def connect(  # noqa: PLR0913 - url and credential belong together, the rest has defaults
    url: str,
    role: str,
    credential: Credential,
    name: str,
    *,
    tls: Tls | None = None,
    timeout: float = CONNECT_TIMEOUT_SECONDS,
) -> Bus:
    """A connection in a role (of `accounts`); `name` shows in the server's monitoring.

    `url`: one server or several, separated by commas. After the first success it reconnects for ever, to any of them.
    Unavailable when there is none within `timeout` seconds; SetupError when the server refuses who asks.
    """
    servers = parse_addresses(url)
    if tls is None and any(server.startswith("tls://") for server in servers):
        tls = Tls()
    bus = Bus(role, credential, tls)
    bus.check_files()
    try:
        async with asyncio.timeout(timeout):
            await bus.connect(
                servers,
                name=name,
                inbox_prefix=subjects.inbox(role),
                max_reconnect_attempts=-1,
                reconnect_time_wait=RECONNECT_SECONDS,  # type: ignore[arg-type]  # annotated int, used as seconds to sleep
                connect_timeout=2,
                ping_interval=20,
                drain_timeout=5,
                error_cb=bus.note_error,
                disconnected_cb=bus.note_disconnected,
                reconnected_cb=bus.note_reconnected,
                closed_cb=bus.note_closed,
                **bus.login,
            )
    except TimeoutError as error:
        reason = bus.explain_failure()
        await bus.close()
        sentence = f"no connection to NATS at {url} as {role} within {timeout:g} s: {reason}"
        if bus.is_refused:
            raise SetupError(sentence) from error
        raise Unavailable(sentence, service="nats") from error
    except (nats.errors.Error, ValueError) as error:
        await bus.close()
        raise SetupError(f"cannot connect to NATS at {url}: {error}") from error
    except asyncio.CancelledError:
        await bus.close()
        raise
    return bus


def _kind(error: Exception) -> str:
    if isinstance(error, nats.errors.SlowConsumerError):
        return "slow_consumer"
    # nats-py has no class for a refused publish or subscribe, only the text of the server.
    return "not_permitted" if "permissions violation" in str(error).lower() else "connection"
