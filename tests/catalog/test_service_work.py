"""Versions, jobs, tagging runs and presets: what is asked, decided and queued."""

import asyncio

import msgspec
import pytest

from catalog.domain import manifest
from catalog.keys import CAPTION, opened
from catalog.service.versions import Versions
from catalog.views import versions
from contracts.commands import (
    CancelJob,
    CancelTagging,
    CreateJob,
    EditJob,
    EditTags,
    FreezeVersion,
    Receipt,
    RemoveImage,
    RemoveJob,
    RequestTagging,
    RetirePreset,
    SavePreset,
    SetCaption,
    StartJob,
)
from contracts.errors import IllegalTransition, NotFound, Rejected
from contracts.events import (
    ImagePredictions,
    JobAttemptStarted,
    JobCreated,
    JobFailed,
    JobQueued,
    JobSucceeded,
    TaggingAttemptStarted,
    TaggingPredicted,
    TaggingRequested,
    ThresholdsSet,
    VersionFrozen,
)
from contracts.ids import JobId, RunId, WorkerId
from contracts.recipe import AdamW, Recipe
from contracts.wire.log import EventLog, draw_up
from contracts.wire.queue import WorkQueue
from tests.catalog.house import House, Overtaken, kinds, of_image
from tests.conftest import origin

STARTED = JobAttemptStarted(worker=WorkerId("w1"), boot="b", resumes=0)


async def captions(house: House, dataset: str, number: int) -> dict[int, str]:
    """What the trainer would read, by ordinal."""
    row = await house.desk.store.read(lambda connection: versions.find(connection, dataset, number))
    assert row is not None
    lines = manifest.decode(await house.blobs.get(row.manifest))
    keys = await house.keys.keys_of([line.image for line in lines])
    return {line.ordinal: opened(keys, line.image, line.caption, CAPTION) for line in lines}


async def only(house: House, job: str) -> JobCreated:
    (created,) = [fact for fact in await house.facts("job", job) if isinstance(fact, JobCreated)]
    return created


async def waiting(house: House, work: str = "train") -> set[str]:
    return await WorkQueue(house.bus, work).waiting()  # type: ignore[arg-type]


# --- versions


async def test_the_same_content_is_the_same_version(house: House) -> None:
    cats = await house.dataset(pictures=3)
    await house.tell(EditTags(image=of_image(cats, 0), add=("long_hair", "cat")))
    await house.tell(SetCaption(image=of_image(cats, 1), caption="a cat asleep"))
    await house.tell(RemoveImage(image=of_image(cats, 2)))
    first = await house.tell(FreezeVersion(dataset="cats"))
    again = await house.tell(FreezeVersion(dataset="cats"))
    assert (first.version, first.changed, again.version, again.changed) == (1, True, 1, False)
    assert first.id == again.id
    assert await captions(house, cats, 1) == {0: "long hair, cat", 1: "a cat asleep"}
    await house.tell(EditTags(image=of_image(cats, 0), add=("x",)))
    assert (await house.tell(FreezeVersion(dataset="cats"))).version == 2
    await house.tell(EditTags(image=of_image(cats, 0), remove=("x",)))
    await house.tell(FreezeVersion(dataset="cats"))
    frozen = [fact for fact in await house.facts("dataset", cats) if isinstance(fact, VersionFrozen)]
    # Put back by hand, it is the same manifest bit for bit; and it was computed at the fact just before it.
    assert frozen[0].manifest == frozen[2].manifest != frozen[1].manifest
    history = await EventLog(house.bus).load("dataset", cats)
    places = [stored.sequence for stored in history.commits if isinstance(stored.commit.facts[0], VersionFrozen)]
    assert [fact.as_of for fact in frozen] == [place - 1 for place in places]


