"""HTTP requests to the gateway: API key, retries, and problem documents as LoratoryErrors."""

import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Generic, TypedDict, TypeVar, Unpack
from urllib.parse import urlsplit

import httpx
import msgspec

from contracts.errors import BY_CODE, Behind, LoratoryError, SetupError, TooLarge, Unavailable
from contracts.ids import ulid
from contracts.retry import Outage, RetryPolicy

T = TypeVar("T")

MAX_RESPONSE_BYTES = 64 << 20
"""Maximum size of a response that is held in memory."""
RESPONSE_TIMEOUT_SECONDS = 90.0
"""Without a byte from the server; more than the gateway takes at most for a command."""
LIST_OF_DATASETS = "/api/v1/datasets"
RETRY_DELAY_SECONDS = 0.5
"""Delay before a retry if the server sends no Retry-After."""
RECONNECT = RetryPolicy(first_delay=0.5, time_limit=60.0)
"""Of a stream of events or frames: `time_limit` without a connection before following fails."""

Body = Callable[[], dict[str, Any]]
"""Builds httpx's `json=` or `files=` arguments for each attempt: a file that was sent once has been read to its end."""


class HttpOptions(TypedDict, total=False):
    """`retry_timeout`: seconds a request is retried while the server is unreachable or answers 503; 20 if not given.

    `initial_retry_timeout`: the same before the first response; if not given, `retry_timeout`.
    `page_size`: items of a list per request; 500 if not given.
    """

    retry_timeout: float
    initial_retry_timeout: float
    page_size: int
    tls: ssl.SSLContext | None
    """Which servers are trusted, as from `ssl.create_default_context(cafile=…)`; None: those the system trusts."""


