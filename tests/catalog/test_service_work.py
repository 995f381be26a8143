"""Commands on versions, jobs, tagging runs and presets: what is decided, appended and queued."""

import asyncio
from typing import Any

import msgspec
import pytest

from contracts.commands.base import Command
from contracts.commands.datasets import EditTags, FreezeVersion, RemoveImage, SetCaption
from contracts.commands.jobs import CancelJob, CreateJob, EditJob, JobResult, RemoveJob, StartJob
from contracts.commands.presets import RetirePreset, SavePreset
from contracts.commands.tagging import CancelTagging, RequestTagging
from contracts.errors import IllegalTransition, NotFound, Rejected
from contracts.events.datasets import VersionFrozen
from contracts.events.jobs import JobAttemptStarted, JobCreated, JobFailed, JobQueued, JobSucceeded
from contracts.events.tagging import ImagePredictions, TaggingAttemptStarted, TaggingPredicted, TaggingRequested
from contracts.ids import JobId, RunId, WorkerId
from contracts.queries.datasets import GetVersion, ReadManifest
from contracts.recipe import AdamW, Recipe
from contracts.subjects import WorkClass
from contracts.wire.log.event_log import EventLog
from contracts.wire.workers.queue import WorkQueue
from tests.catalog.harness import CatalogHarness, event_names, image_id_of
from tests.catalog.test_watch import query
from tests.conftest import BusOf

STARTED = JobAttemptStarted(worker=WorkerId("w1"), boot="b", resumes=0)


async def captions(harness: CatalogHarness, dataset: str, number: int) -> dict[int, str]:
    """What the trainer would read, by ordinal."""
    version = await query(harness, GetVersion(dataset=dataset, version=number))
    entries = (await query(harness, ReadManifest(version_id=version.version_id))).items
    return {entry.ordinal: entry.caption for entry in entries}


async def created_event(harness: CatalogHarness, job: str) -> JobCreated:
    (created,) = [event for event in await harness.events("job", job) if isinstance(event, JobCreated)]
    return created


async def queued_ids(harness: CatalogHarness, work: WorkClass = "train") -> set[str]:
    return await WorkQueue(harness.bus, work).queued_ids()


# --- versions


async def test_freezing_unchanged_content_returns_the_same_version(harness: CatalogHarness) -> None:
    cats = await harness.dataset(pictures=3)
    await harness.execute(EditTags(image=image_id_of(cats, 0), add=("long_hair", "cat")))
    await harness.execute(SetCaption(image=image_id_of(cats, 1), caption="a cat asleep"))
    await harness.execute(RemoveImage(image=image_id_of(cats, 2)))
    first = await harness.execute(FreezeVersion(dataset="cats"))
    again = await harness.execute(FreezeVersion(dataset="cats"))
    assert (first.version, first.changed, again.version, again.changed) == (1, True, 1, False)
    assert first.id == again.id
    assert await captions(harness, cats, 1) == {0: "long hair, cat", 1: "a cat asleep"}
    await harness.execute(EditTags(image=image_id_of(cats, 0), add=("x",)))
    assert (await harness.execute(FreezeVersion(dataset="cats"))).version == 2
    await harness.execute(EditTags(image=image_id_of(cats, 0), remove=("x",)))
    await harness.execute(FreezeVersion(dataset="cats"))
    versions_frozen = [event for event in await harness.events("dataset", cats) if isinstance(event, VersionFrozen)]
    # After undoing the edit by hand the manifest is the same, bit for bit; `as_of` is the commit just before.
    assert versions_frozen[0].manifest == versions_frozen[2].manifest != versions_frozen[1].manifest
    history = await EventLog(harness.bus).load("dataset", cats)
    sequences = [
        recorded.sequence for recorded in history.commits if isinstance(recorded.commit.events[0], VersionFrozen)
    ]
    assert [event.as_of for event in versions_frozen] == [sequence - 1 for sequence in sequences]


async def test_the_trigger_is_prepended_once(harness: CatalogHarness) -> None:
    cats = await harness.dataset(pictures=4)
    await harness.execute(EditTags(image=image_id_of(cats, 0), add=("sks", "grass")))
    await harness.execute(EditTags(image=image_id_of(cats, 1), add=("sks_ears",)))
    await harness.execute(SetCaption(image=image_id_of(cats, 2), caption="a photo of sks, asleep"))
    frozen = await harness.execute(FreezeVersion(dataset="cats", trigger=" sks "))
    assert await captions(harness, cats, frozen.version or 0) == {
        0: "sks, grass",
        1: "sks, sks ears",
        2: "a photo of sks, asleep",
        3: "sks",
    }
    assert not (await harness.execute(FreezeVersion(dataset="cats", trigger="sks"))).changed
    assert (await harness.execute(FreezeVersion(dataset="cats"))).version == 2


