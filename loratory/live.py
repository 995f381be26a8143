"""The WebSocket: live events and progress across reconnections, each event exactly once."""

import ssl
from collections.abc import AsyncGenerator
from contextlib import suppress
from urllib.parse import quote

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from contracts.errors import Gone, LoratoryError, NotFound, Unavailable
from contracts.retry import Outage
from loratory.http import RECONNECT, decode, is_local
from loratory.responses import Frame

OPEN_TIMEOUT_SECONDS = 10.0
CLOSE_TIMEOUT_SECONDS = 1.0
"""Short: the closing handshake cannot end while frames that nobody reads any more wait before it."""
UNKNOWN_JOB = 4404
UNKNOWN_CURSOR = 4410
UNAUTHORIZED = frozenset({4401, 4403})
UNAUTHORIZED_STATUS = frozenset({401, 403})


async def watch_frames(
    url: str,
    headers: dict[str, str],
    *,
    job: str | None = None,
    after: str = "",
    tls: ssl.SSLContext | None = None,
) -> AsyncGenerator[Frame, None]:
    """Events after the cursor, then live events and progress; reconnects and never ends by itself.

    NotFound: unknown job. Gone: the cursor belongs to another log. Unavailable: no connection for as long as RECONNECT
    says.
    """
    outage = Outage(None, RECONNECT)
    path = "/ws/progress" + (f"/{quote(job, safe='')}" if job else "")
    while True:
        address = f"ws{url.removeprefix('http')}{path}?after={quote(after, safe='')}"
        try:
            async with await _connect(url, address, headers, tls) as socket:
                outage.ended()
                with suppress(ConnectionClosed):
                    async for message in socket:
                        frame = decode(message, Frame, f"{url} sent a frame")
                        if frame.seq is None or frame.seq != after:
                            after = frame.seq or after
                            yield frame
                outage.ended()  # a connection without messages was none the less alive until now
                _raise_for_close(socket.close_code, socket.close_reason, job)
                raise Unavailable(f"{url} closed the WebSocket")
        except Unavailable as error:
            await outage.wait(error)


async def _connect(url: str, address: str, headers: dict[str, str], tls: ssl.SSLContext | None) -> ClientConnection:
    """Unavailable: another try may succeed."""
    try:
        return await connect(
            address,
            additional_headers=headers,
            open_timeout=OPEN_TIMEOUT_SECONDS,
            close_timeout=CLOSE_TIMEOUT_SECONDS,
            proxy=None if is_local(url) else True,
            ssl=tls if address.startswith("wss:") else None,
        )
    except InvalidStatus as refused:
        status = refused.response.status_code
        if status in UNAUTHORIZED_STATUS:
            raise LoratoryError(f"{url} refused the WebSocket ({status})") from refused
        raise Unavailable(f"{url} answered {status} to the WebSocket") from refused
    except (OSError, InvalidHandshake, TimeoutError) as error:
        raise Unavailable(f"no connection to {url}: {str(error) or type(error).__name__}") from error


def _raise_for_close(code: int | None, reason: str | None, job: str | None) -> None:
    """Raise the error of a close code after which reconnecting is pointless."""
    if code == UNKNOWN_JOB:
        raise NotFound(reason or f"there is no job {job}")
    if code == UNKNOWN_CURSOR:
        raise Gone(reason or "this cursor belongs to another log; start from the beginning")
    if code in UNAUTHORIZED:
        raise LoratoryError(reason or "the server refused the WebSocket")
