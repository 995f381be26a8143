"""Queries over the archive: events by type, aggregate, actor and time."""

from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from catalog import entries
from catalog.archive.archive import Archive
from catalog.database import Connection
from catalog.entries import MAX_SCANNED_COMMITS
from contracts.aggregates import AnyEvent
from contracts.commits import RecordedCommit
from contracts.events.datasets import DatasetRemoved, DatasetRenamed
from contracts.events.presets import PresetRetired
from contracts.queries.base import Page
from contracts.queries.log import EventView, ListEvents
from tests.catalog.log_builder import LogBuilder, full_history


@pytest.fixture
async def archive(tmp_path: Path) -> AsyncIterator[Archive]:
    archive = Archive(tmp_path / "catalog")
    yield archive
    await archive.close()


async def events(archive: Archive, **filters: Any) -> Page[EventView]:
    return await archive.read(lambda connection: entries.list_events(connection, ListEvents(**filters)))


async def test_every_event_is_listed_once_in_order_and_as_stored(archive: Archive) -> None:
    history = full_history().commits
    await archive.append(history)

    found: list[EventView] = []
    after = 0
    while True:
        page = await events(archive, after=after, limit=7)
        found.extend(page.items)
        assert page.total == len(history)
        if page.next is None:
            break
        after = int(page.next)

    expected = [(recorded.sequence, event) for recorded in history for event in recorded.commit.events]
    assert [(view.sequence, msgspec.json.decode(view.data, type=AnyEvent)) for view in found] == expected
    assert [view.recorded_at for view in found[:3]] == [recorded.recorded_at for recorded in history[:3]]


async def test_the_versions_of_one_aggregate_have_no_gaps(archive: Archive) -> None:
    await archive.append(full_history().commits)

    page = await events(archive, after=0, limit=500, aggregate_kind="job", aggregate_id="job_1")

    assert [view.version for view in page.items] == list(range(1, len(page.items) + 1))
    assert page.next is None


async def test_events_are_filtered_by_type(archive: Archive) -> None:
    await archive.append(full_history().commits)

    page = await events(archive, after=0, limit=500, type="dataset.thresholds_set")

    assert [view.type for view in page.items] == ["dataset.thresholds_set"]


async def test_a_page_never_splits_a_commit(archive: Archive) -> None:
    builder = LogBuilder()
    builder.add_image(0, tags=["cat"])
    builder.add_image(1, tags=["cat"])
    await archive.append(builder.commits)

    page = await events(archive, after=1, limit=1)

    assert [(view.sequence, view.index) for view in page.items] == [(2, 0), (2, 1)]
    assert page.next == "2"


async def test_a_page_of_events_fits_in_one_message(archive: Archive) -> None:
    builder = LogBuilder()
    for ordinal in range(8):
        predictions = [(f"a_rather_long_name_of_a_tag_{number}", 0.5) for number in range(2500)]
        builder.predict("run_1", 1, ordinal, *predictions)
    await archive.append(builder.commits)

    page = await events(archive, after=0, limit=500)

    assert len(msgspec.json.encode(page)) < 1_000_000
    assert page.next is not None
    assert int(page.next) == page.items[-1].sequence


async def test_events_are_filtered_by_actor_or_actor_prefix(archive: Archive) -> None:
    history = full_history().commits
    await archive.append(history)
    by_tagger = [recorded.sequence for recorded in history if recorded.commit.actor == "svc:tagger/t1"]

    for pattern in ("svc:tagger/t1", "svc:tagger/*", "svc:*"):
        assert [view.sequence for view in (await events(archive, actor=pattern)).items] == by_tagger
    assert (await events(archive, actor="svc:tagger")).items == ()


async def test_events_are_filtered_by_type_prefix(archive: Archive) -> None:
    history = full_history().commits
    await archive.append(history)

    found = (await events(archive, type="job.attempt_*")).items

    assert {view.type for view in found} == {"job.attempt_started", "job.attempt_failed"}
    assert (await events(archive, type="job.*")).items == (await events(archive, aggregate_kind="job")).items


async def test_events_are_filtered_by_the_time_they_were_recorded(archive: Archive) -> None:
    history = full_history().commits
    await archive.append(history)
    third, fifth = history[2].recorded_at, history[4].recorded_at

    assert {view.sequence for view in (await events(archive, since=third, until=fifth)).items} == {3, 4}
    assert {view.sequence for view in (await events(archive, until=third)).items} == {1, 2}
    assert (await events(archive, since=history[-1].recorded_at + timedelta(seconds=1))).items == ()
    assert (await events(archive, until=history[0].recorded_at)).next is None
    for recorded in history:
        after = recorded.recorded_at + timedelta(milliseconds=1)
        assert await archive.read(partial(entries.sequence_at, time=after)) == recorded.sequence
    before = history[0].recorded_at - timedelta(seconds=1)
    assert await archive.read(lambda connection: entries.sequence_at(connection, before)) == 0


async def test_an_aggregate_is_found_by_its_id_alone_and_an_unknown_one_gives_no_events(archive: Archive) -> None:
    await archive.append(full_history().commits)

    assert (await events(archive, aggregate_id="run_2")).items == (
        await events(archive, aggregate_kind="tagging", aggregate_id="run_2")
    ).items
    assert (await events(archive, aggregate_id="run_2")).items
    assert (await events(archive, aggregate_id="nobody")) == (
        await events(archive, aggregate_kind="job", aggregate_id="run_2")
    )


@pytest.mark.slow
async def test_a_query_scans_a_limited_number_of_commits_and_says_where_to_continue(archive: Archive) -> None:
    builder = LogBuilder()
    builder.create_dataset()
    for number in range(MAX_SCANNED_COMMITS + 5):
        builder.append("dataset", "ds_cats", DatasetRenamed(name=f"name {number}"))
    builder.append("preset", "pre_1", PresetRetired())
    builder.append("dataset", "ds_cats", DatasetRemoved())
    await archive.append(builder.commits)

    rare = await events(archive, type="preset.retired")
    assert (rare.items, rare.next) == ((), str(MAX_SCANNED_COMMITS))
    rest = await events(archive, type="preset.retired", after=int(rare.next or 0))
    assert [view.sequence for view in rest.items] == [builder.sequence - 1]
    assert rest.next is None
    # Commits of other aggregates are not scanned.
    gone = await events(archive, aggregate_id="ds_cats", type="dataset.removed")
    assert (gone.items, gone.next) == ((), str(MAX_SCANNED_COMMITS + 1))
    last = await events(archive, aggregate_id="ds_cats", type="dataset.removed", after=MAX_SCANNED_COMMITS + 1)
    assert [view.sequence for view in last.items] == [builder.sequence]
    assert (await events(archive, aggregate_id="pre_1", type="preset.retired")).next is None


async def test_the_commits_of_several_aggregates_come_in_log_order(archive: Archive) -> None:
    history = full_history().commits
    await archive.append(history)
    aggregates = [("tagging", "run_1"), ("dataset", "ds_cats"), ("tagging", "nobody")]
    expected = [
        one
        for one in history
        if (one.commit.aggregate_kind, one.commit.aggregate_id) in aggregates and 5 < one.sequence <= 30
    ]

    def read(connection: Connection, limit: int) -> list[RecordedCommit]:
        found = entries.sequences_of(connection, aggregates, after=5, last=30, limit=limit)
        return list(entries.commits_at(connection, found))

    assert await archive.read(lambda connection: read(connection, 1000)) == expected
    assert await archive.read(lambda connection: read(connection, 4)) == expected[:4]
