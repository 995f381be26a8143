"""The id of each request: from its `X-Request-ID`, or a new one; returned with the response, and bound to the log."""

from typing import Any

from litestar.types import ASGIApp, Receive, Send

from contracts.wire.service import request_ids

HEADER = "X-Request-ID"
_HEADER = HEADER.lower().encode()
_STARTS = ("http.response.start", "websocket.accept")


def with_request_id(app: ASGIApp) -> ASGIApp:
    """The same app; every response and accepted WebSocket has the id of its request in a header."""

    async def wrapped(scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await app(scope, receive, send)
            return
        given = next((value.decode("latin-1") for name, value in scope["headers"] if name == _HEADER), None)
        request_id = request_ids.accept(given)

        async def send_with_id(message: Any) -> None:
            if message["type"] in _STARTS:
                message["headers"] = [*message.get("headers", ()), (_HEADER, request_id.encode())]
            await send(message)

        with request_ids.bind(request_id):
            await app(scope, receive, send_with_id)

    return wrapped
