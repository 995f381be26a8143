"""Ending loops for sure."""

import asyncio


def wanted() -> bool:
    """Should this task go on? Asked by every loop that awaits the bus.

    Python 3.11's `asyncio.wait_for`, which nats-py uses in every request, returns normally when a cancellation arrives
    together with the answer: the request to stop is lost, and a loop that knows only CancelledError never ends. The
    task remembers that it was asked (https://github.com/python/cpython/issues/86296, mended in 3.12).
    """
    task = asyncio.current_task()
    return task is None or not task.cancelling()
