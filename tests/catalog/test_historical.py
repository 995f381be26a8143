"""Historical queries: the result for a sequence or a time depends exactly on the events up to it."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.domain.effective_tags import DEFAULT_THRESHOLDS
from catalog.query_handlers.context import QueryLimits
from contracts import jobs
from contracts.aggregates import AnyEvent
from contracts.commits import RecordedCommit
from contracts.errors import Gone, Invalid, LoratoryError, NotFound, Rejected, Unavailable
from contracts.events.base import Category
from contracts.events.datasets import (
    CaptionSet,
    DatasetRemoved,
    DatasetRenamed,
    ImageErased,
    ImagesRemoved,
    TagsEdited,
    ThresholdsSet,
)
from contracts.events.image_sets import ImageSet
from contracts.events.jobs import (
    JobAttemptStarted,
    JobCancelled,
    JobCheckpointed,
    JobEdited,
    JobFailed,
    JobInterrupted,
    JobPrioritised,
    JobQueued,
    JobRemoved,
    JobSucceeded,
)
from contracts.events.tagging import TaggingPredicted, TaggingRequested
from contracts.ids import DatasetId, ImageId, JobId, WorkerId
from contracts.queries.base import QueryAt
from contracts.queries.datasets import GetDataset, GetImage, ImageView
from contracts.queries.jobs import GetJob
from contracts.queries.log import ListImageHistory
from contracts.sealed import seal
from tests.catalog.log_builder import LogBuilder, bitmap, full_history, image_id, job_created, key_for, version_set
from tests.catalog.test_query_handlers import QuerySide, create_keys, open_queries

DATASETS, ORDINALS, JOBS = ("ds_cats", "ds_dogs"), range(3), ("job_1", "job_2", "job_3")
IMAGES = [image_id(dataset, ordinal) for dataset in DATASETS for ordinal in ORDINALS]
TAGS = ("cat", "dog", "sky", "mia")

QUERIES: list[QueryAt[Any]] = [
    *(GetDataset(dataset=dataset) for dataset in DATASETS),
    *(GetImage(image=image) for image in IMAGES),
    *(GetJob(job=JobId(job)) for job in JOBS),
]

ORDINAL = st.sampled_from(list(ORDINALS))
SOME = st.lists(ORDINAL, min_size=1, max_size=3, unique=True)
TAG = st.sampled_from(TAGS)
DATASET = st.sampled_from(DATASETS)
JOB = st.sampled_from(JOBS)
CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("edit"), DATASET, SOME, st.lists(TAG, max_size=2), st.lists(TAG, max_size=2)),
        st.tuples(st.just("predict"), DATASET, SOME, TAG, st.floats(0, 1), st.sampled_from(["wd", "other"])),
        st.tuples(st.just("thresholds"), DATASET, st.floats(0.1, 0.9), st.floats(0.1, 0.9)),
        st.tuples(st.just("caption"), DATASET, ORDINAL, st.sampled_from([None, "a cat", "another cat"])),
        st.tuples(st.just("rename"), DATASET),
        st.tuples(st.just("remove image"), DATASET, ORDINAL),
        st.tuples(st.just("remove"), DATASET),
        st.tuples(st.just("erase"), DATASET, ORDINAL),
        st.tuples(st.just("queue"), JOB, st.sampled_from(["high", "normal", "low"])),
        st.tuples(st.just("edit job"), JOB),
        st.tuples(st.just("start"), JOB),
        st.tuples(st.just("checkpoint"), JOB, st.integers(1, 20)),
        st.tuples(st.just("interrupt"), JOB),
        st.tuples(st.just("end"), JOB, st.sampled_from(["succeeded", "cancelled", "failed", "removed"])),
    ),
    min_size=6,
    max_size=16,
)


@pytest.mark.slow
@settings(max_examples=6)
@given(changes=CHANGES)
async def test_for_every_sequence_the_result_is_a_fold_of_the_events_up_to_it(
    tmp_path_factory: pytest.TempPathFactory, changes: list[Any]
) -> None:
    """Compares a query over the whole log with a catalog of only the events so far, and with a reference model."""
    folder = tmp_path_factory.mktemp("past")
    builder = build_log(changes)
    async with open_queries(folder / "whole") as whole, open_queries(folder / "growing") as growing:
        for name in ("whole", "growing"):
            create_keys(folder / name, IMAGES)
        await whole.load(builder)
        for recorded in builder.commits:
            await growing.archive.append([recorded])
            await growing.store.apply([recorded])
            so_far = builder.commits[: recorded.sequence]
            for number, query in enumerate(QUERIES):
                result = await result_of(whole, msgspec.structs.replace(query, at_seq=recorded.sequence))
                assert comparable(result) == comparable(await result_of(growing, query)), (recorded.sequence, query)
                if number == recorded.sequence % len(QUERIES):
                    at_time = msgspec.structs.replace(query, at_time=recorded.recorded_at + timedelta(milliseconds=1))
                    assert comparable(result) == comparable(await result_of(whole, at_time))
                if isinstance(result, ImageView):
                    assert {tag.tag for tag in result.tags} == expected_tags(so_far, result.dataset_id, result.ordinal)
                if isinstance(query, GetJob):
                    assert_follows_state_machine(result, query.job, so_far)


async def result_of(queries: QuerySide, query: QueryAt[Any]) -> Any:
    try:
        return await queries.run(query)
    except (NotFound, Gone) as error:
        return error


def comparable(result: Any) -> bytes:
    """An error by its code, as that of a historical query has a longer detail."""
    return result.code.encode() if isinstance(result, LoratoryError) else msgspec.json.encode(result)


def build_log(changes: Sequence[Any]) -> LogBuilder:
    builder = LogBuilder()
    for dataset in DATASETS:
        builder.create_dataset(dataset, dataset)
        for ordinal in ORDINALS:
            builder.add_image(ordinal, dataset, tags=["cat"] if ordinal else [])
    for job in JOBS:
        builder.append("job", job, job_created(name=job), version_set())
    attempts: defaultdict[str, int] = defaultdict(int)
    for number, change in enumerate(changes):
        _append(builder, f"run_{number}", attempts, change)
    return builder


def _append(builder: LogBuilder, run: str, attempts: dict[str, int], change: Any) -> None:  # noqa: PLR0912 - one arm for each
    match change:
        case ("edit", dataset, ordinals, add, remove) if {*add} ^ {*remove}:
            added, removed = sorted({*add} - {*remove}), sorted({*remove} - {*add})
            builder.edit_tags(*ordinals, add=added, remove=removed, dataset=dataset)
        case ("predict", dataset, ordinals, tag, probability, model):
            attempt = builder.start_run(run, *ordinals, model=model, dataset=dataset)
            category: Category = "character" if tag == "mia" else "general"
            for ordinal in ordinals:
                builder.predict(run, attempt, ordinal, (tag, round(probability, 4), category))
        case ("thresholds", dataset, general, character):
            builder.append("dataset", dataset, ThresholdsSet(categories={"general": general, "character": character}))
        case ("caption", dataset, ordinal, text):
            caption = None if text is None else seal(key_for(image_id(dataset, ordinal)), text, "caption")
            builder.append("dataset", dataset, CaptionSet(ordinal=ordinal, caption=caption))
        case ("rename", dataset):
            builder.append("dataset", dataset, DatasetRenamed(name=f"name {builder.sequence}"))
        case ("remove image", dataset, ordinal):
            builder.append("dataset", dataset, ImagesRemoved(images=bitmap(ordinal)))
        case ("erase", dataset, ordinal):
            erased = ImageErased(ordinal=ordinal, image_id=image_id(dataset, ordinal))
            builder.append("dataset", dataset, erased)
        case ("remove", dataset):
            builder.append("dataset", dataset, DatasetRemoved())
        case ("queue", job, priority):
            builder.append("job", job, JobQueued(priority=priority))
        case ("edit job", job):
            edited = JobEdited(name=f"name {builder.sequence}")
            builder.append("job", job, edited, JobPrioritised(priority="high"))
        case ("start", job):
            started = JobAttemptStarted(worker=WorkerId("w1"), boot="b", resumes=0)
            attempts[job] = builder.append("job", job, started).sequence
        case ("checkpoint", job, step):
            checkpoint = JobCheckpointed(attempt=attempts[job], step=step, checkpoint=digest_of(step), size=step)
            builder.append("job", job, checkpoint)
        case ("interrupt", job):
            builder.append("job", job, JobInterrupted(attempt=attempts[job], step=0, reason="a polite stop"))
        case ("end", job, outcome):
            ends: dict[str, AnyEvent] = {
                "succeeded": JobSucceeded(attempt=attempts[job], step=20, artifacts=()),
                "cancelled": JobCancelled(attempt=attempts[job]),
                "failed": JobFailed(attempt=attempts[job], code="no-base", reason="there is none"),
                "removed": JobRemoved(),
            }
            builder.append("job", job, ends[outcome])


def digest_of(step: int) -> Any:
    return f"{step:064x}"


def expected_tags(commits: Sequence[RecordedCommit], dataset: DatasetId, ordinal: int) -> set[str]:
    """A reference model of effective tags: the latest human decisions, else the newest run above the thresholds.

    Each run here predicts one tag per image, so the most probable prediction decides.
    """
    decided: dict[str, bool] = {}
    models: dict[str, str] = {}
    predicted: dict[str, tuple[str, float]] = {}
    thresholds: dict[Category, float] = {**DEFAULT_THRESHOLDS.categories}
    for recorded in commits:
        aggregate_id = recorded.commit.aggregate_id
        for event in recorded.commit.events:
            match event:
                case TaggingRequested(dataset_id=of, model=model) if of == dataset:
                    models[aggregate_id] = model
                case TaggingPredicted(images=images) if aggregate_id in models:
                    for image in images:
                        if image.ordinal == ordinal:
                            (prediction,) = image.predictions
                            predicted[models[aggregate_id]] = (prediction.tag, prediction.probability)
                case TagsEdited(images=images) if aggregate_id == dataset and contains(images, ordinal):
                    decided |= dict.fromkeys(event.asserted, True) | dict.fromkeys(event.rejected, False)
                case ThresholdsSet() if aggregate_id == dataset:
                    thresholds = {**event.categories}
                case _:
                    pass
    accepted = {tag for tag, p in predicted.values() if p > thresholds["character" if tag == "mia" else "general"]}
    return {tag for tag, asserted in decided.items() if asserted} | (accepted - decided.keys())


def contains(images: ImageSet, ordinal: int) -> bool:
    return any(images == bitmap(*some) for some in _subsets() if ordinal in some)


def _subsets() -> list[tuple[int, ...]]:
    return [tuple(one for one in ORDINALS if number >> one & 1) for number in range(1, 2 ** len(ORDINALS))]


def assert_follows_state_machine(result: Any, job: str, commits: Sequence[RecordedCommit]) -> None:
    """Compares with the state machine of `contracts.jobs`, and with queue positions counted here."""
    work = {
        one: jobs.fold(
            (event, recorded.sequence)
            for recorded in commits
            if recorded.commit.aggregate_id == one
            for event in recorded.commit.events
        )
        for one in JOBS
    }
    if work[job].state in ("absent", "removed"):
        assert isinstance(result, NotFound if work[job].state == "absent" else Gone)
        return
    assert (result.phase, result.priority, result.step) == (
        work[job].state,
        work[job].priority,
        work[job].completed_units,
    )
    order = ("high", "normal", "low")
    queue = sorted((order.index(w.priority), w.dispatch, one) for one, w in work.items() if w.state == "queued")
    positions = {one: number for number, (_, _, one) in enumerate(queue, start=1)}
    assert result.position == positions.get(job)


# --- edge cases


@pytest.fixture
async def queries(tmp_path: Path) -> Any:
    async with open_queries(tmp_path) as queries:
        create_keys(tmp_path, IMAGES)
        await queries.load(full_history())
        yield queries


async def test_a_query_at_the_last_sequence_equals_one_about_now(queries: QuerySide) -> None:
    last = full_history().sequence
    for query in QUERIES:
        now = await result_of(queries, query)
        assert comparable(now) == comparable(await result_of(queries, msgspec.structs.replace(query, at_seq=last)))


async def test_a_sequence_after_the_end_of_the_log_is_rejected_with_the_last_one(queries: QuerySide) -> None:
    last = full_history().sequence
    with pytest.raises(Rejected) as caught:
        await queries.run(GetJob(job=JobId("job_1"), at_seq=last + 1))
    assert caught.value.extra == {"head": last}


async def test_a_sequence_and_a_time_together_are_rejected(queries: QuerySide) -> None:
    at_time = full_history().commits[3].recorded_at
    with pytest.raises(Invalid, match="both say when"):
        await queries.run(GetDataset(dataset="ds_cats", at_seq=1, at_time=at_time))


async def test_an_object_created_later_is_not_found_and_the_error_names_the_sequence(queries: QuerySide) -> None:
    for query in (GetJob(job=JobId("job_1"), at_seq=3), GetDataset(dataset="ds_cats", at_seq=1)):
        with pytest.raises(NotFound, match=f"at sequence {query.at_seq}"):
            await queries.run(query)
    before = full_history().commits[0].recorded_at - timedelta(days=1)
    with pytest.raises(NotFound):
        await queries.run(GetImage(image=image_id("ds_cats", 0), at_time=before))
    with pytest.raises(NotFound):
        await queries.run(GetImage(image=ImageId("img_nobody"), at_seq=3))


async def test_a_text_whose_key_is_gone_stays_sealed_in_past_states_too(tmp_path: Path) -> None:
    builder = build_log([("caption", "ds_cats", 1, "a cat")])
    async with open_queries(tmp_path) as queries:
        await queries.load(builder)
        view = await queries.run(GetImage(image=image_id("ds_cats", 1), at_seq=builder.sequence))
        assert (view.name, view.caption, view.caption_source) == ("", "", "person")


async def test_an_erased_image_is_gone_now_and_its_past_state_has_no_private_text(tmp_path: Path) -> None:
    builder = build_log([("caption", "ds_cats", 1, "a cat")])
    before = builder.sequence
    image = image_id("ds_cats", 1)
    builder.append("dataset", "ds_cats", ImageErased(ordinal=1, image_id=image))
    async with open_queries(tmp_path) as queries:
        await queries.load(builder)
        for query in (GetImage(image=image), GetImage(image=image, at_seq=builder.sequence)):
            with pytest.raises(Gone):
                await queries.run(query)
        view = await queries.run(GetImage(image=image, at_seq=before))
        assert [tag.tag for tag in view.tags] == ["cat"]
        assert (view.name, view.caption) == ("", "")
        history = (await queries.run(ListImageHistory(image=image))).items
        assert [entry.type for entry in history][-2:] == ["dataset.caption_set", "dataset.image_erased"]
        assert history[-2].change["caption"] is None


async def test_a_replay_of_too_many_commits_is_rejected(queries: QuerySide) -> None:
    queries.limit(QueryLimits(replayed_commits=3))
    with pytest.raises(Rejected, match="more than 3 commits"):
        await queries.run(GetDataset(dataset="ds_cats", at_seq=full_history().sequence))


async def test_too_many_queued_historical_queries_are_rejected(queries: QuerySide) -> None:
    queries.limit(QueryLimits(concurrent_replays=0, queued_replays=0))
    with pytest.raises(Unavailable):
        await queries.run(GetDataset(dataset="ds_cats", at_seq=9))
    await queries.run(GetDataset(dataset="ds_cats"))
