"""Items that are made ahead of their use."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from contracts.wire.system.ahead import ahead


class Source:
    """Makes numbers; `made` and `closed` say how far it came."""

    def __init__(self, count: int, error: Exception | None = None) -> None:
        self.count, self.error, self.made, self.closed = count, error, 0, False

    async def items(self) -> AsyncGenerator[int, None]:
        try:
            while self.made < self.count:
                self.made += 1
                yield self.made
            if self.error is not None:
                raise self.error
        finally:
            self.closed = True


async def test_items_come_in_order_and_at_most_two_wait() -> None:
    source, received = Source(9), list[int]()
    async for item in ahead(source.items()):
        for _ in range(5):
            await asyncio.sleep(0)
        received.append(item)
        assert source.made <= item + 2
        assert source.made >= min(9, item + 1), "the next one is not made meanwhile"
    assert (received, source.closed) == (list(range(1, 10)), True)


async def test_an_error_follows_what_was_made_before_it() -> None:
    received = list[int]()
    with pytest.raises(ValueError, match="broken"):
        async for item in ahead(Source(3, ValueError("broken")).items()):
            received.append(item)
    assert received == [1, 2, 3]


async def test_closing_it_closes_the_source() -> None:
    source = Source(9)
    async with aclosing(ahead(ahead(source.items()))) as items:
        assert await anext(items) == 1
    assert source.closed
    assert source.made < 9
