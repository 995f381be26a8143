"""The WebSocket: facts and progress as they come, over lost connections, each fact once and none left out."""

import asyncio
from collections.abc import AsyncGenerator
from urllib.parse import quote

import msgspec
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from contracts.errors import Gone, LoratoryError, NotFound, Unavailable
from loratory.answers import Frame
from loratory.http import here

PATIENCE = 60.0
"""Seconds without a connection after which watching is given up."""
PAUSE = 0.5
OPEN_WITHIN = 10.0
UNKNOWN_JOB = 4404
UNKNOWN_CURSOR = 4410
REFUSALS = frozenset({401, 403})


async def frames(
    url: str, headers: dict[str, str], *, job: str | None = None, after: str = ""
) -> AsyncGenerator[Frame, None]:
    """Facts after the cursor and all that follow, with progress between; for ever, over reconnections.

    NotFound: there is no such job. Gone: the cursor is of another log. Unavailable: no connection for PATIENCE seconds.
    """
    loop = asyncio.get_running_loop()
    last, reason = loop.time(), "it was closed"
    path = "/ws/progress" + (f"/{quote(job, safe='')}" if job else "")
    while True:
        address = f"ws{url.removeprefix('http')}{path}?after={quote(after, safe='')}"
        try:
            async with connect(
                address,
                additional_headers=headers,
                open_timeout=OPEN_WITHIN,
                proxy=None if here(url) else True,
            ) as socket:
                last = loop.time()
                async for message in socket:
                    last, frame = loop.time(), msgspec.json.decode(message, type=Frame)
                    if frame.seq is None or frame.seq != after:
                        after = frame.seq or after
                        yield frame
                _refuse(socket.close_code, socket.close_reason, job)
        except ConnectionClosed as closed:
            received = closed.rcvd
            _refuse(received.code if received else None, received.reason if received else None, job)
        except InvalidStatus as refused:
            if refused.response.status_code in REFUSALS:
                raise LoratoryError(f"{url} refuses to be watched ({refused.response.status_code})") from refused
            reason = f"it answers {refused.response.status_code}"
        except (OSError, InvalidHandshake, TimeoutError) as error:
            reason = str(error) or type(error).__name__
        except msgspec.DecodeError as error:
            raise LoratoryError(f"{url} says what this client does not know: {error}") from error
        if loop.time() - last > PATIENCE:
            raise Unavailable(f"no connection to {url} for {PATIENCE:g} s: {reason}")
        await asyncio.sleep(PAUSE)


def _refuse(code: int | None, reason: str | None, job: str | None) -> None:
    if code == UNKNOWN_JOB:
        raise NotFound(reason or f"there is no job {job}")
    if code == UNKNOWN_CURSOR:
        raise Gone(reason or "this cursor belongs to another log; start from the beginning")
    if code in {4401, 4403}:
        raise LoratoryError(reason or "the server refuses to be watched")
