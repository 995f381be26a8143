"""What the rows say after a history: states, tags that hold and held, pages, counts, the line of those that wait."""

import sqlite3
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog import views
from catalog.database import Connection
from catalog.store import Store
from catalog.views import commands, datasets, images, jobs, presets, sets, tagging, tags, versions, work
from contracts import events as e
from contracts.commands import Receipt
from contracts.errors import LogDamaged
from contracts.events import Stored
from contracts.queries import TagView
from tests.catalog.histories import LOG_ID, Scribe, bitmap, digest, everything, image_id, job_created
from tests.catalog.test_store import dump


@pytest.fixture
def scribe() -> Scribe:
    scribe = Scribe()
    scribe.dataset()
    return scribe


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = Store(tmp_path / "read.db", LOG_ID, views)
    yield store
    await store.close()


async def held(store: Store, scribe: Scribe, ordinal: int, dataset: str = "ds_cats") -> list[str]:
    await store.apply(scribe.commits)
    found = await store.read(lambda connection: images.effective_tags(connection, dataset, [ordinal]))
    return [tag.tag for tag in found[ordinal]]


async def etag(store: Store, scribe: Scribe, ordinal: int) -> int:
    await store.apply(scribe.commits)
    row = await store.read(lambda connection: images.find(connection, image_id("ds_cats", ordinal)))
    assert row is not None
    return row.etag


# --- data sets


async def test_a_data_set_is_found_by_id_and_by_name_whatever_its_case(store: Store, scribe: Scribe) -> None:
    await store.apply(scribe.commits)

    def look(connection: Connection) -> list[str | None]:
        rows = [datasets.find(connection, ref) for ref in ("ds_cats", "cats", "CATS", "dogs")]
        return [None if row is None else row.id for row in rows]

    assert await store.read(look) == ["ds_cats", "ds_cats", "ds_cats", None]


async def test_the_name_of_a_removed_data_set_is_free_again(store: Store, scribe: Scribe) -> None:
    scribe.write("dataset", "ds_cats", e.DatasetRemoved())
    scribe.dataset("ds_new", "Cats")
    await store.apply(scribe.commits)

    old = await store.read(lambda connection: datasets.find(connection, "ds_cats"))
    new = await store.read(lambda connection: datasets.find(connection, "cats"))

    assert old is not None
    assert new is not None
    assert (old.removed, new.id) == (True, "ds_new")


async def test_an_ordinal_is_never_used_again(store: Store, scribe: Scribe) -> None:
    scribe.image(0)
    scribe.image(1)
    scribe.write("dataset", "ds_cats", e.ImagesRemoved(images=bitmap(0, 1)))
    await store.apply(scribe.commits)

    row = await store.read(lambda connection: datasets.find(connection, "ds_cats"))

    assert row is not None
    assert row.next_ordinal == 2
    assert await store.read(lambda connection: images.ordinals(connection, "ds_cats")) == []


async def test_a_twin_is_only_found_among_images_that_are_still_there(store: Store, scribe: Scribe) -> None:
    pixels = scribe.image(0).commit.facts[0].pixels  # type: ignore[union-attr]
    await store.apply(scribe.commits)
    found = await store.read(lambda connection: images.twin(connection, "ds_cats", pixels))
    assert found is not None
    assert found.ordinal == 0

    await store.apply([scribe.write("dataset", "ds_cats", e.ImagesRemoved(images=bitmap(0)))])

    assert await store.read(lambda connection: images.twin(connection, "ds_cats", pixels)) is None


# --- tags


async def test_what_people_decide_stands_before_what_models_see(store: Store, scribe: Scribe) -> None:
    scribe.image(0, tags=["zebra"])
    attempt = scribe.run("run_1", 0)
    scribe.see("run_1", attempt, 0, ("sky", 0.6), ("grass", 0.9), ("mia", 0.9, "character"), ("bush", 0.2))
    scribe.edit(0, add=["ape"])

    assert await held(store, scribe, 0) == ["zebra", "ape", "mia", "grass", "sky"]


