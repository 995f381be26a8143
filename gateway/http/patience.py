"""Answers that go on: each ends with its client, also with one that takes nothing of it for STALL_SECONDS."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import structlog
from litestar import Request, Response
from litestar.response import Stream
from litestar.types import ASGIApp, Message, Receive, Send

STALL_SECONDS = 60.0
ENDLESS = "loratory.endless"
"""Where a request's scope keeps the pieces of its answer, to be closed at its end."""

_log = structlog.get_logger()


class Stalled(Exception):
    """The client takes nothing any more."""


def streamed(request: Request[Any, Any, Any], pieces: AsyncGenerator[bytes, None], media_type: str) -> Response[Any]:
    """An answer in pieces, which nobody keeps on the way. `pieces` is closed when the answer ends, however it ends."""
    request.scope[ENDLESS] = pieces  # type: ignore[literal-required]  # ours
    return Stream(pieces, media_type=media_type, headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})


def patient(app: ASGIApp) -> ASGIApp:
    """The same app; the server cuts the connection of an answer that is given up."""

    async def waited(scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # sockets have a limit of their own
            await app(scope, receive, send)
            return
        stalled = False

        async def bounded(message: Message) -> None:
            nonlocal stalled
            if stalled:
                raise Stalled
            try:
                async with asyncio.timeout(STALL_SECONDS):
                    await send(message)
            except TimeoutError as error:
                stalled = True
                raise Stalled from error

        try:
            await app(scope, receive, bounded)
        except Exception:
            if not stalled:
                raise
            _log.warning("client_stalled", path=scope["path"], seconds=STALL_SECONDS)
        finally:
            if ENDLESS in scope:
                await scope[ENDLESS].aclose()

    return waited
