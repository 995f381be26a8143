"""Applies commits in slices as small as they can be, as the catalog does with large data sets while others write."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from catalog import store, views
from catalog.database import Connection
from catalog.pending import Waiting
from catalog.store import CommitsAt, Store
from catalog.views import batch, predicted_tags, tags
from contracts.commits import RecordedCommit
from tests.limits import WAIT


@contextmanager
def smallest_slices() -> Iterator[None]:
    """Everything that can take long is pending, and each slice does as little as it can."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch, "DIRECT", 0)
        patch.setattr(batch, "ROWS_AT_ONCE", 7)
        patch.setattr(tags, "TAGS_AT_ONCE", 1)
        patch.setattr(predicted_tags, "TAGS_AT_ONCE", 1)
        patch.setattr(store, "SLICE_SECONDS", 0)
        yield


def apply_in_slices(connection: Connection, commits: Sequence[RecordedCommit], cuts: Sequence[int]) -> None:
    """One commit after the other; after some of them (by number) one slice of what is pending, and the rest at last."""
    for number, recorded in enumerate(commits):
        views.take_in(connection, [recorded])
        if number in cuts:
            work_on(connection, commits)
    while work_on(connection, commits):
        pass


def work_on(connection: Connection, commits: Sequence[RecordedCommit]) -> bool:
    """One slice, as after a new start: nothing is known but the rows."""
    work = views.next_work(connection)
    if work is None:
        return False
    if isinstance(work, Waiting):
        views.take_up(connection, [commits[sequence - 1] for sequence in work.sequences])
    else:
        views.run(connection, work, work.step.plan(connection), lambda: False)
    return True


class HeldSlices:
    """While held, no slice is done."""

    def __init__(self, held: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self._store, self._released, work_on = held, asyncio.Event(), held.work_on

        async def wait(commits_at: CommitsAt) -> bool:
            await self._released.wait()
            return await work_on(commits_at)

        monkeypatch.setattr(held, "work_on", wait)

    def release(self) -> None:
        self._released.set()

    async def until_pending(self) -> None:
        async with asyncio.timeout(WAIT):
            await self._store.wait_until_pending()
