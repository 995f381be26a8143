"""Threads whose work can be cancelled until it commits (see `contracts.thread_cancellation`)."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from contracts.thread_cancellation import ThreadCancellation

T = TypeVar("T")


async def run_cancellable(work: Callable[[ThreadCancellation], T]) -> T:
    """The result of `work`, which runs in a thread.

    A cancellation before the work commits ends this call at once, and the thread at its next check; one after it ends
    this call when the thread has ended.
    """
    cancellation = ThreadCancellation()
    running = asyncio.ensure_future(asyncio.to_thread(work, cancellation))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        if not cancellation.cancel():
            await asyncio.wait({running})
        running.add_done_callback(_ignore_outcome)
        raise


async def finish_if_committed(work: Coroutine[Any, Any, T], cancellation: ThreadCancellation, *, timeout: float) -> T:
    """The result of `work`, whose threads commit to `cancellation`.

    A cancellation before that cancels the work at once; one after it leaves it `timeout` seconds to finish.
    """
    running = asyncio.create_task(work)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        if not cancellation.cancel():
            await asyncio.wait({running}, timeout=timeout)
        raise
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def _ignore_outcome(running: "asyncio.Future[T]") -> None:
    """Nobody waits for it: asyncio would otherwise log its error, which is ThreadCancelled."""
    if not running.cancelled():
        running.exception()