async def test_a_later_run_neither_deletes_a_human_tag_nor_revives_a_rejected_one(store: Store, scribe: Scribe) -> None:
    scribe.image(0, tags=["cat"])
    scribe.see("run_1", scribe.run("run_1", 0), 0, ("dog", 0.9), ("sky", 0.9))
    scribe.edit(0, remove=["dog"])

    scribe.see("run_2", scribe.run("run_2", 0), 0, ("dog", 0.99))

    assert await held(store, scribe, 0) == ["cat"]


async def test_the_newest_run_of_each_model_counts_also_when_an_older_one_speaks_later(
    store: Store, scribe: Scribe
) -> None:
    scribe.image(0)
    old, new, other = scribe.run("old", 0), scribe.run("new", 0), scribe.run("other", 0, model="other")
    scribe.see("new", new, 0, ("new", 0.8))
    scribe.see("other", other, 0, ("other", 0.9))
    scribe.see("old", old, 0, ("old", 0.9))

    assert await held(store, scribe, 0) == ["other", "new"]


async def test_an_unreadable_image_keeps_what_was_seen_before(store: Store, scribe: Scribe) -> None:
    scribe.image(0)
    scribe.see("run_1", scribe.run("run_1", 0), 0, ("sky", 0.9))
    blind = e.ImagePredictions(ordinal=0, predictions=(), unreadable="it is gone")
    attempt = scribe.run("run_2", 0)
    scribe.write("tagging", "run_2", e.TaggingPredicted(attempt=attempt, images=(blind,)))

    assert await held(store, scribe, 0) == ["sky"]


async def test_a_threshold_moves_tags_without_another_run(store: Store, scribe: Scribe) -> None:
    scribe.image(0)
    scribe.image(1)
    attempt = scribe.run("run_1", 0, 1)
    scribe.see("run_1", attempt, 0, ("sky", 0.9), ("grass", 0.4))
    scribe.see("run_1", attempt, 1, ("sky", 0.9))
    before = await etag(store, scribe, 0), await etag(store, scribe, 1)

    moved = scribe.write("dataset", "ds_cats", e.ThresholdsSet(general=0.5, character=0.5))

    assert await held(store, scribe, 0) == ["sky"]
    after = await etag(store, scribe, 0), await etag(store, scribe, 1)
    assert before[0] < after[0] == moved.sequence  # it looks otherwise
    assert before[1] == after[1]  # it does not


async def test_a_tag_asserted_again_keeps_its_place_but_one_taken_back_goes_last(store: Store, scribe: Scribe) -> None:
    scribe.image(0, tags=["one", "two", "three"])
    scribe.edit(0, remove=["two"])
    scribe.edit(0, add=["one", "two"])

    assert await held(store, scribe, 0) == ["one", "three", "two"]


async def test_what_somebody_saw_at_an_etag_can_be_told_later(store: Store, scribe: Scribe) -> None:
    scribe.image(0, tags=["cat"])
    attempt = scribe.run("run_1", 0)
    seen = scribe.see("run_1", attempt, 0, ("sky", 0.9), ("grass", 0.4)).sequence
    raised = scribe.write("dataset", "ds_cats", e.ThresholdsSet(general=0.5, character=0.5)).sequence
    edited = scribe.edit(0, add=["fur"], remove=["sky"]).sequence
    await store.apply(scribe.commits)

    def look(connection: Connection) -> list[tuple[str, ...]]:
        image = images.find(connection, image_id("ds_cats", 0))
        assert image is not None
        return [images.seen_at(connection, image, at) for at in (seen - 1, seen, raised, edited)]

    assert await store.read(look) == [("cat",), ("cat", "sky", "grass"), ("cat", "sky"), ("cat", "fur")]


async def test_decisions_tell_who_and_when(store: Store, scribe: Scribe) -> None:
    scribe.image(0, tags=["cat"])
    edited = scribe.edit(0, add=["fur"], remove=["cat"])
    await store.apply(scribe.commits)

    found = await store.read(lambda connection: images.asserted(connection, "ds_cats", 0))

    decided = {tag: (one.asserted, one.source, one.actor, one.sequence) for tag, one in found.items()}
    assert decided == {
        "fur": (True, "person", "user:ann", edited.sequence),
        "cat": (False, "person", "user:ann", edited.sequence),
    }


