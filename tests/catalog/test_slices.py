"""Long applications go in slices: a killed catalog goes on with them, and only their data set waits."""

import asyncio
import shutil
import sqlite3
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import closing
from itertools import takewhile
from pathlib import Path

import pytest

from catalog import views
from catalog.archive.archive import Archive
from catalog.image_sets import SetReader
from catalog.projection import catch_up
from catalog.store import CommitsAt, Store
from catalog.views import batch
from catalog.views.batch import BULK
from contracts.commands.datasets import EditTags, SetThresholds
from contracts.commands.jobs import CancelJob, CreateJob, StartJob
from contracts.commits import RecordedCommit
from contracts.errors import Behind, Unavailable
from contracts.events.datasets import CommitsUndone, DatasetErased, ImagesRemoved, TagsEdited, ThresholdsSet
from contracts.ids import JobId, RunId
from contracts.queries.datasets import DatasetView, GetDataset
from tests.catalog.harness import CatalogHarness, event_names, image_id_of
from tests.catalog.log_builder import LOG_ID, LogBuilder, bitmap
from tests.catalog.slicing import HeldSlices, smallest_slices, work_on
from tests.catalog.test_execution import UnansweredLog
from tests.catalog.test_store import all_rows
from tests.limits import WAIT

IMAGES = BULK + 6
EVERY = 25


@pytest.fixture(autouse=True)
def _slices() -> Iterator[None]:
    with smallest_slices():
        yield


def large_history() -> LogBuilder:
    """Two data sets with predictions; then one long change after another of the first, and edits of both."""
    builder, everything = LogBuilder(), bitmap(*range(IMAGES))
    for dataset in ("ds_cats", "ds_dogs"):
        builder.create_dataset(dataset, dataset)
        for ordinal in range(IMAGES):
            builder.add_image(ordinal, dataset, [f"tag_{ordinal % 5}"])
        attempt = builder.start_run(f"run_{dataset}", *range(IMAGES), dataset=dataset)
        for ordinal in range(IMAGES):
            found = [(f"seen_{ordinal % 7}", 0.3), (f"tag_{ordinal % 3}", 0.6)]
            builder.predict(f"run_{dataset}", attempt, ordinal, *found)

    def edit(number: int) -> None:
        builder.edit_tags(number, add=[f"later_{number}"])
        builder.edit_tags(number, add=[f"other_{number}"], dataset="ds_dogs")

    moved = builder.append("dataset", "ds_cats", ThresholdsSet(categories={"general": 0.2})).sequence
    edit(1)
    removed = builder.append("dataset", "ds_cats", ImagesRemoved(images=everything)).sequence
    bulk = builder.append("dataset", "ds_cats", TagsEdited(images=everything, asserted=("all",))).sequence
    for undone in ((moved,), (removed,), (bulk,)):
        builder.append("dataset", "ds_cats", CommitsUndone(commits=undone, images=everything))
        edit(undone[0] % IMAGES)
    again = builder.append("dataset", "ds_cats", ImagesRemoved(images=everything)).sequence
    edit(3)
    builder.append("dataset", "ds_cats", CommitsUndone(commits=(again,), images=everything))
    builder.append("dataset", "ds_cats", CommitsUndone(runs=(RunId("run_ds_cats"),), images=everything))
    edit(2)
    builder.append("dataset", "ds_dogs", DatasetErased())
    return builder


@pytest.fixture(scope="module")
def history() -> Sequence[RecordedCommit]:
    return large_history().commits


def commits_of(history: Sequence[RecordedCommit]) -> CommitsAt:
    async def commits_at(sequences: Sequence[int]) -> list[RecordedCommit]:
        return [history[sequence - 1] for sequence in sequences]

    return commits_at


@pytest.fixture
async def archive(tmp_path: Path, history: Sequence[RecordedCommit]) -> AsyncIterator[Archive]:
    async with Archive(tmp_path / "archive") as opened:
        await opened.append(history)
        yield opened


@pytest.mark.slow
async def test_a_catalog_that_was_killed_between_two_slices_has_the_same_rows_after_its_start(
    tmp_path: Path, archive: Archive, history: Sequence[RecordedCommit]
) -> None:
    """Killed after every so many slices, each time on a copy of the files as they were then."""
    async with Store(tmp_path / "whole.db", LOG_ID, views) as whole:
        await whole.apply(history)
        expected = await all_rows(whole)
    file, slices = tmp_path / "live.db", 0
    async with Store(file, LOG_ID, views) as live:
        for recorded in [*history, None]:
            if recorded is not None:
                await live.take_in([recorded])
            while live.pending and (recorded is None or slices % 2):
                slices += await live.work_on(commits_of(history))
                if live.pending and slices % EVERY == 0:
                    await assert_goes_on(file, tmp_path / f"killed_{slices}.db", archive, expected)
            slices += await live.work_on(commits_of(history))
        assert await all_rows(live) == expected
    assert slices > 5 * EVERY


