"""Historical queries: the result for a sequence or a time depends exactly on the events up to it."""

from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.domain import undos
from catalog.domain.edits import voided_commits
from catalog.query_handlers.context import QueryLimits
from catalog.views.batch import BULK
from contracts import jobs
from contracts.aggregates import AnyEvent
from contracts.commits import RecordedCommit
from contracts.errors import Gone, Invalid, LoratoryError, NotFound, Rejected, Unavailable
from contracts.events.base import Category
from contracts.events.datasets import (
    CaptionSet,
    CommitsUndone,
    DatasetRemoved,
    DatasetRenamed,
    ImageAdded,
    ImageErased,
    ImagesRemoved,
    ImagesReviewed,
    MaskSet,
    RepeatsSet,
    RulesSet,
    TagsEdited,
    TagsOrdered,
    ThresholdsSet,
    VersionFrozen,
)
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
from contracts.events.tagging import TaggingRequested
from contracts.filters import Untagged
from contracts.ids import ImageId, JobId, RunId, VersionId, WorkerId
from contracts.queries.base import Page
from contracts.queries.datasets import DatasetView, GetDataset, GetImage, ImageView, ListImages
from contracts.queries.jobs import GetJob
from contracts.queries.log import ListImageHistory
from contracts.sealed import seal
from contracts.sorting import SortBy
from tests.catalog.log_builder import (
    START,
    LogBuilder,
    bitmap,
    digest,
    full_history,
    image_id,
    job_created,
    key_for,
    version_set,
)
from tests.catalog.test_query_handlers import QuerySide, create_keys, open_queries

DATASETS, ORDINALS, JOBS = ("ds_cats", "ds_dogs"), range(3), ("job_1", "job_2", "job_3")
IMAGES = [image_id(dataset, ordinal) for dataset in DATASETS for ordinal in ORDINALS]
TAGS = ("cat", "dog", "sky", "mia")

