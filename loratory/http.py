"""HTTP requests to the gateway: API key, retries, and problem documents as LoratoryErrors."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx
import msgspec

from contracts.errors import BY_CODE, Behind, LoratoryError, SetupError, TooLarge, Unavailable
from contracts.ids import ulid

T = TypeVar("T")

MAX_RESPONSE_BYTES = 64 << 20
"""Maximum size of a response that is held in memory."""
RETRY_DELAY_SECONDS = 0.5
"""Delay before a retry if the server sends no Retry-After."""

Body = Callable[[], dict[str, Any]]
"""Builds httpx's `json=` or `files=` arguments for each attempt: a file that was sent once has been read to its end."""


def no_body() -> dict[str, Any]:
    return {}


def is_local(url: str) -> bool:
    """Does the URL point to this machine? Proxies are bypassed then."""
    return (urlsplit(url).hostname or "") in {"localhost", "127.0.0.1", "::1"}


class Http:
    """HTTP connection to one gateway.

    `retry_timeout`: seconds a request is retried while the server is unreachable or answers 503.
    `initial_retry_timeout`: the same before the first response; None = `retry_timeout`.

    Every POST carries an Idempotency-Key, so a retry never takes effect twice. Reads after a write are at least as new
    as that write (`min_seq`).
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        retry_timeout: float = 20.0,
        initial_retry_timeout: float | None = None,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise SetupError(f"{url!r} is not a server address; expected something like http://127.0.0.1:8000")
        self.url = url.rstrip("/")
        self.headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._retry_timeout = retry_timeout
        self._initial_retry_timeout = retry_timeout if initial_retry_timeout is None else initial_retry_timeout
        self._reached = False
        self._sequence = 0
        self._http = httpx.AsyncClient(
            base_url=self.url,
            headers={"Accept": "application/json", "User-Agent": "loratory-client", **self.headers},
            timeout=httpx.Timeout(60.0, connect=5.0),
            trust_env=not is_local(url),
        )

    async def close(self) -> None:
        await self._http.aclose()

    async def get(self, path: str, response_type: type[T], **query: object) -> T:
        """Query parameters that are None are omitted."""
        params = {name: _query_value(value) for name, value in query.items() if value is not None}
        if self._sequence:
            params["min_seq"] = self._sequence
        return await self._request("GET", path, response_type, params=params)

    async def post(self, path: str, response_type: type[T], body: Body = no_body, *, key: str | None = None) -> T:
        """`key`: an Idempotency-Key; requests with the same key take effect once, also across processes."""
        return await self._request("POST", path, response_type, body=body, headers={"Idempotency-Key": key or ulid()})

    async def patch(self, path: str, response_type: type[T], body: Body) -> T:
        return await self._request("PATCH", path, response_type, body=body)

    async def content(self, path: str) -> bytes:
        """A small file, such as an image; see `download` for large ones."""
        return await self._send_with_retries("GET", path, no_body, {"headers": {"Accept": "*/*"}})

    async def _request(
        self, method: str, path: str, response_type: type[T], *, body: Body = no_body, **request: Any
    ) -> T:
        content = await self._send_with_retries(method, path, body, request)
        try:
            return msgspec.json.decode(content, type=response_type)
        except msgspec.DecodeError as error:
            raise LoratoryError(
                f"{self.url} sent a response for {path} that this client cannot read: {error}"
            ) from error

    async def _send_with_retries(self, method: str, path: str, body: Body, request: dict[str, Any]) -> bytes:
        started = asyncio.get_running_loop().time()
        while True:
            try:
                async with self.stream(method, path, **body(), **request) as response:
                    self._reached = True
                    self._sequence = max(self._sequence, _log_sequence(response))
                    return await _read_bounded(response)
            except (Unavailable, Behind) as error:
                delay = float(str(error.extra.get("retry_after", RETRY_DELAY_SECONDS)))
                timeout = self._retry_timeout if self._reached else self._initial_retry_timeout
                if asyncio.get_running_loop().time() + delay > started + timeout:
                    raise
                await asyncio.sleep(delay)

    @asynccontextmanager
    async def stream(self, method: str, path: str, **request: Any) -> AsyncIterator[httpx.Response]:
        """One attempt. Raises the error of the problem document, or Unavailable without a response."""
        try:
            async with self._http.stream(method, path, **request) as response:
                if response.status_code >= 400:
                    raise error_from_problem(response, await _read_bounded(response))
                yield response
        except httpx.TransportError as error:
            reason = str(error) or type(error).__name__
            raise Unavailable(f"no Loratory server at {self.url} ({reason}); is `loratory up` running?") from error
        except httpx.InvalidURL as error:
            raise SetupError(f"{self.url!r} is not a server address: {error}") from error


def _query_value(value: object) -> object:
    """Times as RFC 3339."""
    return value.isoformat() if isinstance(value, datetime) else value


class _Problem(msgspec.Struct):
    code: str
    title: str = ""
    detail: str = ""


def error_from_problem(response: httpx.Response, content: bytes) -> LoratoryError:
    """The LoratoryError of a problem document (RFC 9457), with its extension members."""
    try:
        problem = msgspec.json.decode(content, type=_Problem)
        members: Mapping[str, object] = msgspec.json.decode(content, type=dict[str, object])
    except msgspec.DecodeError:
        return _error_without_problem(response)
    extensions = {name: value for name, value in members.items() if name not in {"code", "detail", "retry_after"}}
    if "Retry-After" in response.headers and response.headers["Retry-After"].isdecimal():
        extensions["retry_after"] = int(response.headers["Retry-After"])
    return BY_CODE.get(problem.code, LoratoryError)(problem.detail or problem.title, **extensions)


def _error_without_problem(response: httpx.Response) -> LoratoryError:
    if response.status_code in {502, 503, 504}:
        return Unavailable(f"{response.url} answered {response.status_code}")
    return LoratoryError(f"{response.url} answered {response.status_code}; is it a Loratory server?")


def _log_sequence(response: httpx.Response) -> int:
    """The log sequence of a write, 0 for a read."""
    text = response.headers.get("Loratory-Seq", "")
    return int(text) if text.isdecimal() else 0


async def _read_bounded(response: httpx.Response) -> bytes:
    content = bytearray()
    async for piece in response.aiter_bytes():
        content += piece
        if len(content) > MAX_RESPONSE_BYTES:
            raise TooLarge(f"the response of {response.url} is larger than {MAX_RESPONSE_BYTES} bytes")
    return bytes(content)
