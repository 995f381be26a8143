"""The WebSocket: live events and progress across reconnections, each event exactly once."""

import asyncio
from collections.abc import AsyncGenerator
from urllib.parse import quote

import msgspec
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from contracts.errors import Gone, LoratoryError, NotFound, Unavailable
from loratory.http import is_local
from loratory.responses import Frame

RECONNECT_TIMEOUT_SECONDS = 60.0
"""Maximum time without a connection before watching fails."""
RECONNECT_DELAY_SECONDS = 0.5
OPEN_TIMEOUT_SECONDS = 10.0
UNKNOWN_JOB = 4404
UNKNOWN_CURSOR = 4410
UNAUTHORIZED = frozenset({4401, 4403})
UNAUTHORIZED_STATUS = frozenset({401, 403})


async def watch_frames(
    url: str, headers: dict[str, str], *, job: str | None = None, after: str = ""
) -> AsyncGenerator[Frame, None]:
    """Events after the cursor, then live events and progress; reconnects and never ends by itself.

    NotFound: unknown job. Gone: the cursor belongs to another log. Unavailable: no connection for
    RECONNECT_TIMEOUT_SECONDS.
    """
    loop = asyncio.get_running_loop()
    last_contact, reason = loop.time(), "the connection was closed"
    path = "/ws/progress" + (f"/{quote(job, safe='')}" if job else "")
    while True:
        address = f"ws{url.removeprefix('http')}{path}?after={quote(after, safe='')}"
        try:
            async with connect(
                address,
                additional_headers=headers,
                open_timeout=OPEN_TIMEOUT_SECONDS,
                proxy=None if is_local(url) else True,
            ) as socket:
                last_contact = loop.time()
                async for message in socket:
                    last_contact, frame = loop.time(), msgspec.json.decode(message, type=Frame)
                    if frame.seq is None or frame.seq != after:
                        after = frame.seq or after
                        yield frame
                _raise_for_close(socket.close_code, socket.close_reason, job)
        except ConnectionClosed as closed:
            received = closed.rcvd
            _raise_for_close(received.code if received else None, received.reason if received else None, job)
        except InvalidStatus as refused:
            if refused.response.status_code in UNAUTHORIZED_STATUS:
                raise LoratoryError(f"{url} refused the WebSocket ({refused.response.status_code})") from refused
            reason = f"the server answered {refused.response.status_code}"
        except (OSError, InvalidHandshake, TimeoutError) as error:
            reason = str(error) or type(error).__name__
        except msgspec.DecodeError as error:
            raise LoratoryError(f"{url} sent a frame that this client cannot read: {error}") from error
        if loop.time() - last_contact > RECONNECT_TIMEOUT_SECONDS:
            raise Unavailable(f"no connection to {url} for {RECONNECT_TIMEOUT_SECONDS:g} s: {reason}")
        await asyncio.sleep(RECONNECT_DELAY_SECONDS)


def _raise_for_close(code: int | None, reason: str | None, job: str | None) -> None:
    """Raise the error of a close code after which reconnecting is pointless."""
    if code == UNKNOWN_JOB:
        raise NotFound(reason or f"there is no job {job}")
    if code == UNKNOWN_CURSOR:
        raise Gone(reason or "this cursor belongs to another log; start from the beginning")
    if code in UNAUTHORIZED:
        raise LoratoryError(reason or "the server refused the WebSocket")
