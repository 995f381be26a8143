"""Cancellation-safe loop condition (works around cpython#86296 on 3.11)."""

import asyncio


def is_cancelled() -> bool:
    """Whether the current task was cancelled, even if its CancelledError was lost.

    Python 3.11's `asyncio.wait_for`, which nats-py uses in every request, returns normally when a cancellation arrives
    together with the reply: the CancelledError is lost, and a loop that relies on it never ends. The task still counts
    the cancellation (https://github.com/python/cpython/issues/86296, fixed in 3.12).
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def not_cancelled() -> bool:
    """Whether the current task should go on; the condition of every loop that awaits the bus."""
    return not is_cancelled()