async def test_a_trigger_stands_in_front_once(house: House) -> None:
    cats = await house.dataset(pictures=4)
    await house.tell(EditTags(image=of_image(cats, 0), add=("sks", "grass")))
    await house.tell(EditTags(image=of_image(cats, 1), add=("sks_ears",)))
    await house.tell(SetCaption(image=of_image(cats, 2), caption="a photo of sks, asleep"))
    frozen = await house.tell(FreezeVersion(dataset="cats", trigger=" sks "))
    assert await captions(house, cats, frozen.version or 0) == {
        0: "sks, grass",
        1: "sks, sks ears",
        2: "a photo of sks, asleep",
        3: "sks",
    }
    assert not (await house.tell(FreezeVersion(dataset="cats", trigger="sks"))).changed
    assert (await house.tell(FreezeVersion(dataset="cats"))).version == 2


async def test_an_empty_data_set_cannot_be_frozen_trained_on_or_tagged(house: House) -> None:
    cats = await house.dataset(pictures=1)
    await house.tell(RemoveImage(image=of_image(cats, 0)))
    for wish in (FreezeVersion(dataset="cats"), CreateJob(dataset="cats"), RequestTagging(dataset="cats")):
        with pytest.raises(Rejected, match="empty"):
            await house.tell(wish)


# --- jobs


async def test_a_job_carries_its_version_and_its_resolved_recipe(house: House) -> None:
    cats = await house.dataset(pictures=1)
    made = await house.tell(
        CreateJob(dataset="cats", preset="stand-in-demo", changes={"optimizer.lr": 0.5}, trigger="sks", start=True)
    )
    assert (made.status, made.version, made.name) == ("pending", 1, "cats")
    created = await only(house, made.id)
    assert isinstance(created.recipe.optimizer, AdamW)
    assert (created.recipe.optimizer.lr, created.recipe.length.count) == (0.5, 200)
    assert (created.dataset_id, created.version, created.trigger, created.images) == (cats, 1, "sks", 1)
    assert await waiting(house) == {made.id}
    another = await house.tell(CreateJob(dataset=cats, version=1))
    assert (await only(house, another.id)).version_id == created.version_id


@pytest.mark.parametrize(
    "wish",
    [
        CreateJob(dataset="cats", preset="nonesuch"),
        CreateJob(dataset="cats", version=7),
        CreateJob(dataset="cats", changes={"optimizer.speed": 1}),
        CreateJob(dataset="cats", changes={"adapter.rank": 0}),
        CreateJob(dataset="cats", preset="quick", recipe=Recipe()),
    ],
)
async def test_a_job_that_cannot_be_is_refused_and_leaves_nothing(house: House, wish: CreateJob) -> None:
    cats = await house.dataset(pictures=1)
    with pytest.raises(Rejected):
        await house.tell(wish)
    assert kinds(await house.facts("dataset", cats)) == ["DatasetCreated", "ImageAdded"]
    with pytest.raises(NotFound):
        await house.tell(CreateJob(dataset="nowhere"))


async def test_a_job_and_the_version_it_freezes_are_stored_together(house: House) -> None:
    cats = await house.dataset(pictures=1)
    house.desk.log = log = Overtaken(house, ThresholdsSet(general=0.5, character=0.5))
    made = await house.tell(CreateJob(dataset="cats", start=True), "c1", "f")
    assert await house.tell(CreateJob(dataset="cats", start=True), "c1", "f") == made
    history, job = await log.load("dataset", cats), await log.load("job", made.id)
    frozen = [stored for stored in history.commits if kinds(stored.commit.facts) == ["VersionFrozen"]]
    assert kinds(history.commits[-2].commit.facts) == ["ThresholdsSet"]
    assert [stored.sequence for stored in (*frozen, *job.commits)] == [made.sequence - 1, made.sequence]
    assert kinds(job.commits[0].commit.facts) == ["JobCreated", "JobQueued"]


