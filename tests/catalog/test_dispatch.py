"""The dispatcher on a real queue: messages that the queue lost are sent again from the log."""

import asyncio

import pytest

from catalog import dispatch
from catalog.dispatch import Dispatcher
from contracts import subjects
from contracts.commands import CancelJob, CreateJob, RequestTagging
from contracts.events import JobAttemptStarted, JobCancelled
from contracts.ids import JobId, WorkerId
from contracts.jobs import fold
from contracts.subjects import WorkClass
from contracts.telemetry import Presence
from contracts.wire.lease import LeaseLost
from contracts.wire.log import EventLog, build_commit
from contracts.wire.queue import QueueMessage, WorkQueue
from contracts.wire.streams import CONSUMERS
from tests.catalog.harness import CatalogHarness
from tests.conftest import LEASE, NOW, BusOf, command_metadata
from tests.limits import WAIT


async def wait_for_queue(harness: CatalogHarness, work_class: WorkClass, expected: set[str]) -> None:
    async with asyncio.timeout(WAIT):
        while await WorkQueue(harness.bus, work_class).queued_ids() != expected:  # noqa: ASYNC110 - a queue does not notify
            await asyncio.sleep(0.05)


async def test_lost_queue_messages_are_resent(harness: CatalogHarness) -> None:
    await harness.dataset(pictures=1)
    lost = await harness.execute(CreateJob(dataset="cats", start=True))
    low = await harness.execute(CreateJob(dataset="cats", start=True, priority="low"))
    run = await harness.execute(RequestTagging(dataset="cats"))
    await harness.execute(CreateJob(dataset="cats"))
    await WorkQueue(harness.bus, "train").remove(lost.id)
    await harness.bus.jetstream().purge_stream(subjects.QUEUE, subject=subjects.queued("tag", "normal", run.id))
    running = asyncio.create_task(harness.dispatcher.run())
    try:
        await wait_for_queue(harness, "train", {lost.id, low.id})
        await wait_for_queue(harness, "tag", {run.id})
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    first = await WorkQueue(harness.bus, "train").fetch()
    assert first is not None
    assert (first.message, first.priority) == (QueueMessage(id=lost.id, dispatch=lost.sequence), "normal")


async def test_a_deleted_queue_is_recreated_with_all_queued_jobs(harness: CatalogHarness, bus_of: BusOf) -> None:
    await harness.dataset(pictures=1)
    job = await harness.execute(CreateJob(dataset="cats", start=True))
    admin = (await bus_of("admin")).jetstream()
    await admin.delete_stream(subjects.QUEUE)
    await harness.dispatcher._reconcile("train", listening_since=0)
    first = await WorkQueue(harness.bus, "train").fetch()
    assert first is not None
    assert first.message == QueueMessage(id=job.id, dispatch=job.sequence)

    await admin.delete_consumer(subjects.QUEUE, subjects.queue_consumer("tag", "low"))
    await harness.dispatcher._reconcile("train", listening_since=0)
    assert (await admin.stream_info(subjects.QUEUE)).state.consumer_count == len(CONSUMERS)


async def test_the_message_of_a_held_job_is_resent_only_when_its_worker_falls_silent(
    harness: CatalogHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fenced worker's late ack removed the message; a new one would go to the next free worker."""
    await harness.dataset(pictures=1)
    job = await harness.execute(CreateJob(dataset="cats", start=True))
    started = JobAttemptStarted(worker=WorkerId("w1"), boot="b", resumes=0)
    await harness.append("job", job.id, started)
    queue = WorkQueue(harness.bus, "train")
    await queue.remove(job.id)
    presence = Presence(service="trainer", worker=WorkerId("w1"), state="busy", at=NOW, holds=job.id)
    await harness.dispatcher._record_presence(presence)
    await harness.dispatcher._reconcile("train", listening_since=0)
    assert await queue.queued_ids() == set()

    monkeypatch.setattr(dispatch, "PRESENCE_TIMEOUT_SECONDS", 0.0)
    await harness.dispatcher._reconcile("train", listening_since=0)
    assert await queue.queued_ids() == {job.id}


async def test_a_catalog_that_lost_the_lease_dispatches_nothing(harness: CatalogHarness) -> None:
    await harness.dataset(pictures=1)
    job = await harness.execute(CreateJob(dataset="cats", start=True))
    await WorkQueue(harness.bus, "train").remove(job.id)
    fence_checked = asyncio.Event()

    def lose_lease() -> None:
        fence_checked.set()
        raise LeaseLost

    fenced = Dispatcher(harness.bus, harness.executor.store, EventLog(harness.bus, lose_lease), lease=LEASE)
    running = asyncio.create_task(fenced.run())
    await fence_checked.wait()
    await harness.bus.flush()
    assert await WorkQueue(harness.bus, "train").queued_ids() == set()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_cancelled_job_has_no_message_and_none_is_resent(harness: CatalogHarness) -> None:
    await harness.dataset(pictures=1)
    job = await harness.execute(CreateJob(dataset="cats", start=True))
    await harness.execute(CancelJob(job=JobId(job.id)))
    assert await WorkQueue(harness.bus, "train").queued_ids() == set()
    await harness.dispatcher._reconcile("train", listening_since=0)
    assert await WorkQueue(harness.bus, "train").queued_ids() == set()


async def test_a_cancel_without_a_responding_worker_ends_the_job(harness: CatalogHarness) -> None:
    await harness.dataset(pictures=1)
    job = await harness.execute(CreateJob(dataset="cats", start=True))
    log = EventLog(harness.bus)
    revision = (await log.load("job", job.id)).revision
    started = JobAttemptStarted(worker=WorkerId("dead"), boot="b", resumes=0)
    attempt = await log.append(
        build_commit("job", job.id, [started], expected_revision=revision, metadata=command_metadata()), revision
    )
    await harness.execute(CancelJob(job=JobId(job.id)))

    await harness.dispatcher._reconcile("train", listening_since=0)
    assert fold((await log.load("job", job.id)).events()).state == "cancelling"
    await Dispatcher(harness.bus, harness.executor.store, log, lease=LEASE, cancel_timeout=0)._reconcile(
        "train", listening_since=0
    )

    history = await log.load("job", job.id)
    assert history.events()[-1][0] == JobCancelled(attempt=attempt.sequence)
    assert await WorkQueue(harness.bus, "train").queued_ids() == set()
