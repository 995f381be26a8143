"""The archive asked: which facts, of which things, by whom, and when."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from catalog import entries
from catalog.archive import Archive
from catalog.entries import SCAN
from contracts import events as e
from contracts.queries import EventView, ListEvents, Page
from tests.catalog.histories import Scribe, everything


@pytest.fixture
async def archive(tmp_path: Path) -> AsyncIterator[Archive]:
    archive = Archive(tmp_path / "catalog")
    yield archive
    await archive.close()


async def events(archive: Archive, **asked: Any) -> Page[EventView]:
    return await archive.read(lambda connection: entries.page(connection, ListEvents(**asked)))


async def test_every_fact_is_told_once_in_order_and_as_stored(archive: Archive) -> None:
    history = everything().commits
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

    told = [(stored.sequence, fact) for stored in history for fact in stored.commit.facts]
    assert [(view.sequence, msgspec.json.decode(view.data, type=e.AnyFact)) for view in found] == told
    assert [view.recorded for view in found[:3]] == [stored.recorded for stored in history[:3]]


async def test_facts_of_one_thing_count_its_versions_without_a_hole(archive: Archive) -> None:
    await archive.append(everything().commits)

    page = await events(archive, after=0, limit=500, kind="job", thing="job_1")

    assert [view.version for view in page.items] == list(range(1, len(page.items) + 1))
    assert page.next is None


async def test_facts_of_one_type_are_found_wherever_they_stand(archive: Archive) -> None:
    await archive.append(everything().commits)

    page = await events(archive, after=0, limit=500, type="dataset.thresholds_set")

    assert [view.type for view in page.items] == ["dataset.thresholds_set"]


async def test_a_commit_is_never_parted_by_a_page(archive: Archive) -> None:
    scribe = Scribe()
    scribe.image(0, tags=["cat"])
    scribe.image(1, tags=["cat"])
    await archive.append(scribe.commits)

    page = await events(archive, after=1, limit=1)

    assert [(view.sequence, view.index) for view in page.items] == [(2, 0), (2, 1)]
    assert page.next == "2"


async def test_a_page_of_events_stays_below_what_a_message_holds(archive: Archive) -> None:
    scribe = Scribe()
    for ordinal in range(8):
        seen = [(f"a_rather_long_name_of_a_tag_{number}", 0.5) for number in range(2500)]
        scribe.see("run_1", 1, ordinal, *seen)
    await archive.append(scribe.commits)

    page = await events(archive, after=0, limit=500)

    assert len(msgspec.json.encode(page)) < 1_000_000
    assert page.next is not None
    assert int(page.next) == page.items[-1].sequence


async def test_what_somebody_did_is_found_whole_or_by_how_the_name_begins(archive: Archive) -> None:
    history = everything().commits
    await archive.append(history)
    by_tagger = [stored.sequence for stored in history if stored.commit.actor == "svc:tagger/t1"]

    for pattern in ("svc:tagger/t1", "svc:tagger/*", "svc:*"):
        assert [view.sequence for view in (await events(archive, actor=pattern)).items] == by_tagger
    assert (await events(archive, actor="svc:tagger")).items == ()


async def test_all_facts_of_a_family_are_found_by_how_their_type_begins(archive: Archive) -> None:
    history = everything().commits
    await archive.append(history)

    found = (await events(archive, type="job.attempt_*")).items

    assert {view.type for view in found} == {"job.attempt_started", "job.attempt_failed"}
    assert (await events(archive, type="job.*")).items == (await events(archive, kind="job")).items


async def test_a_time_of_the_log_is_a_place_in_it(archive: Archive) -> None:
    history = everything().commits
    await archive.append(history)
    third, fifth = history[2].recorded, history[4].recorded

    assert {view.sequence for view in (await events(archive, since=third, until=fifth)).items} == {3, 4}
    assert {view.sequence for view in (await events(archive, until=third)).items} == {1, 2}
    assert (await events(archive, since=history[-1].recorded + timedelta(seconds=1))).items == ()
    assert (await events(archive, until=history[0].recorded)).next is None
    for stored in history:
        after = stored.recorded + timedelta(milliseconds=1)
        assert await archive.read(lambda at, moment=after: entries.sequence_at(at, moment)) == stored.sequence
    before = history[0].recorded - timedelta(seconds=1)
    assert await archive.read(lambda connection: entries.sequence_at(connection, before)) == 0


async def test_a_thing_is_found_by_its_id_alone_and_one_that_is_not_there_is_nothing(archive: Archive) -> None:
    await archive.append(everything().commits)

    assert (await events(archive, thing="run_2")).items == (await events(archive, kind="tagging", thing="run_2")).items
    assert (await events(archive, thing="run_2")).items
    assert (await events(archive, thing="nobody")) == (await events(archive, kind="job", thing="run_2"))


async def test_one_question_looks_through_so_many_commits_and_says_where_to_go_on(archive: Archive) -> None:
    scribe = Scribe()
    scribe.dataset()
    for number in range(SCAN + 5):
        scribe.write("dataset", "ds_cats", e.DatasetRenamed(name=f"name {number}"))
    scribe.write("preset", "pre_1", e.PresetRetired())
    scribe.write("dataset", "ds_cats", e.DatasetRemoved())
    await archive.append(scribe.commits)

    rare = await events(archive, type="preset.retired")
    assert (rare.items, rare.next) == ((), str(SCAN))
    rest = await events(archive, type="preset.retired", after=int(rare.next or 0))
    assert [view.sequence for view in rest.items] == [scribe.sequence - 1]
    assert rest.next is None
    # Another thing's commits are never looked at.
    gone = await events(archive, thing="ds_cats", type="dataset.removed")
    assert (gone.items, gone.next) == ((), str(SCAN + 1))
    last = await events(archive, thing="ds_cats", type="dataset.removed", after=SCAN + 1)
    assert [view.sequence for view in last.items] == [scribe.sequence]
    assert (await events(archive, thing="pre_1", type="preset.retired")).next is None


async def test_the_commits_of_some_things_come_in_the_order_of_the_log(archive: Archive) -> None:
    history = everything().commits
    await archive.append(history)
    things = [("tagging", "run_1"), ("dataset", "ds_cats"), ("tagging", "nobody")]
    mine = [one for one in history if (one.commit.kind, one.commit.thing) in things and 5 < one.sequence <= 30]

    def look(connection: entries.Connection, limit: int) -> list[e.Stored]:
        found = entries.sequences_of(connection, things, after=5, last=30, limit=limit)  # type: ignore[arg-type]
        return list(entries.commits_at(connection, found))

    assert await archive.read(lambda connection: look(connection, 1000)) == mine
    assert await archive.read(lambda connection: look(connection, 4)) == mine[:4]
