"""Requests to the gateway: the key, retries, and its problem documents as our errors."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx
import msgspec

from contracts.errors import BY_CODE, LoratoryError, SetupError, TooLarge, Unavailable
from contracts.ids import ulid

T = TypeVar("T")

MOST_BYTES = 64 << 20
"""An answer that is no file is refused beyond this."""
PAUSE = 0.5
"""Seconds before a second try where the server names none (Retry-After)."""

Body = Callable[[], dict[str, Any]]
"""Makes httpx's `json=` or `files=` arguments, anew for each try: a file that was read once is at its end."""


def nothing() -> dict[str, Any]:
    return {}


def here(url: str) -> bool:
    """Is it this machine? Then no proxy is asked."""
    return (urlsplit(url).hostname or "") in {"localhost", "127.0.0.1", "::1"}


class Http:
    """`patience` in seconds: so long a request is tried again while the server is away or asks for it (503).

    `at_first`: the same until it has answered once; none = no difference.

    Every POST carries an Idempotency-Key, so that a second try never does a thing twice. What is read after a write
    stands at least at that write (`min_seq`).
    """

    def __init__(
        self, url: str, key: str | None = None, *, patience: float = 20.0, at_first: float | None = None
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise SetupError(f"{url!r} is no address of a server; it looks like http://127.0.0.1:8000")
        self.url = url.rstrip("/")
        self.headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._patience = patience
        self._at_first = patience if at_first is None else at_first
        self._reached = False
        self._sequence = 0
        self._http = httpx.AsyncClient(
            base_url=self.url,
            headers={"Accept": "application/json", "User-Agent": "loratory-client", **self.headers},
            timeout=httpx.Timeout(60.0, connect=5.0),
            trust_env=not here(url),
        )

    async def close(self) -> None:
        await self._http.aclose()

    async def get(self, path: str, answer: type[T], **query: object) -> T:
        """Query parameters that are none are left out."""
        asked = {name: _said(value) for name, value in query.items() if value is not None}
        if self._sequence:
            asked["min_seq"] = self._sequence
        return await self._asked("GET", path, answer, params=asked)

    async def post(self, path: str, answer: type[T], body: Body = nothing, *, key: str | None = None) -> T:
        """`key`: an Idempotency-Key of the caller's; the same key never does it twice, also from another process."""
        return await self._asked("POST", path, answer, body=body, headers={"Idempotency-Key": key or ulid()})

    async def patch(self, path: str, answer: type[T], body: Body) -> T:
        return await self._asked("PATCH", path, answer, body=body)

    async def content(self, path: str) -> bytes:
        """A small file as it is, such as a picture; see `download` for large ones."""
        return await self._tried("GET", path, nothing, {"headers": {"Accept": "*/*"}})

    async def _asked(self, method: str, path: str, answer: type[T], *, body: Body = nothing, **request: Any) -> T:
        content = await self._tried(method, path, body, request)
        try:
            return msgspec.json.decode(content, type=answer)
        except msgspec.DecodeError as error:
            raise LoratoryError(f"{self.url} answers {path} in a way this client does not know: {error}") from error

    async def _tried(self, method: str, path: str, body: Body, request: dict[str, Any]) -> bytes:
        began = asyncio.get_running_loop().time()
        while True:
            try:
                async with self.stream(method, path, **body(), **request) as response:
                    self._reached = True
                    self._sequence = max(self._sequence, _sequence(response))
                    return await _bounded(response)
            except (Unavailable, BY_CODE["behind"]) as error:
                pause = float(str(error.facts.get("retry_after", PAUSE)))
                patience = self._patience if self._reached else self._at_first
                if asyncio.get_running_loop().time() + pause > began + patience:
                    raise
                await asyncio.sleep(pause)

    @asynccontextmanager
    async def stream(self, method: str, path: str, **request: Any) -> AsyncIterator[httpx.Response]:
        """One try; the error the server tells of, or Unavailable where there is none to ask."""
        try:
            async with self._http.stream(method, path, **request) as response:
                if response.status_code >= 400:
                    raise problem(response, await _bounded(response))
                yield response
        except httpx.TransportError as error:
            reason = str(error) or type(error).__name__
            raise Unavailable(f"no Loratory answers at {self.url} ({reason}); is `loratory up` running?") from error
        except httpx.InvalidURL as error:
            raise SetupError(f"{self.url!r} is no address: {error}") from error


def _said(value: object) -> object:
    """A time as RFC 3339 writes it."""
    return value.isoformat() if isinstance(value, datetime) else value


class _Problem(msgspec.Struct):
    code: str
    title: str = ""
    detail: str = ""


def problem(response: httpx.Response, content: bytes) -> LoratoryError:
    """The error that a problem document (RFC 9457) tells of, with its facts."""
    try:
        told = msgspec.json.decode(content, type=_Problem)
        facts: Mapping[str, object] = msgspec.json.decode(content, type=dict[str, object])
    except msgspec.DecodeError:
        return _strange(response)
    more = {name: value for name, value in facts.items() if name not in {"code", "detail", "retry_after"}}
    if "Retry-After" in response.headers and response.headers["Retry-After"].isdecimal():
        more["retry_after"] = int(response.headers["Retry-After"])
    return BY_CODE.get(told.code, LoratoryError)(told.detail or told.title, **more)


def _strange(response: httpx.Response) -> LoratoryError:
    if response.status_code in {502, 503, 504}:
        return Unavailable(f"{response.url} answers {response.status_code}")
    return LoratoryError(f"{response.url} answers {response.status_code}; is there a Loratory?")


def _sequence(response: httpx.Response) -> int:
    text = response.headers.get("Loratory-Seq", "")
    return int(text) if text.isdecimal() else 0


async def _bounded(response: httpx.Response) -> bytes:
    content = bytearray()
    async for piece in response.aiter_bytes():
        content += piece
        if len(content) > MOST_BYTES:
            raise TooLarge(f"the answer of {response.url} has more than {MOST_BYTES} bytes")
    return bytes(content)
