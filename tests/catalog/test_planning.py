"""Plans of large data sets are made by a child process, from the same rows, and change the same."""

import os
import shutil
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from catalog import views
from catalog.pending import Planned, Slice
from catalog.planning.planner import PlanLimits, Planner
from catalog.store import Store
from contracts.commits import RecordedCommit
from contracts.events.datasets import CommitsUndone, ThresholdsSet
from contracts.ids import RunId
from tests.catalog.log_builder import LOG_ID, LogBuilder, bitmap
from tests.catalog.slicing import smallest_slices
from tests.catalog.test_store import all_rows

IMAGES = 30
IN_CHILD = PlanLimits(images=0)


@pytest.fixture(autouse=True)
def _slices() -> Iterator[None]:
    with smallest_slices():
        yield


@pytest.fixture(scope="module")
def history() -> Sequence[RecordedCommit]:
    """A threshold is moved, and moved back by an undo; then a tagging run is undone, and revived by an undo of that."""
    builder, everything = LogBuilder(), bitmap(*range(IMAGES))
    builder.create_dataset("ds_cats", "cats")
    for ordinal in range(IMAGES):
        builder.add_image(ordinal, "ds_cats", [f"tag_{ordinal % 5}"])
    attempt = builder.start_run("run_1", *range(IMAGES), dataset="ds_cats")
    for ordinal in range(IMAGES):
        builder.predict("run_1", attempt, ordinal, (f"seen_{ordinal % 7}", 0.3), (f"tag_{ordinal % 3}", 0.6))
    moved = builder.append("dataset", "ds_cats", ThresholdsSet(categories={"general": 0.2})).sequence
    builder.append("dataset", "ds_cats", CommitsUndone(commits=(moved,), images=everything))
    undone = builder.append("dataset", "ds_cats", CommitsUndone(runs=(RunId("run_1"),), images=everything)).sequence
    builder.append("dataset", "ds_cats", CommitsUndone(commits=(undone,), images=everything))
    return builder.commits


async def no_commits(_: Sequence[int]) -> list[RecordedCommit]:
    return []


def planning_children() -> list[psutil.Process]:
    """Those that run; one that was killed may not have been waited for yet."""
    running = [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]
    return [child for child in running if "catalog.planning.child" in child.cmdline()]


async def apply_all(store: Store, history: Sequence[RecordedCommit]) -> None:
    for recorded in history:
        await store.take_in([recorded])
        while await store.work_on(no_commits):
            pass


async def test_what_a_child_plans_changes_the_same_rows(tmp_path: Path, history: Sequence[RecordedCommit]) -> None:
    async with Store(tmp_path / "whole.db", LOG_ID, views) as whole, Store(tmp_path / "own.db", LOG_ID, views) as store:
        await whole.apply(history)
        async with Planner(store, IN_CHILD):
            await apply_all(store, history)
            assert len(planning_children()) == 1
        assert planning_children() == []
        assert await all_rows(store) == await all_rows(whole)


async def test_small_data_sets_start_no_child(tmp_path: Path, history: Sequence[RecordedCommit]) -> None:
    async with Store(tmp_path / "read.db", LOG_ID, views) as store, Planner(store):
        await apply_all(store, history)
        assert planning_children() == []


@pytest.mark.slow
async def test_a_plan_is_made_here_where_its_child_is_killed(
    tmp_path: Path, history: Sequence[RecordedCommit], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Store(tmp_path / "whole.db", LOG_ID, views) as whole, Store(tmp_path / "own.db", LOG_ID, views) as store:
        await whole.apply(history)
        async with Planner(store, IN_CHILD) as planner:
            killed = 0

            async def make(step: Planned) -> object:
                nonlocal killed
                for child in planning_children():
                    os.kill(child.pid, signal.SIGKILL)
                    killed += 1
                return await planner.make(step)

            monkeypatch.setattr(store, "make_plan", make)
            await apply_all(store, history)
        assert killed
        assert await all_rows(store) == await all_rows(whole)


async def test_a_child_plans_what_is_left_after_some_slices(tmp_path: Path, history: Sequence[RecordedCommit]) -> None:
    """On a copy of the files, as they were when the process was killed after some of the tags."""
    *before, last = history[:-3]
    async with Store(tmp_path / "read.db", LOG_ID, views) as store:
        await store.apply(before)
        await store.take_in([last])
        for _ in range(3):
            await store.work_on(no_commits)
        assert isinstance(await store.read(views.next_work), Slice)
        for suffix in ("", "-wal"):
            shutil.copy(tmp_path / f"read.db{suffix}", tmp_path / f"killed.db{suffix}")
        while await store.work_on(no_commits):
            pass
        expected = await all_rows(store)
    async with Store(tmp_path / "killed.db", LOG_ID, views) as again:
        assert again.pending
        async with Planner(again, IN_CHILD):
            while await again.work_on(no_commits):
                pass
            assert len(planning_children()) == 1
        assert await all_rows(again) == expected
