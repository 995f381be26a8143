"""Versions of large data sets are read by a child process, from a snapshot of its own."""

import asyncio
import os
import signal
from functools import partial

import psutil  # type: ignore[import-untyped]
import pytest

from catalog.freezing.source import PageRequest
from catalog.freezing.sources import SourceLimits, open_source
from contracts.commands.datasets import EditTags, FreezeVersion
from contracts.errors import Unavailable
from contracts.queries.datasets import GetVersion
from tests.catalog.harness import CatalogHarness, image_id_of
from tests.catalog.test_watch import query
from tests.limits import WAIT

IN_CHILD = SourceLimits(images=0)
PAGE = PageRequest(base=b"", replaced=frozenset(), read=(0, 1), uncaptioned=frozenset())


def reading_children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "catalog.freezing.reader" in child.cmdline()]


@pytest.mark.slow
async def test_a_child_reads_the_same_and_does_not_see_what_is_changed_meanwhile(harness: CatalogHarness) -> None:
    cats, store = await harness.dataset(pictures=2), harness.executor.store
    await harness.execute(EditTags(image=image_id_of(cats, 0), add=("before",)))
    async with open_source(store, cats) as (source, plan):
        page = await source.make(PAGE)
        assert reading_children() == []
    async with open_source(store, cats, IN_CHILD) as (source, planned):
        await harness.execute(EditTags(image=image_id_of(cats, 0), add=("after",)))
        assert len(reading_children()) == 1
        assert (planned, await source.make(PAGE)) == (plan, page)
    assert reading_children() == []
    async with open_source(store, cats, IN_CHILD) as (source, planned):
        assert planned.as_of > plan.as_of
        assert b"after" in (await source.make(PAGE)).content


async def test_the_wal_is_not_truncated_while_a_child_reads(harness: CatalogHarness) -> None:
    cats, store = await harness.dataset(pictures=2), harness.executor.store
    async with open_source(store, cats, IN_CHILD) as (source, _):
        truncated = asyncio.create_task(store.truncate_wal())
        await source.make(PAGE)
        assert not truncated.done()
    await asyncio.wait_for(truncated, WAIT)


@pytest.mark.slow
async def test_a_child_that_is_killed_freezes_nothing_and_the_next_freeze_succeeds(
    harness: CatalogHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    cats, freezer = await harness.dataset(pictures=2), harness.catalog.freezer
    freezer.open_source = partial(open_source, harness.executor.store, limits=IN_CHILD)
    with pytest.raises(Unavailable, match="reading the data set"):
        async with open_source(harness.executor.store, cats, IN_CHILD) as (source, _):
            (child,) = reading_children()
            os.kill(child.pid, signal.SIGKILL)
            await source.make(PAGE)
    await harness.execute(FreezeVersion(dataset="cats"))
    assert (await query(harness, GetVersion(dataset="cats", version=1))).images == 2