async def test_an_empty_data_set_cannot_be_frozen_trained_on_or_tagged(harness: CatalogHarness) -> None:
    cats = await harness.dataset(pictures=1)
    await harness.execute(RemoveImage(image=image_id_of(cats, 0)))
    commands: list[Command[Any]] = [kind(dataset="cats") for kind in (FreezeVersion, CreateJob)]
    for command in [*commands, RequestTagging(dataset="cats", model="demo")]:
        with pytest.raises(Rejected, match="empty"):
            await harness.execute(command)


# --- jobs


async def test_a_job_records_its_version_and_resolved_recipe(harness: CatalogHarness) -> None:
    cats = await harness.dataset(pictures=1)
    created = await harness.create_job(
        CreateJob(dataset="cats", preset="tiny-random-demo", changes={"optimizer.lr": 0.5}, trigger="sks", start=True)
    )
    assert (created.status, created.version, created.name) == ("pending", None, "cats")
    event, version = await created_event(harness, created.id), await harness.version_of(created.id)
    assert isinstance(event.recipe.optimizer, AdamW)
    assert (event.recipe.optimizer.lr, event.recipe.length.count) == (0.5, 200)
    assert (event.dataset_id, version.version, event.trigger, version.images) == (cats, 1, "sks", 1)
    assert await queued_ids(harness) == {created.id}
    another = await harness.execute(CreateJob(dataset=cats, version=1))
    assert (another.version, (await harness.version_of(another.id)).version_id) == (1, version.version_id)
    assert (await created_event(harness, another.id)).trigger == "sks"


@pytest.mark.parametrize(
    "command",
    [
        CreateJob(dataset="cats", preset="nonesuch"),
        CreateJob(dataset="cats", version=7),
        CreateJob(dataset="cats", changes={"optimizer.speed": 1}),
        CreateJob(dataset="cats", changes={"adapter.rank": 0}),
        CreateJob(dataset="cats", preset="quick", recipe=Recipe()),
    ],
)
async def test_an_invalid_job_is_refused_and_appends_nothing(harness: CatalogHarness, command: CreateJob) -> None:
    cats = await harness.dataset(pictures=1)
    with pytest.raises(Rejected):
        await harness.execute(command)
    assert event_names(await harness.events("dataset", cats)) == ["DatasetCreated", "ImageAdded"]
    with pytest.raises(NotFound):
        await harness.execute(CreateJob(dataset="nowhere"))


async def started(harness: CatalogHarness) -> JobResult:
    return await harness.create_job(CreateJob(dataset="cats", start=True))


async def test_a_job_is_started_once(harness: CatalogHarness) -> None:
    await harness.dataset(pictures=1)
    created = await harness.create_job(CreateJob(dataset="cats"))
    assert await queued_ids(harness) == set()
    first, second = (
        await harness.execute(StartJob(job=JobId(created.id))),
        await harness.execute(StartJob(job=JobId(created.id))),
    )
    assert (first.changed, second.changed) == (True, False)
    assert await queued_ids(harness) == {created.id}
    with pytest.raises(NotFound):
        await harness.execute(StartJob(job=JobId("job_x")))


async def test_cancelling_in_each_state(harness: CatalogHarness) -> None:
    await harness.dataset(pictures=1)
    draft = await harness.create_job(CreateJob(dataset="cats"))
    queued = await started(harness)
    running = await started(harness)
    attempt = await harness.append("job", running.id, STARTED)
    results = [await harness.execute(CancelJob(job=JobId(job.id))) for job in (draft, queued, running)]
    assert [answer.status for answer in results] == ["cancelled", "cancelled", "running"]
    assert await queued_ids(harness) == {running.id}
    again = [await harness.execute(CancelJob(job=JobId(job.id))) for job in (draft, queued, running)]
    assert [answer.changed for answer in again] == [False] * 3
    done, failed = await started(harness), await started(harness)
    attempt = await harness.append("job", done.id, STARTED)
    await harness.append("job", done.id, JobSucceeded(attempt=attempt, step=1, artifacts=()))
    attempt = await harness.append("job", failed.id, STARTED)
    await harness.append("job", failed.id, JobFailed(attempt=attempt, code="x", reason="y"))
    for job in (done, failed):
        with pytest.raises(IllegalTransition):
            await harness.execute(CancelJob(job=JobId(job.id)))
        with pytest.raises(IllegalTransition):
            await harness.execute(StartJob(job=JobId(job.id)))