QUERIES: list[Any] = [
    *(GetDataset(dataset=dataset) for dataset in DATASETS),
    *(GetImage(image=image) for image in IMAGES),
    *(ListImages(dataset=dataset, limit=2) for dataset in DATASETS),
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
        st.tuples(st.just("order"), DATASET, ORDINAL, st.permutations(TAGS)),
        st.tuples(st.just("review"), DATASET, SOME, st.booleans()),
        st.tuples(st.just("repeats"), DATASET, SOME, st.integers(1, 3)),
        st.tuples(st.just("mask"), DATASET, ORDINAL, st.sampled_from([digest("one"), digest("two"), None])),
        st.tuples(st.just("rules"), DATASET, st.lists(TAG, max_size=2, unique=True)),
        st.tuples(st.just("edit all"), DATASET, TAG, st.booleans()),
        st.tuples(st.just("undo"), DATASET, st.integers(0, 12)),
        st.tuples(st.just("undo run"), DATASET, st.integers(0, 3)),
        st.tuples(st.just("freeze"), DATASET),
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
@settings(max_examples=12)
@given(changes=CHANGES)
async def test_for_every_sequence_the_result_is_a_fold_of_the_events_up_to_it(
    tmp_path_factory: pytest.TempPathFactory, changes: list[Any]
) -> None:
    """Compares a query over the whole log with a catalog of only the events so far, without what is erased later."""
    folder = tmp_path_factory.mktemp("past")
    builder = build_log(changes)
    erased = erased_images(builder.commits)
    async with open_queries(folder / "whole") as whole, open_queries(folder / "growing") as growing:
        for name in ("whole", "growing"):
            create_keys(folder / name, IMAGES)
        await whole.load(builder)
        for recorded in builder.commits:
            await growing.archive.append([recorded])
            await growing.store.apply([recorded])
            for number, query in enumerate(QUERIES):
                at_seq = msgspec.structs.replace(query, at_seq=recorded.sequence)
                result, then = await result_of(whole, at_seq), await result_of(growing, query)
                expected = await without_erased(growing, query, then, erased)
                assert comparable(result) == comparable(expected), (recorded.sequence, query)
                assert_etags(result, expected, recorded.sequence)
                if number == recorded.sequence % len(QUERIES):
                    at_time = msgspec.structs.replace(query, at_time=recorded.recorded_at + timedelta(milliseconds=1))
                    assert comparable(result) == comparable(await result_of(whole, at_time))
                if isinstance(query, GetJob):
                    assert_follows_state_machine(result, query.job, builder.commits[: recorded.sequence])


def erased_images(commits: Sequence[RecordedCommit]) -> set[str]:
    events = (event for recorded in commits for event in recorded.commit.events)
    return {event.image_id for event in events if isinstance(event, ImageErased)}


async def without_erased(then: QuerySide, query: Any, result: Any, erased: set[str]) -> Any:
    """What is expected where the catalog of then gave this result: nothing of the images erased since."""
    match result:
        case ImageView(id=image) if image in erased:
            return Gone()
        case DatasetView(id=dataset):
            left = (
                await without_erased(then, query, await all_images(then, ListImages(dataset=dataset)), erased)
            ).items
            return msgspec.structs.replace(
                result,
                images=len(left),
                tagged=sum(bool(view.tags) for view in left),
                captioned=sum(view.caption_source != "tags" for view in left),
                cover=left[0].id if left else None,
            )
        case Page(items=items):
            left = [view for view in items if view.id not in erased]
            return Page(items=tuple(left), total=len(left))
        case _ if isinstance(query, GetImage) and query.image in erased:
            return Gone()
    return result


async def all_images(queries: QuerySide, query: ListImages) -> Page[ImageView]:
    """All pages as one."""
    page = await queries.run(query)
    items, total = list(page.items), page.total
    while page.next is not None:
        page = await queries.run(msgspec.structs.replace(query, cursor=page.next))
        items += page.items
        assert page.total == total
    return Page(items=tuple(items), total=total)


def assert_etags(result: Any, then: Any, sequence: int) -> None:
    """What changed since has no later ETag than the sequence asked for, and none before it was changed last."""
    match result:
        case ImageView() | DatasetView():
            assert then.etag <= result.etag <= sequence
        case Page(items=items):
            for view, before in zip(items, then.items, strict=True):
                assert before.etag <= view.etag <= sequence


async def result_of(queries: QuerySide, query: Any) -> Any:
    try:
        return await (all_images(queries, query) if isinstance(query, ListImages) else queries.run(query))
    except (NotFound, Gone) as error:
        return error


def comparable(result: Any) -> object:
    """Without ETags, and the time of change that goes with them. An error by its code, as its detail is longer."""
    match result:
        case LoratoryError():
            return result.code
        case Page(items=items):
            return [comparable(view) for view in items]
        case DatasetView():
            return msgspec.structs.replace(result, etag=0, changed_at=START)
        case ImageView():
            return msgspec.structs.replace(result, etag=0)
    return result


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


def _was_queued(builder: LogBuilder, job: str) -> bool:
    of_job = (recorded.commit.events for recorded in builder.commits if recorded.commit.aggregate_id == job)
    return any(isinstance(event, JobQueued) for events in of_job for event in events)


def _append(builder: LogBuilder, run: str, attempts: dict[str, int], change: Any) -> None:  # noqa: PLR0912, PLR0915 - one arm for each
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
        case ("edit all", dataset, tag, add):
            names: dict[str, Any] = {"asserted" if add else "rejected": (tag,)}
            builder.append("dataset", dataset, TagsEdited(images=bitmap(*range(BULK + 1)), **names))
        case ("order", dataset, ordinal, tags):
            builder.append("dataset", dataset, TagsOrdered(ordinal=ordinal, tags=tuple(tags)))
        case ("review", dataset, ordinals, reviewed):
            builder.append("dataset", dataset, ImagesReviewed(images=bitmap(*ordinals), reviewed=reviewed))
        case ("repeats", dataset, ordinals, repeats):
            builder.append("dataset", dataset, RepeatsSet(images=bitmap(*ordinals), repeats=repeats))
        case ("mask", dataset, ordinal, mask):
            builder.append("dataset", dataset, MaskSet(ordinal=ordinal, mask=mask))
        case ("rules", dataset, deny):
            builder.append("dataset", dataset, RulesSet(deny=tuple(deny)))
        case ("undo", dataset, back):
            _undo(builder, dataset, back)
        case ("undo run", dataset, back):
            _undo_run(builder, dataset, back)
        case ("freeze", dataset):
            _freeze(builder, dataset)
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
            # What was never queued cannot be started, and has no place of its own in the queue when it is interrupted.
            if not _was_queued(builder, job):
                builder.append("job", job, JobQueued(priority="normal"))
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


def _undo(builder: LogBuilder, dataset: str, back: int) -> None:
    """If it can be undone, one of the last commits of the data set."""
    commits = [recorded for recorded in builder.commits if recorded.commit.aggregate_id == dataset]
    named = commits[-1 - back % len(commits)]
    state = undos.UndoState(commits=[named], voided=dict.fromkeys(_voided(builder, dataset), 1))
    with suppress(LoratoryError):
        builder.append("dataset", dataset, undos.decide(state))


def _undo_run(builder: LogBuilder, dataset: str, back: int) -> None:
    """If it counts, one of the last tagging runs."""
    requested = [
        (RunId(recorded.commit.aggregate_id), event.images)
        for recorded in builder.commits
        for event in recorded.commit.events
        if isinstance(event, TaggingRequested) and event.dataset_id == dataset
    ]
    void = _voided(builder, dataset)
    undone = {run for at, event in _undos(builder, dataset) if at not in void for run in event.runs}
    if requested and (chosen := requested[-1 - back % len(requested)])[0] not in undone:
        builder.append("dataset", dataset, CommitsUndone(runs=(chosen[0],), images=chosen[1]))


def _freeze(builder: LogBuilder, dataset: str) -> None:
    at = builder.sequence
    version = VersionFrozen(
        version=at, version_id=VersionId(f"ver_{at}"), as_of=at, images=1, manifest=digest_of(at), pages=()
    )
    builder.append("dataset", dataset, version)


def _voided(builder: LogBuilder, dataset: str) -> frozenset[int]:
    return voided_commits({at: event.commits for at, event in _undos(builder, dataset)})


def _undos(builder: LogBuilder, dataset: str) -> list[tuple[int, CommitsUndone]]:
    return [
        (recorded.sequence, event)
        for recorded in builder.commits
        for event in recorded.commit.events
        if isinstance(event, CommitsUndone) and recorded.commit.aggregate_id == dataset
    ]


def digest_of(step: int) -> Any:
    return f"{step:064x}"


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


async def test_an_erased_image_is_gone_from_every_past_and_its_history_has_no_private_text(tmp_path: Path) -> None:
    builder = build_log([("caption", "ds_cats", 1, "a cat")])
    before = builder.sequence
    image = image_id("ds_cats", 1)
    builder.append("dataset", "ds_cats", ImageErased(ordinal=1, image_id=image))
    async with open_queries(tmp_path) as queries:
        await queries.load(builder)
        for at_seq in (None, 1, before, builder.sequence):
            with pytest.raises(Gone) as caught:
                await queries.run(GetImage(image=image, at_seq=at_seq))
            assert caught.value.extra["reason"] == "erased"
        assert (await queries.run(GetDataset(dataset="ds_cats", at_seq=before))).images == len(ORDINALS) - 1
        history = (await queries.run(ListImageHistory(image=image))).items
        assert [entry.type for entry in history][-2:] == ["dataset.caption_set", "dataset.image_erased"]
        assert history[-2].change["caption"] is None


async def test_the_past_of_images_is_listed_without_filter_and_of_one_data_set(queries: QuerySide) -> None:
    last = full_history().sequence
    query = ListImages(dataset="ds_cats", at_seq=last)
    others: list[dict[str, Any]] = [{"dataset": None}, {"tag": "cat"}, {"filter": Untagged()}, {"sort": SortBy()}]
    for other in others:
        with pytest.raises(Invalid, match="of one data set, without tag, filter and sort"):
            await queries.run(msgspec.structs.replace(query, **other))


async def test_a_past_that_takes_too_long_is_refused_with_what_to_do(queries: QuerySide) -> None:
    queries.limit(QueryLimits(past_seconds=0))
    added = [
        recorded.sequence
        for recorded in full_history().commits
        if any(isinstance(event, ImageAdded) for event in recorded.commit.events)
    ]
    with pytest.raises(Rejected, match=r"more than 0 seconds, with 2 left to do; ask for a later") as caught:
        await queries.run(GetDataset(dataset="ds_cats", at_seq=added[1]))
    assert (caught.value.extra["reason"], caught.value.extra["left"]) == ("past-too-large", 2)
    with pytest.raises(Rejected, match="takes a replay"):
        await queries.run(GetJob(job=JobId("job_1"), at_seq=full_history().sequence))
    await queries.run(GetDataset(dataset="ds_cats", at_seq=full_history().sequence))  # nothing has changed since


async def test_too_many_queued_historical_queries_are_rejected(queries: QuerySide) -> None:
    queries.limit(QueryLimits(concurrent_pasts=0, queued_pasts=0))
    with pytest.raises(Unavailable):
        await queries.run(GetDataset(dataset="ds_cats", at_seq=9))
    await queries.run(GetDataset(dataset="ds_cats"))
    await queries.run(ListImages(dataset="ds_cats", at_seq=20))  # as long as a page of now
