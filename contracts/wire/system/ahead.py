"""Stages of work that overlap."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TypeVar

from contracts.cancellation import is_cancelled

T = TypeVar("T")


async def ahead(items: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
    """The same items, which are made in a task while the last one is used: at most two wait.

    An error follows the items that were made before it. When this is closed, `items` is cancelled and closed.
    """
    queue: asyncio.Queue[tuple[T] | None] = asyncio.Queue(maxsize=1)

    async def fill() -> None:
        try:
            async with aclosing(items):
                async for item in items:
                    await queue.put((item,))
        finally:
            if not is_cancelled():
                await queue.put(None)

    filling = asyncio.create_task(fill())
    try:
        while (made := await queue.get()) is not None:
            yield made[0]
        await filling
    finally:
        filling.cancel()
        await asyncio.gather(filling, return_exceptions=True)
