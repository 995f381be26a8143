"""Things as they were: what is answered for a sequence or a time is what the facts up to there say, and no more."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.answers import past
from catalog.domain.standing import DEFAULTS
from contracts import events as e
from contracts import jobs
from contracts.errors import Gone, Invalid, LoratoryError, NotFound, Rejected, Unavailable
from contracts.events import Stored
from contracts.ids import DatasetId, ImageId, JobId, WorkerId
from contracts.queries import GetDataset, GetImage, GetJob, ImageView, ListImageHistory, QueryAt
from contracts.sealed import seal
from tests.catalog.histories import Scribe, bitmap, everything, image_id, job_created, key_for
from tests.catalog.test_answers import Asked, give_keys

SETS, ORDINALS, JOBS = ("ds_cats", "ds_dogs"), range(3), ("job_1", "job_2", "job_3")
IMAGES = [image_id(dataset, ordinal) for dataset in SETS for ordinal in ORDINALS]
TAGS = ("cat", "dog", "sky", "mia")

QUESTIONS: list[QueryAt[Any]] = [
    *(GetDataset(dataset=dataset) for dataset in SETS),
    *(GetImage(image=image) for image in IMAGES),
    *(GetJob(job=JobId(job)) for job in JOBS),
]

ORDINAL = st.sampled_from(list(ORDINALS))
SOME = st.lists(ORDINAL, min_size=1, max_size=3, unique=True)
TAG = st.sampled_from(TAGS)
SET = st.sampled_from(SETS)
JOB = st.sampled_from(JOBS)
CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("edit"), SET, SOME, st.lists(TAG, max_size=2), st.lists(TAG, max_size=2)),
        st.tuples(st.just("see"), SET, SOME, TAG, st.floats(0, 1), st.sampled_from(["wd", "other"])),
        st.tuples(st.just("thresholds"), SET, st.floats(0.1, 0.9), st.floats(0.1, 0.9)),
        st.tuples(st.just("caption"), SET, ORDINAL, st.sampled_from([None, "a cat", "another cat"])),
        st.tuples(st.just("rename"), SET),
        st.tuples(st.just("drop"), SET, ORDINAL),
        st.tuples(st.just("remove"), SET),
        st.tuples(st.just("erase"), SET, ORDINAL),
        st.tuples(st.just("queue"), JOB, st.sampled_from(["high", "normal", "low"])),
        st.tuples(st.just("edit job"), JOB),
        st.tuples(st.just("start"), JOB),
        st.tuples(st.just("keep"), JOB, st.integers(1, 20)),
        st.tuples(st.just("stop"), JOB),
        st.tuples(st.just("end"), JOB, st.sampled_from(["succeeded", "cancelled", "failed", "removed"])),
    ),
    min_size=6,
    max_size=16,
)


@settings(max_examples=6, deadline=None)
@given(changes=CHANGES)
async def test_for_every_sequence_the_answer_is_a_fold_of_the_events_up_to_it(
    tmp_path_factory: pytest.TempPathFactory, changes: list[Any]
) -> None:
    """Three ways to say how it was: asked of the whole history, by a catalog that never saw more, and worked out."""
    folder = tmp_path_factory.mktemp("past")
    scribe = recorded(changes)
    whole, then = Asked(folder / "whole"), Asked(folder / "then")
    for asked in (whole, then):
        give_keys(folder / ("whole" if asked is whole else "then"), IMAGES)
    await whole.learn(scribe)
    for stored in scribe.commits:
        await then.archive.append([stored])
        await then.store.apply([stored])
        sofar = scribe.commits[: stored.sequence]
        for number, query in enumerate(QUESTIONS):
            was = await answer(whole, msgspec.structs.replace(query, at_seq=stored.sequence))
            assert told(was) == told(await answer(then, query)), (stored.sequence, query)
            if number == stored.sequence % len(QUESTIONS):
                at_time = msgspec.structs.replace(query, at_time=stored.recorded + timedelta(milliseconds=1))
                assert told(was) == told(await answer(whole, at_time))
            if isinstance(was, ImageView):
                assert {tag.tag for tag in was.tags} == tags_by_hand(sofar, was.dataset_id, was.ordinal)
            if isinstance(query, GetJob):
                follows_the_rules(was, query.job, sofar)
    await whole.close()
    await then.close()


async def answer(asked: Asked, query: QueryAt[Any]) -> Any:
    try:
        return await asked.ask(query)
    except (NotFound, Gone) as error:
        return error


def told(was: Any) -> bytes:
    """A refusal by its code: that of the past says more in words."""
    return was.code.encode() if isinstance(was, LoratoryError) else msgspec.json.encode(was)


def recorded(changes: Sequence[Any]) -> Scribe:
    scribe = Scribe()
    for dataset in SETS:
        scribe.dataset(dataset, dataset)
        for ordinal in ORDINALS:
            scribe.image(ordinal, dataset, tags=["cat"] if ordinal else [])
    for job in JOBS:
        scribe.write("job", job, job_created(name=job))
    attempts: defaultdict[str, int] = defaultdict(int)
    for number, change in enumerate(changes):
        _write(scribe, f"run_{number}", attempts, change)
    return scribe


def _write(scribe: Scribe, run: str, attempts: dict[str, int], change: Any) -> None:  # noqa: PLR0912 - one arm for each
    match change:
        case ("edit", dataset, ordinals, add, remove) if {*add} ^ {*remove}:
            scribe.edit(*ordinals, add=sorted({*add} - {*remove}), remove=sorted({*remove} - {*add}), dataset=dataset)
        case ("see", dataset, ordinals, tag, probability, model):
            attempt = scribe.run(run, *ordinals, model=model, dataset=dataset)
            category = "character" if tag == "mia" else "general"
            for ordinal in ordinals:
                scribe.see(run, attempt, ordinal, (tag, round(probability, 4), category))
        case ("thresholds", dataset, general, character):
            scribe.write("dataset", dataset, e.ThresholdsSet(general=general, character=character))
        case ("caption", dataset, ordinal, text):
            caption = None if text is None else seal(key_for(image_id(dataset, ordinal)), text, "caption")
            scribe.write("dataset", dataset, e.CaptionSet(ordinal=ordinal, caption=caption))
        case ("rename", dataset):
            scribe.write("dataset", dataset, e.DatasetRenamed(name=f"name {scribe.sequence}"))
        case ("drop", dataset, ordinal):
            scribe.write("dataset", dataset, e.ImagesRemoved(images=bitmap(ordinal)))
        case ("erase", dataset, ordinal):
            erased = e.ImageErased(ordinal=ordinal, image_id=image_id(dataset, ordinal))
            scribe.write("dataset", dataset, erased)
        case ("remove", dataset):
            scribe.write("dataset", dataset, e.DatasetRemoved())
        case ("queue", job, priority):
            scribe.write("job", job, e.JobQueued(priority=priority))
        case ("edit job", job):
            scribe.write("job", job, e.JobEdited(name=f"name {scribe.sequence}"), e.JobPrioritised(priority="high"))
        case ("start", job):
            started = e.JobAttemptStarted(worker=WorkerId("w1"), boot="b", resumes=0)
            attempts[job] = scribe.write("job", job, started).sequence
        case ("keep", job, step):
            kept = e.JobCheckpointed(attempt=attempts[job], step=step, checkpoint=image_digest(step), size=step)
            scribe.write("job", job, kept)
        case ("stop", job):
            scribe.write("job", job, e.JobInterrupted(attempt=attempts[job], step=0, reason="a polite stop"))
        case ("end", job, how):
            ends: dict[str, e.AnyFact] = {
                "succeeded": e.JobSucceeded(attempt=attempts[job], step=20, artifacts=()),
                "cancelled": e.JobCancelled(attempt=attempts[job]),
                "failed": e.JobFailed(attempt=attempts[job], code="no-base", reason="there is none"),
                "removed": e.JobRemoved(),
            }
            scribe.write("job", job, ends[how])


def image_digest(step: int) -> Any:
    return f"{step:064x}"


def tags_by_hand(commits: Sequence[Stored], dataset: DatasetId, ordinal: int) -> set[str]:
    """What people decided last, else what the newest run of a model is sure enough of; nothing of ours but the facts.

    Each run here sees one tag in an image, so the surest model decides.
    """
    decided: dict[str, bool] = {}
    models: dict[str, str] = {}
    seen: dict[str, tuple[str, float]] = {}
    bars: dict[str, float] = {**DEFAULTS}
    for stored in commits:
        thing = stored.commit.thing
        for fact in stored.commit.facts:
            match fact:
                case e.TaggingRequested(dataset_id=of, model=model) if of == dataset:
                    models[thing] = model
                case e.TaggingPredicted(images=images) if thing in models:
                    for image in images:
                        if image.ordinal == ordinal:
                            (one,) = image.predictions
                            seen[models[thing]] = (one.tag, one.probability)
                case e.TagsEdited(images=images) if thing == dataset and images_hold(images, ordinal):
                    decided |= dict.fromkeys(fact.asserted, True) | dict.fromkeys(fact.rejected, False)
                case e.ThresholdsSet() if thing == dataset:
                    bars = {"general": fact.general, "character": fact.character}
                case _:
                    pass
    sure = {tag for tag, p in seen.values() if p > bars["character" if tag == "mia" else "general"]}
    return {tag for tag, holds in decided.items() if holds} | (sure - decided.keys())


def images_hold(images: bytes, ordinal: int) -> bool:
    return any(images == bitmap(*some) for some in _subsets() if ordinal in some)


def _subsets() -> list[tuple[int, ...]]:
    return [tuple(one for one in ORDINALS if number >> one & 1) for number in range(1, 2 ** len(ORDINALS))]


def follows_the_rules(was: Any, job: str, commits: Sequence[Stored]) -> None:
    """The machine of `contracts.jobs`, and the line of those that wait, counted out."""
    work = {
        one: jobs.fold(
            (fact, stored.sequence) for stored in commits if stored.commit.thing == one for fact in facts(stored)
        )
        for one in JOBS
    }
    if work[job].state in ("absent", "removed"):
        assert isinstance(was, NotFound if work[job].state == "absent" else Gone)
        return
    assert (was.phase, was.priority, was.step) == (work[job].state, work[job].priority, work[job].kept)
    order = ("high", "normal", "low")
    line = sorted((order.index(w.priority), w.dispatch, one) for one, w in work.items() if w.state == "queued")
    places = {one: number for number, (_, _, one) in enumerate(line, start=1)}
    assert was.position == places.get(job)


def facts(stored: Stored) -> tuple[e.AnyFact, ...]:
    return stored.commit.facts


# --- the edges


@pytest.fixture
async def asked(tmp_path: Path) -> Any:
    asked = Asked(tmp_path)
    give_keys(tmp_path, IMAGES)
    await asked.learn(everything())
    yield asked
    await asked.close()


async def test_now_and_the_head_are_the_same(asked: Asked) -> None:
    head = everything().sequence
    for query in QUESTIONS:
        assert told(await answer(asked, query)) == told(
            await answer(asked, msgspec.structs.replace(query, at_seq=head))
        )


async def test_a_place_the_log_has_not_come_to_is_refused_with_where_it_ends(asked: Asked) -> None:
    head = everything().sequence
    with pytest.raises(Rejected) as caught:
        await asked.ask(GetJob(job=JobId("job_1"), at_seq=head + 1))
    assert caught.value.facts == {"head": head}


async def test_a_sequence_and_a_time_together_are_refused(asked: Asked) -> None:
    at_time = everything().commits[3].recorded
    with pytest.raises(Invalid, match="both say when"):
        await asked.ask(GetDataset(dataset="ds_cats", at_seq=1, at_time=at_time))


async def test_what_was_not_there_yet_is_not_found_and_the_refusal_says_when(asked: Asked) -> None:
    for query in (GetJob(job=JobId("job_1"), at_seq=3), GetDataset(dataset="ds_cats", at_seq=1)):
        with pytest.raises(NotFound, match=f"at sequence {query.at_seq}"):
            await asked.ask(query)
    before = everything().commits[0].recorded - timedelta(days=1)
    with pytest.raises(NotFound):
        await asked.ask(GetImage(image=image_id("ds_cats", 0), at_time=before))
    with pytest.raises(NotFound):
        await asked.ask(GetImage(image=ImageId("img_nobody"), at_seq=3))


async def test_a_text_whose_key_is_gone_stays_shut_also_in_the_past(tmp_path: Path) -> None:
    scribe = recorded([("caption", "ds_cats", 1, "a cat")])
    asked = Asked(tmp_path)
    await asked.learn(scribe)
    view = await asked.ask(GetImage(image=image_id("ds_cats", 1), at_seq=scribe.sequence))
    assert (view.name, view.caption, view.caption_source) == ("", "", "person")
    await asked.close()


async def test_an_erased_image_is_gone_now_and_without_words_as_it_was(tmp_path: Path) -> None:
    scribe = recorded([("caption", "ds_cats", 1, "a cat")])
    before = scribe.sequence
    image = image_id("ds_cats", 1)
    scribe.write("dataset", "ds_cats", e.ImageErased(ordinal=1, image_id=image))
    asked = Asked(tmp_path)
    await asked.learn(scribe)
    for query in (GetImage(image=image), GetImage(image=image, at_seq=scribe.sequence)):
        with pytest.raises(Gone):
            await asked.ask(query)
    view = await asked.ask(GetImage(image=image, at_seq=before))
    assert [tag.tag for tag in view.tags] == ["cat"]
    assert (view.name, view.caption) == ("", "")
    told = (await asked.ask(ListImageHistory(image=image))).items
    assert [one.type for one in told][-2:] == ["dataset.caption_set", "dataset.image_erased"]
    assert told[-2].change["caption"] is None
    await asked.close()


async def test_a_history_too_long_for_one_question_is_refused(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(past, "MOST_COMMITS", 3)
    with pytest.raises(Rejected, match="more than 3 commits"):
        await asked.ask(GetDataset(dataset="ds_cats", at_seq=everything().sequence))


async def test_only_so_many_questions_about_the_past_wait(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(past, "MOST_WAITING", -past.AT_ONCE)
    with pytest.raises(Unavailable):
        await asked.ask(GetDataset(dataset="ds_cats", at_seq=9))
    await asked.ask(GetDataset(dataset="ds_cats"))
