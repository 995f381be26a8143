"""The rows after a log: states, effective tags now and in the past, pages, counts, queue order."""

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
from pyroaring import BitMap

from catalog import views
from catalog.database import Connection
from catalog.domain.effective_tags import EffectiveTags
from catalog.lookup import require_job, require_run
from catalog.store import Store
from catalog.views import commands, datasets, decisions, images, jobs, presets, sets, tags, versions, work
from contracts.commands.presets import PresetResult
from contracts.commits import RecordedCommit
from contracts.errors import LogDamaged
from contracts.events.datasets import DatasetRemoved, ImagesRemoved, ThresholdsSet, VersionFrozen
from contracts.events.jobs import JobCheckpointed, JobPrioritised, JobQueued
from contracts.events.presets import PresetRetired
from contracts.events.tagging import ImagePredictions, TaggingPredicted
from contracts.ids import RunId, VersionId
from contracts.queries.datasets import TagView
from contracts.subjects import Priority
from tests.catalog.log_builder import (
    LOG_ID,
    LogBuilder,
    bitmap,
    digest,
    full_history,
    image_added,
    image_id,
    job_created,
    version_set,
)
from tests.catalog.test_store import dump
from tests.limits import examples


@pytest.fixture
def builder() -> LogBuilder:
    builder = LogBuilder()
    builder.create_dataset()
    return builder


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = Store(tmp_path / "read.db", LOG_ID, views)
    yield store
    await store.close()


async def tags_of(store: Store, builder: LogBuilder, ordinal: int, dataset: str = "ds_cats") -> list[str]:
    await store.apply(builder.commits)
    found = await store.read(lambda connection: decisions.tag_names(connection, dataset, ordinal))
    return list(found)


async def etag(store: Store, builder: LogBuilder, ordinal: int) -> int:
    await store.apply(builder.commits)
    row = await store.read(lambda connection: images.find(connection, image_id("ds_cats", ordinal)))
    assert row is not None
    return row.etag


# --- data sets


async def test_a_data_set_is_found_by_id_and_by_name_ignoring_case(store: Store, builder: LogBuilder) -> None:
    await store.apply(builder.commits)

    def read(connection: Connection) -> list[str | None]:
        rows = [datasets.find(connection, ref) for ref in ("ds_cats", "cats", "CATS", "dogs")]
        return [None if row is None else row.id for row in rows]

    assert await store.read(read) == ["ds_cats", "ds_cats", "ds_cats", None]


async def test_the_name_of_a_removed_data_set_can_be_reused(store: Store, builder: LogBuilder) -> None:
    builder.append("dataset", "ds_cats", DatasetRemoved())
    builder.create_dataset("ds_new", "Cats")
    await store.apply(builder.commits)

    old = await store.read(lambda connection: datasets.find(connection, "ds_cats"))
    new = await store.read(lambda connection: datasets.find(connection, "cats"))

    assert old is not None
    assert new is not None
    assert (old.removed, new.id) == (True, "ds_new")


async def test_an_ordinal_is_never_reused(store: Store, builder: LogBuilder) -> None:
    builder.add_image(0)
    builder.add_image(1)
    builder.append("dataset", "ds_cats", ImagesRemoved(images=bitmap(0, 1)))
    await store.apply(builder.commits)

    row = await store.read(lambda connection: datasets.find(connection, "ds_cats"))

    assert row is not None
    assert row.next_ordinal == 2
    assert await store.read(lambda connection: images.live_ordinals(connection, "ds_cats")) == []


async def test_a_duplicate_is_only_found_among_live_images(store: Store, builder: LogBuilder) -> None:
    builder.add_image(0)
    pixels = image_added("ds_cats", 0).pixels
    await store.apply(builder.commits)
    found = await store.read(lambda connection: images.find_duplicate(connection, "ds_cats", pixels))
    assert found is not None
    assert found.ordinal == 0

    await store.apply([builder.append("dataset", "ds_cats", ImagesRemoved(images=bitmap(0)))])

    assert await store.read(lambda connection: images.find_duplicate(connection, "ds_cats", pixels)) is None


# --- tags