async def assert_goes_on(file: Path, copy: Path, archive: Archive, expected: object) -> None:
    for suffix in ("", "-wal"):
        shutil.copy(f"{file}{suffix}", f"{copy}{suffix}")
    async with Store(copy, LOG_ID, views) as again:
        assert again.pending
        await catch_up(again, archive, SetReader(archive, ()).read)
        assert not again.pending
        assert await all_rows(again) == expected


@pytest.mark.slow
async def test_while_one_data_set_is_worked_in_others_are_changed_and_read_and_its_own_reads_wait(
    harness: CatalogHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    cats, dogs = await harness.dataset("cats", pictures=3), await harness.dataset("dogs", pictures=1)
    store, held = harness.executor.store, HeldSlices(harness.executor.store, monkeypatch)
    moved = asyncio.create_task(
        harness.execute(SetThresholds(dataset=cats, categories={"general": 0.1, "character": 0.1}))
    )
    await held.until_pending()
    sequence = store.pending["dataset", cats]
    edited = asyncio.create_task(harness.execute(EditTags(image=image_id_of(cats, 0), add=("cat",))))

    others = [
        await harness.execute(EditTags(image=image_id_of(dogs, 0), add=("dog",))),
        job := await harness.execute(CreateJob(dataset=dogs, preset="tiny-random-demo")),
        await harness.execute(StartJob(job=JobId(job.id))),
        await harness.execute(CancelJob(job=JobId(job.id))),
    ]
    assert [result.shown for result in others] == [True] * 4
    assert store.applied > sequence and not store.is_shown(("dataset", cats), sequence)

    async def read(dataset: str) -> DatasetView:
        view = await harness.catalog.queries[GetDataset](GetDataset(dataset=dataset))
        assert isinstance(view, DatasetView)
        return view

    assert (await read(dogs)).name == "dogs"
    with pytest.raises(Behind):
        await read(cats)
    reading = asyncio.create_task(read(cats))
    assert not any(task.done() for task in (moved, edited, reading))
    held.release()
    assert (await reading).thresholds["general"] == 0.1
    assert (await moved).shown
    assert (await edited).shown
    assert await harness.tags(image_id_of(cats, 0)) == {"cat"}


async def test_a_long_change_that_was_appended_without_an_answer_is_shown_before_the_next_is_decided(
    harness: CatalogHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody remembers it as written here; only the rows say that it is being worked in."""
    cats, store = await harness.dataset("cats", pictures=3), harness.executor.store
    held, thresholds = HeldSlices(store, monkeypatch), SetThresholds(dataset=cats, categories={"general": 0.1})
    harness.executor.log = UnansweredLog(harness)
    with pytest.raises(Unavailable):
        await harness.execute(thresholds, "moved")
    await held.until_pending()
    repeated = asyncio.create_task(harness.execute(thresholds, "moved"))
    edited = asyncio.create_task(harness.execute(EditTags(image=image_id_of(cats, 0), add=("cat",))))
    with pytest.raises(Behind):
        await store.wait_until_settled(store.applied, 0.01)
    assert not repeated.done() and not edited.done()
    held.release()
    await store.wait_until_settled(store.applied, WAIT)
    assert (await repeated).shown and (await edited).changed
    assert event_names(await harness.events("dataset", cats))[-2:] == ["ThresholdsSet", "TagsEdited"]


def test_a_data_set_is_erased_in_few_slices_although_one_image_has_more_edits_than_rows_go_into_one() -> None:
    builder = LogBuilder()
    builder.create_dataset()
    for ordinal in range(2):
        builder.add_image(ordinal)
    for number in range(3 * batch.ROWS_AT_ONCE):
        builder.edit_tags(0, add=[f"tag_{number}"])
    builder.append("dataset", "ds_cats", DatasetErased())
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.row_factory = sqlite3.Row
        connection.executescript(views.TABLES)
        views.take_in(connection, builder.commits)
        slices = sum(1 for _ in takewhile(bool, (work_on(connection, builder.commits) for _ in range(100))))
        assert 0 < slices < 100
        assert connection.execute("SELECT COUNT(*) FROM decision").fetchone()[0] == 0
