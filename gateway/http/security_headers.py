"""Headers that keep browsers from doing more with an answer than was meant (OWASP: HTTP Security Response Headers)."""

from typing import Any

from litestar.types import ASGIApp, Receive, Send

DEFAULTS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'; sandbox"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
)
"""Data is never a document that runs or is shown in a frame, and no other site shows our pictures. The page has a
Content-Security-Policy of its own."""


def with_security_headers(app: ASGIApp) -> ASGIApp:
    """The same app; every HTTP response has those of these headers that it does not have yet."""

    async def wrapped(scope: Any, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                given = list(message.get("headers", ()))
                names = {name.lower() for name, _ in given}
                message["headers"] = [*given, *(header for header in DEFAULTS if header[0] not in names)]
            await send(message)

        await app(scope, receive, send_with_headers if scope["type"] == "http" else send)

    return wrapped