async def test_human_tags_come_before_predicted_ones(store: Store, builder: LogBuilder) -> None:
    builder.add_image(0, tags=["zebra"])
    attempt = builder.start_run("run_1", 0)
    builder.predict("run_1", attempt, 0, ("sky", 0.6), ("grass", 0.9), ("mia", 0.9, "character"), ("bush", 0.2))
    builder.edit_tags(0, add=["ape"])

    assert await tags_of(store, builder, 0) == ["zebra", "ape", "mia", "grass", "sky"]


async def test_a_later_run_neither_deletes_a_human_tag_nor_revives_a_rejected_one(
    store: Store, builder: LogBuilder
) -> None:
    builder.add_image(0, tags=["cat"])
    builder.predict("run_1", builder.start_run("run_1", 0), 0, ("dog", 0.9), ("sky", 0.9))
    builder.edit_tags(0, remove=["dog"])

    builder.predict("run_2", builder.start_run("run_2", 0), 0, ("dog", 0.99))

    assert await tags_of(store, builder, 0) == ["cat"]


async def test_the_newest_run_of_each_model_counts_even_if_an_older_one_reports_later(
    store: Store, builder: LogBuilder
) -> None:
    builder.add_image(0)
    old, new, other = (
        builder.start_run("old", 0),
        builder.start_run("new", 0),
        builder.start_run("other", 0, model="other"),
    )
    builder.predict("new", new, 0, ("new", 0.8))
    builder.predict("other", other, 0, ("other", 0.9))
    builder.predict("old", old, 0, ("old", 0.9))

    assert await tags_of(store, builder, 0) == ["other", "new"]


async def test_an_unreadable_image_keeps_its_earlier_predictions(store: Store, builder: LogBuilder) -> None:
    builder.add_image(0)
    builder.predict("run_1", builder.start_run("run_1", 0), 0, ("sky", 0.9))
    unreadable = ImagePredictions(ordinal=0, predictions=(), unreadable="it is gone")
    attempt = builder.start_run("run_2", 0)
    builder.append("tagging", "run_2", TaggingPredicted(attempt=attempt, images=(unreadable,)))

    assert await tags_of(store, builder, 0) == ["sky"]


async def test_a_new_threshold_changes_tags_without_another_run(store: Store, builder: LogBuilder) -> None:
    builder.add_image(0)
    builder.add_image(1)
    attempt = builder.start_run("run_1", 0, 1)
    builder.predict("run_1", attempt, 0, ("sky", 0.9), ("grass", 0.4))
    builder.predict("run_1", attempt, 1, ("sky", 0.9))
    before = await etag(store, builder, 0), await etag(store, builder, 1)

    moved = builder.append("dataset", "ds_cats", ThresholdsSet(categories={"general": 0.5, "character": 0.5}))

    assert await tags_of(store, builder, 0) == ["sky"]
    after = await etag(store, builder, 0), await etag(store, builder, 1)
    assert before[0] < after[0] == moved.sequence  # its tags changed
    assert before[1] == after[1]  # its tags did not change


async def test_a_tag_asserted_again_goes_last(store: Store, builder: LogBuilder) -> None:
    builder.add_image(0, tags=["one", "two", "three"])
    builder.edit_tags(0, remove=["two"])
    builder.edit_tags(0, add=["one", "two"])

    assert await tags_of(store, builder, 0) == ["three", "one", "two"]


async def test_the_tags_at_an_earlier_etag_can_be_computed_later(store: Store, builder: LogBuilder) -> None:
    builder.add_image(0, tags=["cat"])
    attempt = builder.start_run("run_1", 0)
    predicted = builder.predict("run_1", attempt, 0, ("sky", 0.9), ("grass", 0.4)).sequence
    raised = builder.append("dataset", "ds_cats", ThresholdsSet(categories={"general": 0.5, "character": 0.5})).sequence
    edited = builder.edit_tags(0, add=["fur"], remove=["sky"]).sequence
    await store.apply(builder.commits)

    def read(connection: Connection) -> list[tuple[str, ...]]:
        image = images.find(connection, image_id("ds_cats", 0))
        assert image is not None
        sequences = (predicted - 1, predicted, raised, edited)
        return [decisions.tag_names(connection, "ds_cats", image.ordinal, at) for at in sequences]

    assert await store.read(read) == [("cat",), ("cat", "sky", "grass"), ("cat", "sky"), ("cat", "fur")]


