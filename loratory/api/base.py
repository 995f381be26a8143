"""What the classes of this folder share."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import datetime
from functools import update_wrapper
from typing import Any, Concatenate, ParamSpec, Protocol, TypedDict, TypeVar
from urllib.parse import quote

from contracts.errors import LoratoryError
from loratory.http import Http

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

LONG_POLL_SECONDS = 20
POLL_SECONDS = 0.5
Timestamp = datetime | str
"""A time, or an RFC 3339 string with an offset or Z."""


class PointInTime(TypedDict, total=False):
    """At which log sequence or time something is read; without both: now."""

    at_seq: int | None
    at_time: Timestamp | None


class WaitTimeout(LoratoryError):
    """It did not end within the timeout."""

    code = "timeout"


class Api:
    def __init__(self, http: Http) -> None:
        self._http = http


class SyncApi(Protocol):
    """The synchronous client, as its methods see it."""

    client: Any

    def wait_for(self, awaitable: Awaitable[R], /) -> R: ...


def sync(method: Callable[Concatenate[Any, P], Awaitable[R]]) -> Callable[Concatenate[SyncApi, P], R]:
    """The same method of the synchronous client."""

    def call(self: SyncApi, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.wait_for(method(self.client, *args, **kwargs))

    return update_wrapper(call, method)


def sync_iterator(
    method: Callable[Concatenate[Any, P], AsyncGenerator[R, None]],
) -> Callable[Concatenate[SyncApi, P], Iterator[R]]:
    def call(self: SyncApi, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[R]:
        items = method(self.client, *args, **kwargs)
        try:
            while True:
                yield self.wait_for(anext(items))
        except StopAsyncIteration:
            return
        finally:
            self.wait_for(items.aclose())

    return update_wrapper(call, method)


def path(*segments: str) -> str:
    """`/api/v1/` and the encoded segments."""
    return "/".join(("/api/v1", *(quote(segment, safe="") for segment in segments)))


@asynccontextmanager
async def wait_limit(name: str, timeout: float | None) -> AsyncIterator[None]:
    """WaitTimeout if the body takes longer than `timeout` seconds."""
    try:
        async with asyncio.timeout(timeout):
            yield
    except TimeoutError as error:
        raise WaitTimeout(f"{name} has not ended after {timeout:g} s") from error


async def poll(read: Callable[[], Awaitable[T]], is_over: Callable[[T], bool], on_each: Callable[[T], None]) -> T:
    """Read until it is over. `on_each` is called with each state before that."""
    while not is_over(now := await read()):
        on_each(now)
        await asyncio.sleep(POLL_SECONDS)
    return now
