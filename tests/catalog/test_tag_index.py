"""The sets of images with each tag in memory: as each snapshot shows them, and within a limit."""

from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyroaring import BitMap

from catalog import views
from catalog.database import Connection, open_reader
from catalog.store import Store
from catalog.tag_index import MAX_MARKS, TagIndex, TagLimits
from catalog.views import sets, tag_sets
from contracts.events.base import Event
from contracts.events.datasets import CommitsUndone, ImageErased, ImagesRemoved, RulesSet, TagsEdited, ThresholdsSet
from tests.catalog.log_builder import LOG_ID, LogBuilder, bitmap, full_history, image_id
from tests.catalog.slicing import smallest_slices
from tests.limits import examples

IMAGES = 4


class Counted:
    """A read model, its index, and the tags that are read from rows."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, limits: TagLimits) -> None:
        self.builder = LogBuilder()
        self.builder.create_dataset()
        self.path = folder / "read.db"
        self.store = Store(self.path, LOG_ID, views)
        self.index = TagIndex(self.store, limits)
        self.read: list[Any] = []
        sets_by_tag = tag_sets.sets_by_tag

        def noted(connection: Connection, dataset_id: str, some: list[str] | None = None) -> dict[str, BitMap]:
            self.read.append(some)
            return sets_by_tag(connection, dataset_id, some)

        monkeypatch.setattr(tag_sets, "sets_by_tag", noted)

    async def apply(self) -> None:
        await self.store.apply([one for one in self.builder.commits if one.sequence > self.store.applied])

    async def append(self, event: Event) -> None:
        self.builder.append("dataset", "ds_cats", event)
        await self.apply()

    async def counts(self, prefix: str = "") -> dict[str, int]:
        return dict(await self.store.read(lambda connection: self.count(connection, prefix)))

    def count(self, connection: Connection, prefix: str = "", dataset_id: str = "ds_cats") -> Counter[str]:
        return self.index.count_among(connection, dataset_id, prefix, sets.load(connection, dataset_id, "live"))


@pytest.fixture
async def counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Counted]:
    found = Counted(tmp_path, monkeypatch, TagLimits())
    for ordinal in range(IMAGES):
        found.builder.add_image(ordinal)
    await found.append(TagsEdited(images=bitmap(*range(IMAGES)), asserted=("cat", "dog")))
    yield found
    await found.store.close()


async def test_only_the_tags_that_an_edit_names_are_read_again(counted: Counted) -> None:
    assert await counted.counts() == {"cat": 4, "dog": 4}
    assert await counted.counts("c") == {"cat": 4}
    await counted.append(TagsEdited(images=bitmap(1, 2), asserted=("cow",), withdrawn=("dog",)))
    assert await counted.counts() == {"cat": 4, "dog": 2, "cow": 2}
    assert [some and sorted(some) for some in counted.read] == [None, ["cow", "dog"]]


@pytest.mark.parametrize(
    "event",
    [
        ImagesRemoved(images=bitmap(0)),
        ImageErased(ordinal=0, image_id=image_id("ds_cats", 0)),
        CommitsUndone(commits=(6,), images=bitmap(*range(IMAGES))),
        ThresholdsSet(categories={"general": 0.9}),
        RulesSet(deny=("cat",)),
    ],
)
async def test_all_tags_are_read_again_after_other_events(counted: Counted, event: Event) -> None:
    await counted.counts()
    await counted.append(event)
    counts = await counted.counts()
    assert counted.read == [None, None]
    assert counts == await counted.store.read(_counts_of_rows)


def _counts_of_rows(connection: Connection, dataset_id: str = "ds_cats") -> dict[str, int]:
    live = sets.load(connection, dataset_id, "live")
    found = {tag: len(some & live) for tag, some in tag_sets.sets_by_tag(connection, dataset_id).items()}
    return {tag: images for tag, images in found.items() if images}


async def test_a_run_s_predictions_are_counted(counted: Counted) -> None:
    await counted.counts()
    attempt = counted.builder.start_run("run_1", *range(IMAGES))
    counted.builder.predict("run_1", attempt, 3, ("cow", 0.9))
    await counted.apply()
    assert await counted.counts() == {"cat": 4, "dog": 4, "cow": 1}


async def test_a_snapshot_from_before_a_change_counts_what_it_shows(counted: Counted) -> None:
    old = open_reader(counted.path)
    old.execute("BEGIN")
    assert counted.count(old) == {"cat": 4, "dog": 4}
    await counted.append(TagsEdited(images=bitmap(1), asserted=("cow",)))
    assert await counted.counts() == {"cat": 4, "dog": 4, "cow": 1}
    assert counted.count(old) == {"cat": 4, "dog": 4}
    old.close()
    assert await counted.counts() == {"cat": 4, "dog": 4, "cow": 1}


async def test_what_changed_between_a_snapshot_and_the_first_count_on_it_is_not_missed(counted: Counted) -> None:
    old = open_reader(counted.path)
    old.execute("BEGIN")
    old.execute("SELECT * FROM checkpoint").fetchone()
    await counted.append(TagsEdited(images=bitmap(1), asserted=("cow",)))
    assert counted.count(old) == {"cat": 4, "dog": 4}
    old.close()
    assert await counted.counts() == {"cat": 4, "dog": 4, "cow": 1}


async def test_while_a_long_application_goes_on_the_rows_are_counted(counted: Counted) -> None:
    attempt = counted.builder.start_run("run_1", *range(IMAGES))
    for tag in range(5):
        counted.builder.predict("run_1", attempt, tag % IMAGES, *((f"tag_{number}", 0.5) for number in range(tag + 1)))
    await counted.apply()
    before = await counted.counts()
    counted.builder.append("dataset", "ds_cats", ThresholdsSet(categories={"general": 0.9}))
    slices = 0
    with smallest_slices():
        await counted.store.take_in(counted.builder.commits[-1:])
        while counted.store.pending:
            assert await counted.counts() == await counted.store.read(_counts_of_rows)
            slices += await counted.store.work_on(_nothing)
    assert slices > 1
    assert await counted.counts() == {"cat": 4, "dog": 4} != before


async def _nothing(_: object) -> list[Any]:
    return []


async def test_many_changed_tags_are_read_together(counted: Counted) -> None:
    await counted.counts()
    for number in range(2):
        some = tuple(f"tag_{number}_{tag}" for tag in range(MAX_MARKS * 3 // 4))
        await counted.append(TagsEdited(images=bitmap(1), asserted=some))
    assert len(await counted.counts()) == 2 + 2 * (MAX_MARKS * 3 // 4)
    assert counted.read == [None, None]


async def test_what_is_beyond_the_limit_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted(tmp_path, monkeypatch, TagLimits(memory=1))
    counted.builder.add_image(0)
    await counted.append(TagsEdited(images=bitmap(0), asserted=("cat",)))
    assert [await counted.counts() for _ in range(2)] == [{"cat": 1}] * 2
    assert counted.read == [None, None] and counted.index.bytes == 0
    await counted.store.close()


@pytest.mark.slow
@given(parts=st.lists(st.integers(1, 6), min_size=1, max_size=12))
@settings(max_examples=examples(15), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_a_log_with_every_event_is_counted_as_its_rows_say(
    tmp_path_factory: pytest.TempPathFactory, parts: list[int]
) -> None:
    """Counted after parts of the log of any size."""
    store = Store(tmp_path_factory.mktemp("log") / "read.db", LOG_ID, views)
    index = TagIndex(store)
    commits = full_history().commits

    def check(connection: Connection) -> None:
        for (dataset_id,) in connection.execute("SELECT id FROM dataset").fetchall():
            live = sets.load(connection, dataset_id, "live")
            assert index.count_among(connection, dataset_id, "", live) == _counts_of_rows(connection, dataset_id)

    at = 0
    while at < len(commits):
        size = parts[at % len(parts)]
        await store.apply(commits[at : at + size])
        await store.read(check)
        at += size
    await store.close()
