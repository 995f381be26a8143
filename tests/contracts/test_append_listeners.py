"""When those who follow the log are woken: after each append, or once for several that were made together."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from contracts.errors import Conflict
from contracts.wire.service.append_listeners import MAX_GROUP, AppendListeners


class Woken:
    """A listener, and the sequences it was called with."""

    def __init__(self, appends: AppendListeners) -> None:
        self.sequences: list[int] = []
        appends.add(self.note)

    async def note(self, sequence: int) -> None:
        self.sequences.append(sequence)


async def test_an_append_by_itself_is_announced_at_once() -> None:
    appends = AppendListeners()
    woken = Woken(appends)
    await appends.announce(3)
    async with appends.about_to_append():
        await appends.announce(4)
        assert woken.sequences == [3, 4]
    assert woken.sequences == [3, 4]


async def test_those_before_the_last_one_are_announced_with_it() -> None:
    appends = AppendListeners()
    woken = Woken(appends)
    async with appends.about_to_append():
        async with appends.about_to_append():
            await appends.announce(7)
            assert not woken.sequences
        await appends.announce(8)
        assert woken.sequences == [8]


@pytest.mark.parametrize("error", [Conflict, asyncio.CancelledError])
async def test_they_are_announced_also_if_the_last_one_appends_nothing(error: type[BaseException]) -> None:
    appends = AppendListeners()
    woken = Woken(appends)
    with pytest.raises(error):
        async with appends.about_to_append():
            async with appends.about_to_append():
                await appends.announce(7)
            raise error
    assert woken.sequences == [7]


async def test_endless_appends_are_announced_in_groups() -> None:
    appends = AppendListeners()
    woken = Woken(appends)
    async with AsyncExitStack() as others:
        await others.enter_async_context(appends.about_to_append())
        for sequence in range(1, 2 * MAX_GROUP + 2):
            async with appends.about_to_append():
                await appends.announce(sequence)
        assert woken.sequences == [MAX_GROUP, 2 * MAX_GROUP]
    assert woken.sequences == [MAX_GROUP, 2 * MAX_GROUP, 2 * MAX_GROUP + 1]


async def test_who_listens_no_more_is_not_called() -> None:
    appends = AppendListeners()
    woken = Woken(appends)
    appends.discard(woken.note)
    await appends.announce(1)
    assert not woken.sequences and not len(appends)