async def test_decisions_have_actor_source_and_sequence(store: Store, builder: LogBuilder) -> None:
    builder.add_image(0, tags=["cat"])
    edited = builder.edit_tags(0, add=["fur"], remove=["cat"])
    await store.apply(builder.commits)

    found = (await store.read(lambda connection: decisions.effective_tags(connection, "ds_cats", [0])))[0]

    assert [(one.tag, one.source, one.actor, one.sequence) for one in found.tags] == [
        ("fur", "person", "user:ann", edited.sequence)
    ]
    assert found.rejected == ("cat",)


async def test_the_materialized_tags_are_the_effective_tags_after_any_commit(store: Store) -> None:
    for recorded in full_history().commits:
        await store.apply([recorded])
        assert await store.read(_materialized) == await store.read(_expected)


def _materialized(connection: Connection) -> set[tuple[str, int, str]]:
    return {
        (row["dataset_id"], ordinal, row["tag"])
        for row in connection.execute(TAGGED).fetchall()
        for ordinal in BitMap.deserialize(row["images"]) & sets.load(connection, row["dataset_id"], "live")
    }


def _expected(connection: Connection) -> set[tuple[str, int, str]]:
    live = [row.id for row in datasets.page(connection, 0, 100)]
    return {
        (dataset_id, ordinal, tag)
        for dataset_id in live
        for ordinal in images.live_ordinals(connection, dataset_id)
        for tag in decisions.tag_names(connection, dataset_id, ordinal)
    }


async def test_tag_counts_match_the_rows(store: Store) -> None:
    await store.apply(full_history().commits)

    def read(connection: Connection) -> None:
        for dataset_id in (None, "ds_cats", "ds_dogs"):
            found = tags.tag_counts(connection, dataset_id, "", (2**62, ""), 100)
            assert found == sorted(found, key=lambda row: (-row.images, row.tag))
            assert len(found) == tags.count_distinct(connection, dataset_id, "")
            for row in found:
                assert row.images == tags.count_images(connection, dataset_id, row.tag)

    await store.read(read)


async def test_a_prefix_filters_tags_and_has_no_wildcards(store: Store, builder: LogBuilder) -> None:
    builder.add_image(0, tags=["long_hair", "longcat", "100%"])
    await store.apply(builder.commits)

    def read(connection: Connection, prefix: str) -> list[str]:
        return [row.tag for row in tags.tag_counts(connection, "ds_cats", prefix, (2**62, ""), 100)]

    assert await store.read(lambda connection: read(connection, "long_")) == ["long_hair"]
    assert await store.read(lambda connection: read(connection, "%")) == []


async def test_a_predicted_tag_has_its_run_and_probability(store: Store, builder: LogBuilder) -> None:
    builder.add_image(0)
    predicted = builder.predict("run_1", builder.start_run("run_1", 0), 0, ("mia", 0.9, "character"))
    await store.apply(builder.commits)

    found = await store.read(lambda connection: decisions.effective_tags(connection, "ds_cats", [0]))

    assert found[0].tags == (
        TagView(
            tag="mia",
            source="model",
            category="character",
            probability=0.9,
            run=RunId("run_1"),
            sequence=predicted.sequence,
        ),
    )


async def test_predictions_of_an_unknown_run_stop_the_read_model(store: Store, builder: LogBuilder) -> None:
    builder.append("tagging", "run_9", TaggingPredicted(attempt=1, images=()))

    with pytest.raises(LogDamaged):
        await store.apply(builder.commits)


# --- work


async def test_the_queue_is_ordered_by_priority_then_by_dispatch(store: Store, builder: LogBuilder) -> None:
    queued: dict[str, Priority] = {"job_a": "low", "job_b": "normal", "job_c": "high", "job_d": "normal"}
    for name, priority in queued.items():
        builder.append("job", name, job_created(), version_set(), JobQueued(priority=priority))
    builder.append("job", "job_e", job_created(), version_set())
    moved = builder.append("job", "job_a", JobPrioritised(priority="high"), JobQueued(priority="high"))
    await store.apply(builder.commits)

    unfinished = await store.read(lambda connection: work.list_unfinished(connection, "train"))

    assert [one.id for one in unfinished] == ["job_c", "job_a", "job_b", "job_d"]
    assert (unfinished[1].priority, unfinished[1].dispatch) == ("high", moved.sequence)

    def positions(connection: Connection) -> list[int | None]:
        found = [work.find(connection, "train", one) for one in ("job_c", "job_a", "job_b", "job_d", "job_e")]
        return [work.queue_position(connection, "train", row.work) for row in found if row is not None]

    assert await store.read(positions) == [1, 2, 3, 4, None]


