"""Work in a thread that its caller may cancel: either it is cancelled, or it commits, and never both.

def write(cancellation: ThreadCancellation) -> None:
    for piece in cancellation.checked(pieces):      # ends here when the caller was cancelled
        draft.write(piece)
    cancellation.commit()                           # from here on it is done, whatever happens to the caller
    draft.rename(target)

await run_cancellable(write)                      # of `contracts.wire.system.threads`
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Literal, TypeVar

T = TypeVar("T")


class ThreadCancelled(Exception):
    """The caller was cancelled before the work committed; the thread undoes what it did and ends."""


class ThreadCancellation:
    """Decides which came first: the cancellation of the caller, or the commit of the work."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._state: Literal["running", "cancelled", "committed"] = "running"
        self._on_cancel: Callable[[], object] = lambda: None

    def check(self) -> None:
        """ThreadCancelled if the caller was cancelled; call it between pieces of the work."""
        if self._state == "cancelled":
            raise ThreadCancelled

    def checked(self, pieces: Iterable[T]) -> Iterator[T]:
        """The same pieces, checked before each."""
        for piece in pieces:
            self.check()
            yield piece

    def commit(self) -> None:
        """ThreadCancelled if the caller was cancelled; from now on it is too late for that."""
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