async def test_a_job_can_be_edited_and_a_new_priority_queues_it_again(harness: CatalogHarness, bus_of: BusOf) -> None:
    await harness.dataset(pictures=1)
    job = JobId((await started(harness)).id)
    await harness.execute(EditJob(job=job, name="my cat", labels=("nice",)))
    assert not (await harness.execute(EditJob(job=job, name="my cat"))).changed
    reprioritised = await harness.execute(EditJob(job=job, priority="high"))
    events = await harness.events("job", job)
    assert event_names(events) == [
        *("JobCreated", "JobStartRequested", "JobVersionSet", "JobQueued"),
        *("JobEdited", "JobPrioritised", "JobQueued"),
    ]
    assert events[-1] == JobQueued(priority="high")
    delivery = await WorkQueue(await bus_of("trainer"), "train").fetch()
    assert delivery is not None
    assert (delivery.priority, delivery.message.dispatch) == ("high", reprioritised.sequence)
    await harness.append("job", job, STARTED)
    await harness.execute(EditJob(job=job, priority="low"))
    assert event_names(await harness.events("job", job))[-1] == "JobPrioritised"


async def test_only_a_job_neither_queued_nor_running_can_be_removed(harness: CatalogHarness) -> None:
    await harness.dataset(pictures=1)
    job = JobId((await started(harness)).id)
    with pytest.raises(IllegalTransition):
        await harness.execute(RemoveJob(job=job))
    await harness.execute(CancelJob(job=job))
    removed = await harness.execute(RemoveJob(job=job), "c1")
    assert await harness.execute(RemoveJob(job=job), "c1") == removed
    with pytest.raises(NotFound):
        await harness.execute(RemoveJob(job=job))


# --- tagging runs


async def test_a_tagging_run_is_requested_and_cancelled(harness: CatalogHarness) -> None:
    cats = await harness.dataset(pictures=3)
    await harness.execute(RemoveImage(image=image_id_of(cats, 1)))
    run = await harness.execute(RequestTagging(dataset="cats", model="demo"))
    assert await queued_ids(harness, "tag") == {run.id}
    (requested, _) = await harness.events("tagging", run.id)
    assert isinstance(requested, TaggingRequested)
    assert requested.count == 2
    attempt = await harness.append("tagging", run.id, TaggingAttemptStarted(worker=WorkerId("t"), boot="b", resumes=0))
    seen = (ImagePredictions(ordinal=0, predictions=()),)
    await harness.append("tagging", run.id, TaggingPredicted(attempt=attempt, images=seen))
    rest = await harness.execute(RequestTagging(dataset="cats", model="demo", only_new=True))
    (requested, _) = await harness.events("tagging", rest.id)
    assert isinstance(requested, TaggingRequested)
    assert requested.count == 1
    assert (await harness.execute(CancelTagging(run=RunId(rest.id)))).status == "cancelled"
    assert (await harness.execute(CancelTagging(run=RunId(run.id)))).status == "running"
    assert not (await harness.execute(CancelTagging(run=RunId(run.id)))).changed
    assert await queued_ids(harness, "tag") == {run.id}
    with pytest.raises(NotFound):
        await harness.execute(CancelTagging(run=RunId("run_x")))


# --- presets


async def test_a_preset_is_its_parent_with_changes(harness: CatalogHarness) -> None:
    await harness.execute(SavePreset(name=" Mine ", parent="quick", changes={"adapter": {"rank": 32}}))
    same = await harness.execute(SavePreset(name="Mine", parent="quick", changes={"adapter.rank": 32}))
    assert not same.changed
    await harness.execute(SavePreset(name="child", parent="Mine", changes={"seed": 7}))
    await harness.dataset(pictures=1)
    recipe = (
        await created_event(harness, (await harness.execute(CreateJob(dataset="cats", preset="child"))).id)
    ).recipe
    assert (recipe.adapter.rank, recipe.adapter.alpha, recipe.length.count, recipe.seed) == (32, 4.0, 300, 7)
    await harness.execute(RetirePreset(name="Mine"))
    assert not (await harness.execute(RetirePreset(name="Mine"))).changed
    with pytest.raises(Rejected, match="no preset"):
        await harness.execute(CreateJob(dataset="cats", preset="Mine"))
    assert (await harness.execute(SavePreset(name="Mine"))).changed


async def test_invalid_presets_are_refused(harness: CatalogHarness) -> None:
    for command in (
        SavePreset(name="Quick"),
        RetirePreset(name="quick"),
        SavePreset(name="prepare"),
        SavePreset(name="a\u0000b"),
        SavePreset(name="x", parent="nonesuch"),
        SavePreset(name="x", changes={"data.batch_size": 0}),
    ):
        with pytest.raises(Rejected):
            await harness.execute(command)
    with pytest.raises(NotFound):
        await harness.execute(RetirePreset(name="nonesuch"))


async def test_concurrent_saves_of_one_preset_are_all_recorded(harness: CatalogHarness) -> None:
    await asyncio.gather(*(harness.execute(SavePreset(name="mine", changes={"seed": seed})) for seed in (1, 2, 3)))
    result = await harness.execute(SavePreset(name="mine", changes={"seed": 1}))
    events = await harness.events("preset", result.id)
    assert len(events) in (3, 4)
    assert {msgspec.to_builtins(event)["recipe"]["seed"] for event in events} == {1, 2, 3}