async def test_a_version_that_was_stored_without_its_job_gets_it(house: House) -> None:
    cats = await house.dataset(pictures=1)
    wish = CreateJob(dataset="cats", start=True)
    asked = origin("c1", actor="ann", fingerprint="f")
    version = await Versions(house.desk, house.keys, house.blobs).draw_up("cats", "", asked)
    assert version.change is not None
    half = draw_up("dataset", cats, version.change.facts, after=version.change.after, origin=asked)
    stored = await house.desk.log.append(half, version.change.after)
    await house.desk.store.wait_for(stored.sequence, 5)
    # Meanwhile the data set goes on; the job still gets what stood there when it was asked for.
    await house.tell(EditTags(image=of_image(cats, 0), add=("late",)))
    made = await house.tell(wish, "c1", "f")
    assert await house.tell(wish, "c1", "f") == made
    assert kinds(await house.facts("dataset", cats)).count("VersionFrozen") == 1
    assert (await only(house, made.id)).version == made.version == 1
    assert await captions(house, cats, 1) == {0: ""}


async def started(house: House, **changes: object) -> Receipt:
    return await house.tell(CreateJob(dataset="cats", start=True, **changes))  # type: ignore[arg-type]


async def test_a_job_is_started_once(house: House) -> None:
    await house.dataset(pictures=1)
    made = await house.tell(CreateJob(dataset="cats"))
    assert await waiting(house) == set()
    first, second = await house.tell(StartJob(job=JobId(made.id))), await house.tell(StartJob(job=JobId(made.id)))
    assert (first.changed, second.changed) == (True, False)
    assert await waiting(house) == {made.id}
    with pytest.raises(NotFound):
        await house.tell(StartJob(job=JobId("job_x")))


async def test_cancelling_in_each_state(house: House) -> None:
    await house.dataset(pictures=1)
    draft = await house.tell(CreateJob(dataset="cats"))
    queued = await started(house)
    running = await started(house)
    attempt = await house.say("job", running.id, STARTED)
    answers = [await house.tell(CancelJob(job=JobId(job.id))) for job in (draft, queued, running)]
    assert [answer.status for answer in answers] == ["cancelled", "cancelled", "running"]
    assert await waiting(house) == {running.id}
    again = [await house.tell(CancelJob(job=JobId(job.id))) for job in (draft, queued, running)]
    assert [answer.changed for answer in again] == [False] * 3
    done, failed = await started(house), await started(house)
    attempt = await house.say("job", done.id, STARTED)
    await house.say("job", done.id, JobSucceeded(attempt=attempt, step=1, artifacts=()))
    attempt = await house.say("job", failed.id, STARTED)
    await house.say("job", failed.id, JobFailed(attempt=attempt, code="x", reason="y"))
    for job in (done, failed):
        with pytest.raises(IllegalTransition):
            await house.tell(CancelJob(job=JobId(job.id)))
        with pytest.raises(IllegalTransition):
            await house.tell(StartJob(job=JobId(job.id)))


async def test_words_of_a_job_can_be_edited_and_a_new_priority_queues_it_anew(house: House) -> None:
    await house.dataset(pictures=1)
    job = JobId((await started(house)).id)
    await house.tell(EditJob(job=job, name="my cat", labels=("nice",)))
    assert not (await house.tell(EditJob(job=job, name="my cat"))).changed
    moved = await house.tell(EditJob(job=job, priority="high"))
    facts = await house.facts("job", job)
    assert kinds(facts) == ["JobCreated", "JobQueued", "JobEdited", "JobPrioritised", "JobQueued"]
    assert facts[-1] == JobQueued(priority="high")
    taken = await WorkQueue(house.bus, "train").take()
    assert taken is not None
    assert (taken.priority, taken.hint.dispatch) == ("high", moved.sequence)
    await house.say("job", job, STARTED)
    await house.tell(EditJob(job=job, priority="low"))
    assert kinds(await house.facts("job", job))[-1] == "JobPrioritised"


