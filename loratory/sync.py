"""The client without `await`: each call runs in an event loop of its own thread, so that it works in notebooks too."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator
from functools import update_wrapper
from typing import Any, Concatenate, ParamSpec, Self, TypeVar, cast

from loratory.client import LOCAL, AsyncClient

P = ParamSpec("P")
R = TypeVar("R")


def _called(method: Callable[Concatenate[AsyncClient, P], Awaitable[R]]) -> Callable[Concatenate["Client", P], R]:
    def call(self: "Client", /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._wait(method(self._client, *args, **kwargs))

    return update_wrapper(call, method)


def _iterated(
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
    """`with Client() as client:` …, see `AsyncClient`."""

    def __init__(self, url: str = LOCAL, key: str | None = None, *, patience: float = 20.0) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="loratory client", daemon=True)
        self._thread.start()
        self._client = AsyncClient(url, key, patience=patience)

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

    def _wait(self, work: Awaitable[R]) -> R:
        return asyncio.run_coroutine_threadsafe(cast("Coroutine[Any, Any, R]", _awaited(work)), self._loop).result()

    version = _called(AsyncClient.version)
    status = _called(AsyncClient.status)
    datasets = _called(AsyncClient.datasets)
    dataset = _called(AsyncClient.dataset)
    create_dataset = _called(AsyncClient.create_dataset)
    ensure_dataset = _called(AsyncClient.ensure_dataset)
    images = _called(AsyncClient.images)
    image = _called(AsyncClient.image)
    picture = _called(AsyncClient.picture)
    tags = _called(AsyncClient.tags)
    import_folder = _called(AsyncClient.import_folder)
    import_files = _called(AsyncClient.import_files)
    import_found = _called(AsyncClient.import_found)
    erase_image = _called(AsyncClient.erase_image)
    erase_dataset = _called(AsyncClient.erase_dataset)
    tag = _called(AsyncClient.tag)
    tagging_run = _called(AsyncClient.tagging_run)
    wait_tagging = _called(AsyncClient.wait_tagging)
    presets = _called(AsyncClient.presets)
    preset = _called(AsyncClient.preset)
    train = _called(AsyncClient.train)
    jobs = _called(AsyncClient.jobs)
    job = _called(AsyncClient.job)
    start_job = _called(AsyncClient.start_job)
    cancel_job = _called(AsyncClient.cancel_job)
    describe_job = _called(AsyncClient.describe_job)
    wait_job = _called(AsyncClient.wait_job)
    samples = _called(AsyncClient.samples)
    sample = _called(AsyncClient.sample)
    artifacts = _called(AsyncClient.artifacts)
    download = _called(AsyncClient.download)
    audit_head = _called(AsyncClient.audit_head)
    audit_verify = _called(AsyncClient.audit_verify)
    watch_job = _iterated(AsyncClient.watch_job)
    watch = _iterated(AsyncClient.watch)
    events = _iterated(AsyncClient.events)
    job_history = _iterated(AsyncClient.job_history)
    image_history = _iterated(AsyncClient.image_history)
    dataset_history = _iterated(AsyncClient.dataset_history)
    audit_replay = _called(AsyncClient.audit_replay)


async def _awaited(work: Awaitable[R]) -> R:
    return await work