class Items(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """A list, or one page of it; `next` is the cursor of the following page."""

    items: tuple[T, ...]
    next: str | None = None


def no_body() -> dict[str, Any]:
    return {}


def is_local(url: str) -> bool:
    """Does the URL point to this machine? Proxies are bypassed then."""
    return (urlsplit(url).hostname or "") in {"localhost", "127.0.0.1", "::1"}


class Http:
    """HTTP connection to one gateway.

    Every POST carries an Idempotency-Key, so a retry never takes effect twice. Reads after a write are at least as new
    as that write (`min_seq`). A write that is not shown yet (202) has succeeded; the next write waits until it is.
    """

    def __init__(self, url: str, key: str | None = None, **options: Unpack[HttpOptions]) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise SetupError(f"{url!r} is not a server address; expected something like http://127.0.0.1:8000")
        self.url = url.rstrip("/")
        self.headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._retry_timeout = options.get("retry_timeout", 20.0)
        self._timeout_now = options.get("initial_retry_timeout", self._retry_timeout)
        self._page_size = options.get("page_size", 500)
        self.tls = options.get("tls")
        self._sequence = 0
        self._is_shown = True
        """Whether the server shows the last write."""
        self._http = httpx.AsyncClient(
            base_url=self.url,
            headers={"Accept": "application/json", "User-Agent": "loratory-client", **self.headers},
            timeout=httpx.Timeout(RESPONSE_TIMEOUT_SECONDS, connect=5.0),
            trust_env=not is_local(url),
            verify=True if self.tls is None else self.tls,
        )

    async def close(self) -> None:
        await self._http.aclose()

    async def get(self, path: str, response_type: type[T], **query: object) -> T:
        """Query parameters that are None are omitted."""
        params = query_parameters(query | {"min_seq": self._sequence or None})
        return await self._request("GET", path, response_type, params=params)

    async def items(
        self, path: str, page_type: type[Items[T]], *, cursor: str = "cursor", start: str = "", **query: object
    ) -> AsyncGenerator[T, None]:
        """All items of a list, page by page; `cursor`: the name of the parameter. An empty page may have a next one."""
        position: str | None = start
        while position is not None:
            where: dict[str, object] = {cursor: position or None, "limit": self._page_size}
            page = await self.get(path, page_type, **query, **where)
            for item in page.items:
                yield item
            position = page.next

    async def post(self, path: str, response_type: type[T], body: Body = no_body, *, key: str | None = None) -> T:
        """`key`: an Idempotency-Key; requests with the same key take effect once, also across processes."""
        return await self._request("POST", path, response_type, body=body, headers={"Idempotency-Key": key or ulid()})

    async def post_until_shown(self, path: str, response_type: type[T], *, key: str | None = None) -> T:
        """A POST whose response describes the new state, and is requested again if that was not shown yet."""
        request = {"headers": {"Idempotency-Key": key or ulid()}}
        content = await self._send_with_retries("POST", path, no_body, request)
        if not self._is_shown:
            content = await self._send_with_retries("POST", path, no_body, request)
        return decode(content, response_type, f"{self.url} sent a response for {path}")

    async def put(self, path: str, response_type: type[T], body: Body) -> T:
        return await self._request("PUT", path, response_type, body=body)

    async def patch(self, path: str, response_type: type[T], body: Body) -> T:
        return await self._request("PATCH", path, response_type, body=body)

    async def content(self, path: str) -> bytes:
        """A small file, such as an image; see `download` for large ones."""
        return await self._send_with_retries("GET", path, no_body, {"headers": {"Accept": "*/*"}})

    @asynccontextmanager
    async def open_file(self, path: str, **query: object) -> AsyncIterator[httpx.Response]:
        """A file that the server makes; one attempt, as it cannot be continued. At least as new as the last write."""
        params = query_parameters(query | {"min_seq": self._sequence or None})
        headers = {"Accept": "*/*", "Accept-Encoding": "identity"}
        async with self.stream("GET", path, params=params, headers=headers) as response:
            yield response

    async def _request(
        self, method: str, path: str, response_type: type[T], *, body: Body = no_body, **request: Any
    ) -> T:
        content = await self._send_with_retries(method, path, body, request)
        return decode(content, response_type, f"{self.url} sent a response for {path}")

    async def _send_with_retries(self, method: str, path: str, body: Body, request: dict[str, Any]) -> bytes:
        if method != "GET" and not self._is_shown:
            self._is_shown = True
            await self.get(LIST_OF_DATASETS, msgspec.Raw, limit=1)
        outage = Outage(None, RetryPolicy(first_delay=RETRY_DELAY_SECONDS, time_limit=self._timeout_now))
        while True:
            try:
                async with self.stream(method, path, **body(), **request) as response:
                    self._timeout_now = self._retry_timeout
                    self._sequence = max(self._sequence, _log_sequence(response))
                    content = await _read_bounded(response)
                    self._is_shown = response.status_code != 202 or msgspec.json.decode(content, type=_Result).shown
                    return content
            except (Unavailable, Behind) as error:
                retry_after = error.extra.get("retry_after")
                await outage.wait(error, delay=None if retry_after is None else float(str(retry_after)))

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


def decode(content: bytes | str, expected: type[T], sent: str) -> T:
    """LoratoryError, which begins with `sent`, if it is not what this version expects."""
    try:
        return msgspec.json.decode(content, type=expected)
    except msgspec.DecodeError as error:
        raise LoratoryError(f"{sent} that this client cannot read: {error}") from error


def query_parameters(values: Mapping[str, object]) -> dict[str, Any]:
    """Without those that are None; times as RFC 3339."""
    given = {name: value for name, value in values.items() if value is not None}
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in given.items()}


class _Result(msgspec.Struct):
    shown: bool = True


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
        answer = f"{response.url} answered {response.status_code}"
        if response.status_code in {502, 503, 504}:
            return Unavailable(answer)
        return LoratoryError(f"{answer}; is it a Loratory server?")
    extensions = {name: value for name, value in members.items() if name not in {"code", "detail", "retry_after"}}
    if "Retry-After" in response.headers and response.headers["Retry-After"].isdecimal():
        extensions["retry_after"] = int(response.headers["Retry-After"])
    return BY_CODE.get(problem.code, LoratoryError)(problem.detail or problem.title, **extensions)


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
