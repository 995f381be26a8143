"""Who may ask at all: host, origin and key are checked before any route, for HTTP and WebSockets alike.

Loopback needs no key, but then a web page elsewhere must not reach it through the user's browser: by a foreign Origin,
by Sec-Fetch-Site, or by a name of its own that resolves to 127.0.0.1 (hence the check of Host).
"""

import hashlib
import hmac
from collections.abc import Iterable
from typing import Any

from litestar.types import ASGIApp, Receive, Send

from contracts.errors import LoratoryError
from gateway.http.problems import MEDIA_TYPE, Forbidden, Unauthorized, body_of, headers_of, status_of
from gateway.settings import Settings

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
OPEN = ("/web/", "/docs", "/health", "/openapi.json", "/asyncapi.json")
"""Served without a key: the page itself, the documents, and what a container's health check asks."""
LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
COOKIE = "loratory_session"
UNAUTHENTICATED = 4401


class Guard:
    """An ASGI app around the whole gateway."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._key = settings.api_key
        self._only_local = settings.loopback

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        try:
            self._check_site(scope, headers)
            scope["state"]["actor"] = self._actor(scope, headers)
        except LoratoryError as error:
            await _refuse(error, scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _check_site(self, scope: Any, headers: dict[str, str]) -> None:
        host = headers.get("host", "")
        if self._only_local and not self._key and _name(host) not in LOCAL_NAMES:
            raise Forbidden(f"this gateway listens for {', '.join(sorted(LOCAL_NAMES))}, not for {_name(host)!r}")
        if scope["type"] == "http" and scope["method"] in SAFE:
            return
        if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            raise Forbidden
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2].lower() != host.lower():
            raise Forbidden(f"requests from {origin} are refused: only this gateway's own page may change things")

    def _actor(self, scope: Any, headers: dict[str, str]) -> str:
        if not self._key:
            return "user:local"
        if _is_open(scope["path"]):
            return "user:nobody"
        if any(hmac.compare_digest(shown.encode(), self._key.encode()) for shown in _keys(headers)):
            return f"key:{key_id(self._key)}"
        if hmac.compare_digest(_cookie(headers).encode(), session_token(self._key).encode()):
            return f"key:{key_id(self._key)}"
        raise Unauthorized


def key_id(key: str) -> str:
    """A name for a key that does not give it away."""
    return hashlib.sha256(b"loratory key id\0" + key.encode()).hexdigest()[:12]


def session_token(key: str) -> str:
    """What a browser's cookie holds instead of the key; it ends when the key is changed."""
    return hmac.new(key.encode(), b"loratory session", "sha256").hexdigest()


def _is_open(path: str) -> bool:
    return path == "/" or path.startswith(OPEN) or path.rstrip("/") == "/api/v1/session"


def _keys(headers: dict[str, str]) -> Iterable[str]:
    scheme, _, key = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        yield key.strip()


def _cookie(headers: dict[str, str]) -> str:
    pairs = (pair.strip().partition("=") for pair in headers.get("cookie", "").split(";"))
    return next((value for name, _, value in pairs if name == COOKIE), "")


def _name(host: str) -> str:
    """`[::1]:8000` → `::1`."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()


async def _refuse(error: LoratoryError, scope: Any, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await receive()
        if isinstance(error, Unauthorized):  # a refused handshake says nothing to a browser; a close code does
            await send({"type": "websocket.accept", "subprotocol": None, "headers": []})
            await send({"type": "websocket.close", "code": UNAUTHENTICATED, "reason": "this needs an API key"})
        else:
            await send({"type": "websocket.close", "code": 4403, "reason": "foreign origin"})
        return
    headers = {"content-type": MEDIA_TYPE, "x-content-type-options": "nosniff", **headers_of(error)}
    encoded = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status_of(error), "headers": encoded})
    await send({"type": "http.response.body", "body": body_of(error, scope["path"]), "more_body": False})
