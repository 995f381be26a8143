"""Streaming responses, and a timeout for clients that stop reading them."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import structlog
from litestar import Request, Response
from litestar.response import Stream
from litestar.types import ASGIApp, Message, Receive, Send

STREAM_SCOPE_KEY = "loratory.stream"
"""The ASGI scope's key of the response's generator, which is closed when the response ends."""

_log = structlog.get_logger()


class Stalled(Exception):
    """The client has stopped reading the response."""


def stream_response(
    request: Request[Any, Any, Any], chunks: AsyncGenerator[bytes, None], media_type: str
) -> Response[Any]:
    """A response that proxies do not buffer or cache. `chunks` is closed when the response ends, for any reason."""
    request.scope[STREAM_SCOPE_KEY] = chunks  # type: ignore[literal-required]  # our own key
    return Stream(chunks, media_type=media_type, headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})


def with_stall_timeout(app: ASGIApp, seconds: float) -> ASGIApp:
    """The same app; a response of which one chunk takes longer to send is aborted, and its connection closed."""

    async def wrapped(scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # WebSockets have a limit of their own
            await app(scope, receive, send)
            return
        stalled = False

        async def send_with_timeout(message: Message) -> None:
            nonlocal stalled
            if stalled:
                raise Stalled
            try:
                async with asyncio.timeout(seconds):
                    await send(message)
            except TimeoutError as error:
                stalled = True
                raise Stalled from error

        try:
            await app(scope, receive, send_with_timeout)
        except Exception:
            if not stalled:
                raise
            _log.warning("client_stalled", path=scope["path"], seconds=seconds)
        finally:
            if STREAM_SCOPE_KEY in scope:
                await scope[STREAM_SCOPE_KEY].aclose()

    return wrapped
