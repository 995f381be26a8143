"""What a request gets that is still open when the gateway's time to shut down is over."""

import asyncio
from typing import Any

from litestar.types import ASGIApp, Receive, Send

from contracts.errors import Unavailable
from gateway.http.problems import send_problem


def with_shutdown_answer(app: ASGIApp) -> ASGIApp:
    """The same app; a request that the server cancels is answered with 503 (uvicorn's own answer is 500, as text)."""

    async def wrapped(scope: Any, receive: Receive, send: Send) -> None:
        started = False

        async def send_noting_start(message: Any) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await app(scope, receive, send_noting_start)
        except asyncio.CancelledError:
            if started or scope["type"] != "http":
                raise
            error = Unavailable(
                "the gateway shut down before the answer came; a change may have been made or not:"
                " send it again with the same Idempotency-Key",
                service="gateway",
            )
            await send_problem(error, scope, send)

    return wrapped
