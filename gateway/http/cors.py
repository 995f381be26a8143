"""Cross-origin requests (CORS, WHATWG Fetch 3.2): pages of allowed origins may use the API, with a key of their own.

The session cookie is not for them: it is `SameSite=Strict`, and credentials are not allowed here.
"""

from collections.abc import Set
from typing import Any

from litestar.types import ASGIApp, Receive, Send

METHODS = b"GET, HEAD, POST, PUT, PATCH, DELETE"
REQUEST_HEADERS = (
    b"Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, If-Range, Range, Last-Event-ID, "
    b"traceparent, X-Request-ID"
)
RESPONSE_HEADERS = (
    b"Accept-Ranges, Content-Disposition, Content-Range, ETag, Link, Location, Loratory-As-Of, Loratory-Seq, "
    b"Repr-Digest, Retry-After, X-Request-ID"
)
PREFLIGHT_SECONDS = b"600"


def with_cors(app: ASGIApp, origins: Set[str]) -> ASGIApp:
    """The same app; browsers let pages of these origins (`https://studio.example`) read its answers."""
    if not origins:
        return app

    async def wrapped(scope: Any, receive: Receive, send: Send) -> None:
        origin = allowed_origin(scope, origins)
        if scope["type"] != "http" or origin is None:
            await app(scope, receive, send)
            return
        shared = [(b"access-control-allow-origin", origin), (b"vary", b"Origin")]
        if is_preflight(scope):
            answer = [
                (b"access-control-allow-methods", METHODS),
                (b"access-control-allow-headers", REQUEST_HEADERS),
                (b"access-control-max-age", PREFLIGHT_SECONDS),
            ]
            await send({"type": "http.response.start", "status": 204, "headers": [*shared, *answer]})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return

        async def send_shared(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message.get("headers", ()),
                    *shared,
                    (b"access-control-expose-headers", RESPONSE_HEADERS),
                    (b"cross-origin-resource-policy", b"cross-origin"),
                ]
            await send(message)

        await app(scope, receive, send_shared)

    return wrapped


def allowed_origin(scope: Any, origins: Set[str]) -> bytes | None:
    """The request's origin, if it is one of these."""
    found = next((value for name, value in scope.get("headers", ()) if name == b"origin"), None)
    return found if found is not None and found.decode("latin-1").lower() in origins else None


def is_preflight(scope: Any) -> bool:
    """Whether a browser asks what it may send."""
    names = {name for name, _ in scope["headers"]}
    return scope["method"] == "OPTIONS" and b"access-control-request-method" in names