async def test_only_what_neither_waits_nor_runs_can_be_removed(house: House) -> None:
    await house.dataset(pictures=1)
    job = JobId((await started(house)).id)
    with pytest.raises(IllegalTransition):
        await house.tell(RemoveJob(job=job))
    await house.tell(CancelJob(job=job))
    removed = await house.tell(RemoveJob(job=job), "c1")
    assert await house.tell(RemoveJob(job=job), "c1") == removed
    with pytest.raises(NotFound):
        await house.tell(RemoveJob(job=job))


# --- tagging runs


async def test_a_tagging_run_is_asked_for_and_cancelled(house: House) -> None:
    cats = await house.dataset(pictures=3)
    await house.tell(RemoveImage(image=of_image(cats, 1)))
    run = await house.tell(RequestTagging(dataset="cats"))
    assert await waiting(house, "tag") == {run.id}
    (asked, _) = await house.facts("tagging", run.id)
    assert isinstance(asked, TaggingRequested)
    assert asked.count == 2
    attempt = await house.say("tagging", run.id, TaggingAttemptStarted(worker=WorkerId("t"), boot="b", resumes=0))
    seen = (ImagePredictions(ordinal=0, predictions=()),)
    await house.say("tagging", run.id, TaggingPredicted(attempt=attempt, images=seen))
    rest = await house.tell(RequestTagging(dataset="cats", only_new=True))
    (asked, _) = await house.facts("tagging", rest.id)
    assert isinstance(asked, TaggingRequested)
    assert asked.count == 1
    assert (await house.tell(CancelTagging(run=RunId(rest.id)))).status == "cancelled"
    assert (await house.tell(CancelTagging(run=RunId(run.id)))).status == "running"
    assert not (await house.tell(CancelTagging(run=RunId(run.id)))).changed
    assert await waiting(house, "tag") == {run.id}
    with pytest.raises(NotFound):
        await house.tell(CancelTagging(run=RunId("run_x")))


# --- presets


async def test_a_preset_is_its_parent_with_changes(house: House) -> None:
    await house.tell(SavePreset(name=" Mine ", parent="quick", changes={"adapter": {"rank": 32}}))
    same = await house.tell(SavePreset(name="Mine", parent="quick", changes={"adapter.rank": 32}))
    assert not same.changed
    await house.tell(SavePreset(name="child", parent="Mine", changes={"seed": 7}))
    await house.dataset(pictures=1)
    recipe = (await only(house, (await house.tell(CreateJob(dataset="cats", preset="child"))).id)).recipe
    assert (recipe.adapter.rank, recipe.adapter.alpha, recipe.length.count, recipe.seed) == (32, 4.0, 300, 7)
    await house.tell(RetirePreset(name="Mine"))
    assert not (await house.tell(RetirePreset(name="Mine"))).changed
    with pytest.raises(Rejected, match="no preset"):
        await house.tell(CreateJob(dataset="cats", preset="Mine"))
    assert (await house.tell(SavePreset(name="Mine"))).changed


async def test_presets_that_cannot_be_are_refused(house: House) -> None:
    for wish in (
        SavePreset(name="Quick"),
        RetirePreset(name="quick"),
        SavePreset(name="prepare"),
        SavePreset(name="a\u0000b"),
        SavePreset(name="x", parent="nonesuch"),
        SavePreset(name="x", changes={"data.batch_size": 0}),
    ):
        with pytest.raises(Rejected):
            await house.tell(wish)
    with pytest.raises(NotFound):
        await house.tell(RetirePreset(name="nonesuch"))


async def test_two_who_save_one_preset_at_once_both_stand_in_its_history(house: House) -> None:
    await asyncio.gather(*(house.tell(SavePreset(name="mine", changes={"seed": seed})) for seed in (1, 2, 3)))
    receipt = await house.tell(SavePreset(name="mine", changes={"seed": 1}))
    facts = await house.facts("preset", receipt.id)
    assert len(facts) in (3, 4)
    assert {msgspec.to_builtins(fact)["recipe"]["seed"] for fact in facts} == {1, 2, 3}