async def test_the_rows_for_filters_are_the_tags_that_hold_after_any_history(store: Store) -> None:
    for stored in everything().commits:
        await store.apply([stored])
        assert await store.read(_filtered) == await store.read(_derived)


def _filtered(connection: Connection) -> set[tuple[str, int, str]]:
    return {
        (row["dataset_id"], ordinal, row["tag"])
        for row in connection.execute("SELECT dataset_id, tag, holds FROM tag")
        for ordinal in sets.opened(row["holds"])
    }


def _derived(connection: Connection) -> set[tuple[str, int, str]]:
    live = [row.id for row in datasets.page(connection, 0, 100)]
    return {
        (dataset_id, ordinal, tag.tag)
        for dataset_id in live
        for ordinal, found in images.effective_tags(
            connection, dataset_id, images.ordinals(connection, dataset_id)
        ).items()
        for tag in found
    }


async def test_counts_are_those_of_the_rows(store: Store) -> None:
    await store.apply(everything().commits)

    def look(connection: Connection) -> None:
        for dataset_id in (None, "ds_cats", "ds_dogs"):
            found = tags.counts(connection, dataset_id, "", (2**62, ""), 100)
            assert found == sorted(found, key=lambda row: (-row.images, row.tag))
            assert len(found) == tags.count_different(connection, dataset_id, "")
            for row in found:
                assert row.images == tags.count_images(connection, dataset_id, row.tag)

    await store.read(look)


async def test_a_prefix_narrows_tags_and_nothing_in_it_is_a_pattern(store: Store, scribe: Scribe) -> None:
    scribe.image(0, tags=["long_hair", "longcat", "100%"])
    await store.apply(scribe.commits)

    def look(connection: Connection, prefix: str) -> list[str]:
        return [row.tag for row in tags.counts(connection, "ds_cats", prefix, (2**62, ""), 100)]

    assert await store.read(lambda connection: look(connection, "long_")) == ["long_hair"]
    assert await store.read(lambda connection: look(connection, "%")) == []


async def test_a_model_tag_says_which_run_saw_it_and_how_sure_it_was(store: Store, scribe: Scribe) -> None:
    scribe.image(0)
    seen = scribe.see("run_1", scribe.run("run_1", 0), 0, ("mia", 0.9, "character"))
    await store.apply(scribe.commits)

    found = await store.read(lambda connection: images.effective_tags(connection, "ds_cats", [0]))

    assert found[0] == (
        TagView(
            tag="mia",
            source="model",
            category="character",
            probability=0.9,
            run="run_1",  # type: ignore[arg-type]
            sequence=seen.sequence,
        ),
    )


async def test_predictions_of_a_run_nobody_asked_for_stop_the_read_model(store: Store, scribe: Scribe) -> None:
    scribe.write("tagging", "run_9", e.TaggingPredicted(attempt=1, images=()))

    with pytest.raises(LogDamaged):
        await store.apply(scribe.commits)


# --- work


async def test_the_line_is_by_priority_then_by_who_came_first(store: Store, scribe: Scribe) -> None:
    for name, priority in (("job_a", "low"), ("job_b", "normal"), ("job_c", "high"), ("job_d", "normal")):
        scribe.write("job", name, job_created(), e.JobQueued(priority=priority))  # type: ignore[arg-type]
    scribe.write("job", "job_e", job_created())
    moved = scribe.write("job", "job_a", e.JobPrioritised(priority="high"), e.JobQueued(priority="high"))
    await store.apply(scribe.commits)

    waiting = await store.read(lambda connection: work.queued(connection, "train"))

    assert [one.id for one in waiting] == ["job_c", "job_a", "job_b", "job_d"]
    assert (waiting[1].priority, waiting[1].dispatch) == ("high", moved.sequence)

    def positions(connection: Connection) -> list[int | None]:
        found = [jobs.find(connection, one) for one in ("job_c", "job_a", "job_b", "job_d", "job_e")]
        return [work.position(connection, "train", held.work) for _, held in filter(None, found)]

    assert await store.read(positions) == [1, 2, 3, 4, None]