async def test_work_needs_its_queue_message_until_it_ends(store: Store) -> None:
    await store.apply(full_history().commits)

    unfinished = await store.read(lambda connection: work.list_unfinished(connection, "train"))

    assert [(one.id, one.state) for one in unfinished] == [("job_3", "queued"), ("job_2", "queued")]
    assert await store.read(lambda connection: work.list_unfinished(connection, "tag")) == []


async def test_attempts_record_how_each_ended(store: Store) -> None:
    await store.apply(full_history().commits)

    found = await store.read(lambda connection: work.attempts(connection, "train", "job_1"))

    assert [(one.ended, one.reason) for one in found] == [
        ("crashed", None),
        ("interrupted", "a polite stop"),
        ("crashed", "out of memory"),
        ("succeeded", None),
    ]


async def test_a_job_keeps_its_request_and_shows_later_edits(store: Store) -> None:
    await store.apply(full_history().commits)

    job, work_row = await store.read(lambda connection: require_job(connection, "job_1"))

    assert (job.request.name, job.request.labels, job.request.preset) == ("the cat", ("nice",), "quick")
    assert (work_row.work.state, work_row.work.completed_units, work_row.work.attempts) == ("completed", 20, 4)
    assert [artifact.name for artifact in job.artifacts] == ["cat.safetensors"]


async def test_a_checkpoint_repeated_by_a_later_attempt_is_replaced(store: Store, builder: LogBuilder) -> None:
    builder.append("job", "job_1", job_created(), version_set())
    for attempt in (3, 4):
        checkpointed = JobCheckpointed(attempt=attempt, step=10, checkpoint=digest(f"{attempt}"), size=1)
        builder.append("job", "job_1", checkpointed)
    await store.apply(builder.commits)

    found = await store.read(lambda connection: jobs.checkpoints(connection, "job_1", -1, 10))

    assert [(one.step, one.attempt) for one in found] == [(10, 4)]


async def test_a_run_counts_completed_and_unreadable_images(store: Store) -> None:
    await store.apply(full_history().commits)

    run, work_row = await store.read(lambda connection: require_run(connection, "run_1"))

    assert (work_row.work.state, work_row.work.completed_units, run.unreadable) == ("completed", 3, 1)
    assert run.loaded_model is not None
    assert run.loaded_model.provider == "cpu"


# --- commands, presets, versions


async def test_the_row_of_a_command_with_two_commits_is_that_of_the_one_with_the_result(store: Store) -> None:
    builder = full_history()
    await store.apply(builder.commits)
    with_result = next(
        one for one in builder.commits if one.commit.command_id == "train" and one.commit.aggregate_kind == "job"
    )

    found = await store.read(lambda connection: commands.find(connection, "train"))

    assert found is not None
    assert (found.aggregate_kind, found.aggregate_id, found.sequence, found.fingerprint) == (
        "job",
        "job_1",
        with_result.sequence,
        "g",
    )
    assert found.result == bytes(with_result.commit.result)
    assert await store.read(lambda connection: commands.find(connection, "never")) is None


async def test_the_first_result_of_a_command_is_kept(store: Store, builder: LogBuilder) -> None:
    first = builder.append("preset", "p", PresetRetired(), command_id="k", result=PresetResult(id="first", name="a"))
    builder.append("preset", "q", PresetRetired(), command_id="k", result=PresetResult(id="second", name="a"))
    await store.apply(builder.commits)

    found = await store.read(lambda connection: commands.find(connection, "k"))

    assert found is not None
    assert found.sequence == first.sequence


async def test_a_retired_preset_is_found_but_not_listed(store: Store) -> None:
    await store.apply(full_history().commits)

    assert [row.name for row in await store.read(lambda connection: presets.page(connection, "", 10))] == ["mine"]
    old = await store.read(lambda connection: presets.find(connection, "old"))
    assert old is not None
    assert old.retired


