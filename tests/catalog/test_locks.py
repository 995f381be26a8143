"""The locks of command execution: who holds them together, in which order they are served, when they are dropped."""

import asyncio
import gc

import pytest

from catalog.service.locks import Locks, Scope
from contracts.commits import StreamRevision
from tests.limits import WAIT

CATS = ("dataset", "ds_cats")


class Holder:
    """A command that holds its locks until it is released."""

    def __init__(self, locks: Locks, scope: Scope, order: list[str], name: str) -> None:
        self._released = asyncio.Event()
        self.task = asyncio.create_task(self._hold(locks, scope, order, name))

    async def _hold(self, locks: Locks, scope: Scope, order: list[str], name: str) -> None:
        async with locks.hold(scope):
            order.append(name)
            await self._released.wait()

    async def release(self) -> None:
        self._released.set()
        await self.task
        await settle()


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_parts_share_a_lock_and_are_served_in_order_with_those_who_hold_it_alone() -> None:
    locks, order = Locks(), list[str]()
    scopes = {
        "image 1": Scope(("cats",), "1"),
        "image 2": Scope(("cats",), "2"),
        "image 1 again": Scope(("cats",), "1"),
        "all": Scope(("names", "cats")),
        "image 3": Scope(("cats",), "3"),
        "dogs": Scope(("dogs",)),
    }
    holders = {name: Holder(locks, scope, order, name) for name, scope in scopes.items()}
    await settle()
    assert order == ["image 1", "image 2", "dogs"]
    await holders["image 1"].release()
    assert order[3:] == ["image 1 again"]
    await holders["image 1 again"].release()
    await holders["image 2"].release()
    assert order[4:] == ["all"]
    await holders["all"].release()
    assert order[5:] == ["image 3"]
    await asyncio.gather(holders["image 3"].release(), holders["dogs"].release())


async def test_a_lock_that_was_waited_for_in_vain_is_free() -> None:
    locks, order = Locks(), list[str]()
    sharing = Holder(locks, Scope(("cats",), "1"), order, "sharing")
    await settle()
    for scope in (Scope(("cats",)), Scope(("cats",), "1")):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0), locks.hold(scope):
                pass
    await sharing.release()
    async with asyncio.timeout(WAIT), locks.hold(Scope(("cats",))):
        pass


async def test_a_lock_keeps_the_newest_revision_and_is_dropped_with_its_last_user() -> None:
    locks = Locks()
    async with locks.hold(Scope(("cats",), "1")) as first, locks.hold(Scope(("cats",), "2")) as second:
        assert first is second
        first.set_revisions({CATS: StreamRevision(7, 3, "b")})
        second.set_revisions({CATS: StreamRevision(5, 2, "a")})
        assert second.revision(CATS) == StreamRevision(7, 3, "b")
    del first, second
    gc.collect()
    async with locks.hold(Scope(("cats",), "3")) as lock:
        assert lock.revision(CATS) == StreamRevision()
