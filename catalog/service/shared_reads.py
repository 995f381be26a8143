"""Reads of commands that arrive together share a snapshot and one visit of a thread, which costs more than they do."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn, TypeVar

from catalog.database import Connection, DatabaseError

T = TypeVar("T")

MAX_READS = 32
"""On one snapshot, so that nobody waits for all that arrive meanwhile."""


@dataclass(eq=False)
class _Read:
    """`result` returns or raises what came of it, once it was read."""

    work: Callable[[Connection], Any]
    result: Callable[[], Any] | None = None


class SharedReads:
    """For short reads only: they run one after the other."""

    def __init__(self, read: Callable[[Callable[[Connection], Any]], Awaitable[Any]]) -> None:
        """`read`: as `Store.read`."""
        self._read = read
        self._waiting: list[_Read] = []
        self._turn = asyncio.Lock()

    async def read(self, work: Callable[[Connection], T]) -> T:
        """As `Store.read`, on a snapshot that is not older than the call."""
        own = _Read(work)
        self._waiting.append(own)
        try:
            async with self._turn:
                await asyncio.sleep(0)  # whoever is ready now as well joins
                if own.result is None:
                    await self._read_first()
        finally:
            if own in self._waiting:
                self._waiting.remove(own)
        assert own.result is not None  # noqa: S101 - it was the first that waited
        result: T = own.result()
        return result

    async def _read_first(self) -> None:
        """Read those that wait longest, in one transaction. After an error the others try again themselves."""
        group = self._waiting[:MAX_READS]
        results = await self._read(lambda connection: [_attempt(one.work, connection) for one in group])
        for one, result in zip(group, results, strict=True):
            one.result = result
        self._waiting = [one for one in self._waiting if one.result is None]


def _attempt(work: Callable[[Connection], T], connection: Connection) -> Callable[[], T]:
    """An error is that of this read alone. DatabaseError: nothing can be read."""
    try:
        result = work(connection)
    except DatabaseError:
        raise
    except Exception as error:  # noqa: BLE001 - raised where the result is asked for
        return partial(_fail, error)
    return lambda: result


def _fail(error: Exception) -> NoReturn:
    raise error