async def test_versions_are_numbered_and_the_latest_is_found(store: Store, builder: LogBuilder) -> None:
    for number in (1, 2):
        frozen: RecordedCommit = builder.append(
            "dataset",
            "ds_cats",
            VersionFrozen(
                version=number,
                version_id=VersionId(f"ver_{number}"),
                as_of=builder.sequence,
                images=0,
                manifest=digest(f"{number}"),
                pages=(digest(f"page {number}"), digest("shared page")),
            ),
        )
    await store.apply(builder.commits)

    newest = await store.read(lambda connection: versions.find_latest(connection, "ds_cats"))

    assert newest is not None
    assert (newest.number, newest.sequence) == (2, frozen.sequence)
    assert await store.read(lambda connection: versions.find(connection, "ds_cats", 3)) is None


TAGGED = "SELECT dataset_id, tag, tag_set.images FROM tag JOIN tag_set USING (dataset_id, tag_id) WHERE kind = 'tagged'"
TAG = st.sampled_from(["cat", "dog", "sky", "mia"])
ORDINAL = st.integers(0, 3)
CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("edit"), st.sets(ORDINAL, min_size=1), st.sets(TAG), st.sets(TAG)),
        st.tuples(
            st.just("predict"), ORDINAL, st.dictionaries(TAG, st.floats(0.1, 0.99)), st.sampled_from(["wd", "other"])
        ),
        st.tuples(st.just("thresholds"), st.floats(0.1, 0.9), st.floats(0.1, 0.9)),
        st.tuples(st.just("remove"), ORDINAL),
    ),
    max_size=12,
)


@pytest.mark.slow
@settings(max_examples=examples(25))
@given(changes=CHANGES)
def test_materialized_tags_counts_and_past_states_agree_after_any_change(changes: list[Any]) -> None:
    builder = LogBuilder()
    builder.create_dataset()
    for ordinal in range(4):
        builder.add_image(ordinal)
    for number, change in enumerate(changes):
        _append(builder, f"run_{number}", change)

    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.row_factory = sqlite3.Row
        connection.executescript(views.TABLES)
        past: dict[int, dict[int, EffectiveTags]] = {}
        for recorded in builder.commits:
            views.apply(connection, [recorded])
            past[recorded.sequence] = decisions.effective_tags(connection, "ds_cats", range(4))

        assert _materialized(connection) == _expected(connection)
        counted = {row.tag: row.images for row in tags.tag_counts(connection, "ds_cats", "", (2**62, ""), 100)}
        assert counted == Counter(tag for _, _, tag in _materialized(connection))
        for sequence, expected in past.items():
            if sequence > 1:  # the data set is there
                assert decisions.effective_tags(connection, "ds_cats", range(4), sequence) == expected


@pytest.mark.slow
@settings(max_examples=examples(40))
@given(changes=CHANGES, cuts=st.lists(st.integers(0, 60), max_size=5))
def test_the_rows_do_not_depend_on_where_batches_end(changes: list[Any], cuts: list[int]) -> None:
    builder = LogBuilder()
    builder.create_dataset()
    for ordinal in range(4):
        builder.add_image(ordinal, tags=["cat"] if ordinal % 2 else [])
    for number, change in enumerate(changes):
        _append(builder, f"run_{number % 3}_{number}", change)
    edges = sorted({0, *(min(cut, len(builder.commits)) for cut in cuts), len(builder.commits)})

    one_by_one = _rows_after([[recorded] for recorded in builder.commits])
    assert _rows_after([builder.commits[start:end] for start, end in pairwise(edges)]) == one_by_one
    assert _rows_after([builder.commits]) == one_by_one


def _rows_after(batches: list[list[RecordedCommit]]) -> dict[str, list[tuple[object, ...]]]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.row_factory = sqlite3.Row
        connection.executescript(views.TABLES)
        for batch in batches:
            views.apply(connection, batch)
        return dump(connection)


def _append(builder: LogBuilder, run: str, change: Any) -> None:
    match change:
        case "edit", ordinals, add, remove:
            builder.edit_tags(*ordinals, add=sorted(add), remove=sorted(remove - add))
        case "predict", ordinal, predictions, model:
            builder.predict(run, builder.start_run(run, ordinal, model=model), ordinal, *sorted(predictions.items()))
        case "thresholds", general, character:
            builder.append("dataset", "ds_cats", ThresholdsSet(categories={"general": general, "character": character}))
        case "remove", ordinal:
            builder.append("dataset", "ds_cats", ImagesRemoved(images=bitmap(ordinal)))
