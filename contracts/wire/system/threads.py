"""Threads whose work can be cancelled until it commits (see `contracts.interruption`)."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from contracts.interruption import Interruption

T = TypeVar("T")


async def run_interruptible(work: Callable[[Interruption], T]) -> T:
    """The result of `work`, which runs in a thread.

    A cancellation before the work commits ends this call at once, and the thread at its next check; one after it ends
    this call when the thread has ended.
    """
    interruption = Interruption()
    running = asyncio.ensure_future(asyncio.to_thread(work, interruption))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        if not interruption.cancel():
            await asyncio.wait({running})
        running.add_done_callback(_ignore_outcome)
        raise


async def finish_if_committed(work: Coroutine[Any, Any, T], interruption: Interruption, *, timeout: float) -> T:
    """The result of `work`, whose threads commit to `interruption`.

    A cancellation before that cancels the work at once; one after it leaves it `timeout` seconds to finish.
    """
    running = asyncio.create_task(work)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        if not interruption.cancel():
            await asyncio.wait({running}, timeout=timeout)
        raise
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def _ignore_outcome(running: "asyncio.Future[T]") -> None:
    """Nobody waits for it: asyncio would otherwise log its error, which is Interrupted."""
    if not running.cancelled():
        running.exception()