async def test_work_under_way_still_needs_its_hint_until_it_ends(store: Store) -> None:
    await store.apply(everything().commits)

    waiting = await store.read(lambda connection: work.queued(connection, "train"))

    assert [(one.id, one.state) for one in waiting] == [("job_3", "queued"), ("job_2", "queued")]
    assert await store.read(lambda connection: work.queued(connection, "tag")) == []


async def test_attempts_tell_how_each_ended(store: Store) -> None:
    await store.apply(everything().commits)

    found = await store.read(lambda connection: work.attempts(connection, "train", "job_1"))

    assert [(one.ended, one.reason) for one in found] == [
        ("crashed", None),
        ("interrupted", "a polite stop"),
        ("crashed", "out of memory"),
        ("succeeded", None),
    ]


async def test_a_job_keeps_what_was_asked_and_shows_later_words(store: Store) -> None:
    await store.apply(everything().commits)

    found = await store.read(lambda connection: jobs.find(connection, "job_1"))

    assert found is not None
    job, held = found
    assert (job.asked.name, job.asked.labels, job.asked.preset) == ("the cat", ("nice",), "quick")
    assert (held.work.state, held.work.kept, held.work.attempts) == ("completed", 20, 4)
    assert [artifact.name for artifact in job.artifacts] == ["cat.safetensors"]


async def test_a_step_passed_again_by_a_later_attempt_stands_once(store: Store, scribe: Scribe) -> None:
    scribe.write("job", "job_1", job_created())
    for attempt in (3, 4):
        kept = e.JobCheckpointed(attempt=attempt, step=10, checkpoint=digest(f"{attempt}"), size=1)
        scribe.write("job", "job_1", kept)
    await store.apply(scribe.commits)

    found = await store.read(lambda connection: jobs.checkpoints(connection, "job_1", -1, 10))

    assert [(one.step, one.attempt) for one in found] == [(10, 4)]


async def test_a_run_counts_what_it_did_and_could_not_read(store: Store) -> None:
    await store.apply(everything().commits)

    found = await store.read(lambda connection: tagging.find(connection, "run_1"))

    assert found is not None
    run, held = found
    assert (held.work.state, held.work.kept, run.unreadable) == ("completed", 3, 1)
    assert run.loaded is not None
    assert run.loaded.provider == "cpu"


# --- commands, presets, versions


async def test_a_command_that_wrote_two_things_is_answered_by_the_one_that_holds_the_answer(store: Store) -> None:
    scribe = everything()
    await store.apply(scribe.commits)
    answer = next(one for one in scribe.commits if one.commit.command == "train" and one.commit.kind == "job")

    found = await store.read(lambda connection: commands.answered(connection, "train"))

    assert found is not None
    assert (found.kind, found.thing, found.sequence, found.fingerprint) == ("job", "job_1", answer.sequence, "g")
    assert found.answer == bytes(answer.commit.answer)
    assert await store.read(lambda connection: commands.answered(connection, "never")) is None


async def test_the_first_answer_of_a_command_stays(store: Store, scribe: Scribe) -> None:
    first = scribe.write("preset", "p", e.PresetRetired(), command="k", answer=Receipt(id="first"))
    scribe.write("preset", "q", e.PresetRetired(), command="k", answer=Receipt(id="second"))
    await store.apply(scribe.commits)

    found = await store.read(lambda connection: commands.answered(connection, "k"))

    assert found is not None
    assert found.sequence == first.sequence


async def test_a_retired_preset_is_known_but_not_listed(store: Store) -> None:
    await store.apply(everything().commits)

    assert [row.name for row in await store.read(lambda connection: presets.page(connection, "", 10))] == ["mine"]
    old = await store.read(lambda connection: presets.find(connection, "old"))
    assert old is not None
    assert old.retired


