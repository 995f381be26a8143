"""The synchronous client: each call runs in an event loop in its own thread, so it also works in notebooks."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator
from functools import update_wrapper
from typing import Any, Concatenate, ParamSpec, Self, TypeVar, cast

from loratory.client import DEFAULT_URL, AsyncClient

P = ParamSpec("P")
R = TypeVar("R")


def _sync(method: Callable[Concatenate[AsyncClient, P], Awaitable[R]]) -> Callable[Concatenate["Client", P], R]:
    def call(self: "Client", /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._wait(method(self._client, *args, **kwargs))

    return update_wrapper(call, method)


def _sync_iterator(
    method: Callable[Concatenate[AsyncClient, P], AsyncGenerator[R, None]],
) -> Callable[Concatenate["Client", P], Iterator[R]]:
    def call(self: "Client", /, *args: P.args, **kwargs: P.kwargs) -> Iterator[R]:
        items = method(self._client, *args, **kwargs)
        try:
            while True:
                yield self._wait(anext(items))
        except StopAsyncIteration:
            return
        finally:
            self._wait(items.aclose())

    return update_wrapper(call, method)


class Client:
    """`with Client() as client:` …; the methods are those of `AsyncClient`."""

    def __init__(self, url: str = DEFAULT_URL, key: str | None = None, *, retry_timeout: float = 20.0) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="loratory client", daemon=True)
        self._thread.start()
        self._client = AsyncClient(url, key, retry_timeout=retry_timeout)

    def close(self) -> None:
        if self._loop.is_closed():
            return
        self._wait(self._client.close())
        self._wait(self._loop.shutdown_asyncgens())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _wait(self, awaitable: Awaitable[R]) -> R:
        return asyncio.run_coroutine_threadsafe(
            cast("Coroutine[Any, Any, R]", _as_coroutine(awaitable)), self._loop
        ).result()

    version = _sync(AsyncClient.version)
    status = _sync(AsyncClient.status)
    datasets = _sync(AsyncClient.datasets)
    dataset = _sync(AsyncClient.dataset)
    create_dataset = _sync(AsyncClient.create_dataset)
    ensure_dataset = _sync(AsyncClient.ensure_dataset)
    images = _sync(AsyncClient.images)
    image = _sync(AsyncClient.image)
    picture = _sync(AsyncClient.picture)
    tags = _sync(AsyncClient.tags)
    import_folder = _sync(AsyncClient.import_folder)
    import_files = _sync(AsyncClient.import_files)
    import_scanned = _sync(AsyncClient.import_scanned)
    erase_image = _sync(AsyncClient.erase_image)
    erase_dataset = _sync(AsyncClient.erase_dataset)
    tag = _sync(AsyncClient.tag)
    tagging_run = _sync(AsyncClient.tagging_run)
    wait_tagging = _sync(AsyncClient.wait_tagging)
    presets = _sync(AsyncClient.presets)
    preset = _sync(AsyncClient.preset)
    train = _sync(AsyncClient.train)
    jobs = _sync(AsyncClient.jobs)
    job = _sync(AsyncClient.job)
    start_job = _sync(AsyncClient.start_job)
    cancel_job = _sync(AsyncClient.cancel_job)
    set_job_description = _sync(AsyncClient.set_job_description)
    wait_job = _sync(AsyncClient.wait_job)
    samples = _sync(AsyncClient.samples)
    sample = _sync(AsyncClient.sample)
    artifacts = _sync(AsyncClient.artifacts)
    download = _sync(AsyncClient.download)
    audit_head = _sync(AsyncClient.audit_head)
    audit_verify = _sync(AsyncClient.audit_verify)
    watch_job = _sync_iterator(AsyncClient.watch_job)
    watch = _sync_iterator(AsyncClient.watch)
    events = _sync_iterator(AsyncClient.events)
    job_history = _sync_iterator(AsyncClient.job_history)
    image_history = _sync_iterator(AsyncClient.image_history)
    dataset_history = _sync_iterator(AsyncClient.dataset_history)
    audit_replay = _sync(AsyncClient.audit_replay)


async def _as_coroutine(awaitable: Awaitable[R]) -> R:
    return await awaitable
