"""The synchronous client: each call runs in an event loop in its own thread, so it also works in notebooks."""

import asyncio
import threading
from collections.abc import Awaitable
from typing import Self, TypeVar, Unpack

from loratory.api.base import sync
from loratory.api.datasets import SyncDatasetApi
from loratory.api.event_log import SyncEventLogApi
from loratory.api.work import SyncWorkApi
from loratory.client import DEFAULT_URL, AsyncClient
from loratory.http import HttpOptions

R = TypeVar("R")


class Client(SyncDatasetApi, SyncWorkApi, SyncEventLogApi):
    """`with Client() as client:` …; the methods are those of `AsyncClient`."""

    def __init__(self, url: str = DEFAULT_URL, key: str | None = None, **options: Unpack[HttpOptions]) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="loratory client", daemon=True)
        self._thread.start()
        self.client = AsyncClient(url, key, **options)

    def close(self) -> None:
        if self._loop.is_closed():
            return
        self.wait_for(self.client.close())
        self.wait_for(self._loop.shutdown_asyncgens())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait_for(self, awaitable: Awaitable[R], /) -> R:
        async def result() -> R:
            return await awaitable

        return asyncio.run_coroutine_threadsafe(result(), self._loop).result()

    version = sync(AsyncClient.version)
    status = sync(AsyncClient.status)
    losses_found = sync(AsyncClient.losses_found)
