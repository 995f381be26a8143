"""Reads that share a snapshot: which ones, and that none of them affects another."""

import asyncio
from collections.abc import Callable
from sqlite3 import DatabaseError
from typing import Any

import pytest

from catalog.service.shared_reads import MAX_READS, SharedReads
from contracts.errors import NotFound
from tests.limits import WAIT


class Reader:
    """Reads one group after the other, once each is let through; the connection is the number of the group."""

    def __init__(self) -> None:
        self.groups = 0
        self.broken = False
        self._let_through = asyncio.Semaphore(0)

    async def read(self, work: Callable[[Any], Any]) -> Any:
        self.groups += 1
        group = self.groups
        async with asyncio.timeout(WAIT):
            await self._let_through.acquire()
        if self.broken:
            raise DatabaseError("the file is damaged")
        return work(group)

    def let_through(self, groups: int = 1) -> None:
        for _ in range(groups):
            self._let_through.release()


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_what_arrives_while_a_group_is_read_is_the_next_group() -> None:
    reader = Reader()
    reads = SharedReads(reader.read)
    tasks = [asyncio.create_task(reads.read(lambda group: group))]
    await settle()
    tasks += [asyncio.create_task(reads.read(lambda group: group)) for _ in range(MAX_READS + 1)]
    await settle()
    reader.let_through(3)
    assert await asyncio.gather(*tasks) == [1, *[2] * MAX_READS, 3]


async def test_an_error_is_that_of_one_read() -> None:
    def find(_: object) -> int:
        raise NotFound("there is no such image")

    reader = Reader()
    reads = SharedReads(reader.read)
    tasks = [asyncio.create_task(reads.read(work)) for work in (lambda group: group, find, lambda group: group)]
    await settle()
    reader.let_through()
    first, second, third = await asyncio.gather(*tasks, return_exceptions=True)
    assert (first, third) == (1, 1)
    assert isinstance(second, NotFound)


async def test_a_reader_that_gives_up_leaves_the_others_to_the_next() -> None:
    reader = Reader()
    reads = SharedReads(reader.read)
    gives_up, waits, removed = (asyncio.create_task(reads.read(lambda group: group)) for _ in range(3))
    await settle()
    removed.cancel()
    gives_up.cancel()
    await settle()
    reader.let_through()
    reader.let_through()
    assert await waits == 2
    assert gives_up.cancelled() and removed.cancelled()


async def test_an_error_of_the_database_is_one_of_all_and_the_next_read_is_a_new_one() -> None:
    reader = Reader()
    reader.broken = True
    reads = SharedReads(reader.read)
    tasks = [asyncio.create_task(reads.read(lambda group: group)) for _ in range(2)]
    await settle()
    reader.let_through(2)
    assert [type(error) for error in await asyncio.gather(*tasks, return_exceptions=True)] == [DatabaseError] * 2
    reader.broken = False
    reader.let_through()
    assert await reads.read(lambda group: group) == 3


async def test_a_damaged_file_found_by_a_read_is_no_result_of_it() -> None:
    def find_damage(_: object) -> int:
        raise DatabaseError("malformed")

    reader = Reader()
    reader.let_through()
    with pytest.raises(DatabaseError):
        await SharedReads(reader.read).read(find_damage)
