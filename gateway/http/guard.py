"""Access control: host, origin and API key are checked before any route, for HTTP and WebSockets alike.

On loopback no key is needed, but another site must not reach the gateway through the user's browser. So a foreign
Origin or Sec-Fetch-Site is refused, unless the origin is one of the settings', and a foreign Host too (DNS rebinding: a
name that resolves to 127.0.0.1).
"""

import hashlib
import hmac
from collections.abc import Iterable
from typing import Any

from litestar.types import ASGIApp, Receive, Send

from contracts.errors import LoratoryError
from gateway.http.cors import allowed_origin
from gateway.http.problems import Forbidden, TooManyAttempts, Unauthorized, send_problem
from gateway.http.sessions import Sessions
from gateway.http.wrong_keys import WrongKeys
from gateway.settings import Settings

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
PUBLIC_PATHS = ("/web/", "/docs", "/health", "/openapi.json", "/asyncapi.json")
"""Served without a key: the web page, the documentation, and the health checks of containers."""
LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
SESSION_COOKIE = "loratory_session"
CLOSE_UNAUTHENTICATED, CLOSE_FORBIDDEN = 4401, 4403


class Guard:
    """An ASGI app around the whole gateway."""

    def __init__(self, app: ASGIApp, settings: Settings, wrong_keys: WrongKeys, sessions: Sessions) -> None:
        self._app = app
        self._key = settings.api_key
        self._only_local = settings.is_loopback
        self._origins = settings.origins
        self._wrong_keys = wrong_keys
        self._sessions = sessions

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        try:
            self._check_site(scope, headers)
            scope["state"]["actor"] = await self._actor(scope, headers)
        except LoratoryError as error:
            await _send_error(error, scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _check_site(self, scope: Any, headers: dict[str, str]) -> None:
        host = headers.get("host", "")
        if self._only_local and not self._key and _hostname(host) not in LOCAL_NAMES:
            raise Forbidden(f"the Host header must be {', '.join(sorted(LOCAL_NAMES))}, not {_hostname(host)!r}")
        if (scope["type"] == "http" and scope["method"] in SAFE_METHODS) or allowed_origin(scope, self._origins):
            return
        if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            raise Forbidden
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2].lower() != host.lower():
            raise Forbidden(f"requests from {origin} are refused: only this gateway's own page may make changes")

    async def _actor(self, scope: Any, headers: dict[str, str]) -> str:
        if not self._key:
            return "user:local"
        if _is_public(scope["path"]):
            return "user:nobody"
        if any(hmac.compare_digest(token.encode(), self._key.encode()) for token in _bearer_tokens(headers)):
            return f"key:{key_id(self._key)}"
        if self._sessions.is_open(session_cookie(headers.get("cookie", ""))):
            return f"key:{key_id(self._key)}"
        if any(_bearer_tokens(headers)):
            await self._wrong_keys.refuse(client_address(scope))
        raise Unauthorized


def client_address(scope: Any) -> str:
    """Of the connection: behind a proxy, that of the proxy."""
    return scope["client"][0] if scope.get("client") else ""


def key_id(key: str) -> str:
    """A public identifier of a key."""
    return hashlib.sha256(b"loratory key id\0" + key.encode()).hexdigest()[:12]


def _is_public(path: str) -> bool:
    return path == "/" or path.startswith(PUBLIC_PATHS) or path.rstrip("/") == "/api/v1/session"


def _bearer_tokens(headers: dict[str, str]) -> Iterable[str]:
    scheme, _, key = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        yield key.strip()


def session_cookie(cookies: str) -> str:
    """The session's value in a header `Cookie`; empty if there is none."""
    pairs = (pair.strip().partition("=") for pair in cookies.split(";"))
    return next((value for name, _, value in pairs if name == SESSION_COOKIE), "")


def _hostname(host: str) -> str:
    """`[::1]:8000` → `::1`."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()


async def _send_error(error: LoratoryError, scope: Any, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await receive()
        if isinstance(error, Unauthorized | TooManyAttempts):  # browsers hide why one was refused, but not a close code
            await send({"type": "websocket.accept", "subprotocol": None, "headers": []})
            await send({"type": "websocket.close", "code": CLOSE_UNAUTHENTICATED, "reason": "an API key is required"})
        else:
            await send({"type": "websocket.close", "code": CLOSE_FORBIDDEN, "reason": "foreign origin"})
        return
    await send_problem(error, scope, send)
