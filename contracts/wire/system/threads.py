"""Work in a thread that its caller may cancel: either it is cancelled, or it commits, and never both.

def write(interruption: Interruption) -> None:
    for piece in interruption.checked(pieces):      # ends here when the caller was cancelled
        draft.write(piece)
    interruption.commit()                           # from here on it is done, whatever happens to the caller
    draft.rename(target)

await run_interruptible(write)
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import Any, Literal, TypeVar

T = TypeVar("T")


class Interrupted(Exception):
    """The caller was cancelled before the work committed; the thread undoes what it did and ends."""


class Interruption:
    """Decides which came first: the cancellation of the caller, or the commit of the work."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._state: Literal["running", "cancelled", "committed"] = "running"
        self._on_cancel: Callable[[], object] = lambda: None

    def check(self) -> None:
        """Interrupted if the caller was cancelled; call it between pieces of the work."""
        if self._state == "cancelled":
            raise Interrupted

    def checked(self, pieces: Iterable[T]) -> Iterator[T]:
        """The same pieces, checked before each."""
        for piece in pieces:
            self.check()
            yield piece

    def commit(self) -> None:
        """Interrupted if the caller was cancelled; from now on it is too late for that."""
        with self._lock:
            self.check()
            self._state = "committed"

    def on_cancel(self, stop: Callable[[], object]) -> None:
        """`stop`, called from another thread, makes what the work does now return early."""
        with self._lock:
            self.check()
            self._on_cancel = stop

    def cancel(self) -> bool:
        """False: too late, the work has committed."""
        with self._lock:
            if self._state == "committed":
                return False
            self._state = "cancelled"
            stop = self._on_cancel
        stop()
        return True


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