async def test_versions_are_numbered_and_the_newest_is_known(store: Store, scribe: Scribe) -> None:
    for number in (1, 2):
        frozen: Stored = scribe.write(
            "dataset",
            "ds_cats",
            e.VersionFrozen(
                version=number,
                version_id=f"ver_{number}",  # type: ignore[arg-type]
                as_of=scribe.sequence,
                images=0,
                manifest=digest(f"{number}"),
            ),
        )
    await store.apply(scribe.commits)

    newest = await store.read(lambda connection: versions.latest(connection, "ds_cats"))

    assert newest is not None
    assert (newest.number, newest.sequence) == (2, frozen.sequence)
    assert await store.read(lambda connection: versions.find(connection, "ds_cats", 3)) is None


TAG = st.sampled_from(["cat", "dog", "sky", "mia"])
ORDINAL = st.integers(0, 3)
CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("edit"), st.sets(ORDINAL, min_size=1), st.sets(TAG), st.sets(TAG)),
        st.tuples(
            st.just("see"), ORDINAL, st.dictionaries(TAG, st.floats(0.1, 0.99)), st.sampled_from(["wd", "other"])
        ),
        st.tuples(st.just("thresholds"), st.floats(0.1, 0.9), st.floats(0.1, 0.9)),
        st.tuples(st.just("remove"), ORDINAL),
    ),
    max_size=12,
)


@settings(max_examples=25, deadline=None)
@given(changes=CHANGES)
def test_filters_counts_and_the_past_agree_after_any_change(changes: list[Any]) -> None:
    scribe = Scribe()
    scribe.dataset()
    for ordinal in range(4):
        scribe.image(ordinal)
    for number, change in enumerate(changes):
        _make(scribe, f"run_{number}", change)

    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.row_factory = sqlite3.Row
        connection.executescript(views.TABLES)
        then: dict[int, dict[int, tuple[TagView, ...]]] = {}
        for stored in scribe.commits:
            views.apply(connection, [stored])
            then[stored.sequence] = images.effective_tags(connection, "ds_cats", range(4))

        assert _filtered(connection) == _derived(connection)
        counted = {row.tag: row.images for row in tags.counts(connection, "ds_cats", "", (2**62, ""), 100)}
        assert counted == Counter(tag for _, _, tag in _filtered(connection))
        for sequence, expected in then.items():
            if sequence > 1:  # the data set is there
                assert images.effective_tags(connection, "ds_cats", range(4), sequence) == expected


@settings(max_examples=40, deadline=None)
@given(changes=CHANGES, cuts=st.lists(st.integers(0, 60), max_size=5))
def test_the_rows_do_not_depend_on_where_batches_end(changes: list[Any], cuts: list[int]) -> None:
    scribe = Scribe()
    scribe.dataset()
    for ordinal in range(4):
        scribe.image(ordinal, tags=["cat"] if ordinal % 2 else [])
    for number, change in enumerate(changes):
        _make(scribe, f"run_{number % 3}_{number}", change)
    edges = sorted({0, *(min(cut, len(scribe.commits)) for cut in cuts), len(scribe.commits)})

    one_by_one = _rows_after([[stored] for stored in scribe.commits])
    assert _rows_after([scribe.commits[start:end] for start, end in pairwise(edges)]) == one_by_one
    assert _rows_after([scribe.commits]) == one_by_one


def _rows_after(batches: list[list[Stored]]) -> dict[str, list[tuple[object, ...]]]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.row_factory = sqlite3.Row
        connection.executescript(views.TABLES)
        for batch in batches:
            views.apply(connection, batch)
        return dump(connection)


def _make(scribe: Scribe, run: str, change: Any) -> None:
    match change:
        case "edit", ordinals, add, remove:
            scribe.edit(*ordinals, add=sorted(add), remove=sorted(remove - add))
        case "see", ordinal, seen, model:
            scribe.see(run, scribe.run(run, ordinal, model=model), ordinal, *sorted(seen.items()))
        case "thresholds", general, character:
            scribe.write("dataset", "ds_cats", e.ThresholdsSet(general=general, character=character))
        case "remove", ordinal:
            scribe.write("dataset", "ds_cats", e.ImagesRemoved(images=bitmap(ordinal)))
