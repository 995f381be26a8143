"""The dispatcher on a real queue: messages that the queue lost are sent again from the log."""

import asyncio

from catalog.dispatch import Dispatcher, DispatchTiming
from contracts import subjects
from contracts.commands.jobs import CancelJob, CreateJob
from contracts.commands.tagging import RequestTagging
from contracts.commits import build_commit
from contracts.events.jobs import JobAttemptStarted, JobCancelled
from contracts.ids import JobId, WorkerId
from contracts.jobs import fold
from contracts.subjects import WorkClass
from contracts.telemetry import Presence
from contracts.wire.log.event_log import EventLog
from contracts.wire.log.lease import LeaseLost
from contracts.wire.log.streams import CONSUMERS
from contracts.wire.workers.queue import QueueMessage, WorkQueue
from tests.catalog.harness import CatalogHarness
from tests.conftest import NOW, BusOf, command_metadata
from tests.limits import WAIT


async def wait_for_queue(harness: CatalogHarness, work_class: WorkClass, expected: set[str]) -> None:
    async with asyncio.timeout(WAIT):
        while await WorkQueue(harness.bus, work_class).queued_ids() != expected:  # noqa: ASYNC110 - a queue does not notify
            await asyncio.sleep(0.05)


def dispatcher_with(harness: CatalogHarness, timing: DispatchTiming) -> Dispatcher:
    return Dispatcher(harness.bus, harness.executor.store, EventLog(harness.bus), timing)


async def test_lost_queue_messages_are_resent(harness: CatalogHarness) -> None:
    await harness.dataset(pictures=1)
    lost = await harness.execute(CreateJob(dataset="cats", start=True))
    low = await harness.execute(CreateJob(dataset="cats", start=True, priority="low"))
    run = await harness.execute(RequestTagging(dataset="cats"))
    await harness.execute(CreateJob(dataset="cats"))
    await WorkQueue(harness.bus, "train").remove(lost.id)
    await harness.bus.jetstream().purge_stream(subjects.QUEUE, subject=subjects.queued("tag", "normal", run.id))
    running = asyncio.create_task(harness.catalog.dispatcher.run())
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
    await harness.catalog.dispatcher.reconcile("train")
    first = await WorkQueue(harness.bus, "train").fetch()
    assert first is not None
    assert first.message == QueueMessage(id=job.id, dispatch=job.sequence)

    await admin.delete_consumer(subjects.QUEUE, subjects.queue_consumer("tag", "low"))
    await harness.catalog.dispatcher.reconcile("train")
    assert (await admin.stream_info(subjects.QUEUE)).state.consumer_count == len(CONSUMERS)


async def test_the_message_of_a_held_job_is_resent_only_when_its_worker_falls_silent(harness: CatalogHarness) -> None:
    """A fenced worker's late ack removed the message; a new one would go to the next free worker."""
    await harness.dataset(pictures=1)
    job = await harness.execute(CreateJob(dataset="cats", start=True))
    started = JobAttemptStarted(worker=WorkerId("w1"), boot="b", resumes=0)
    await harness.append("job", job.id, started)
    queue = WorkQueue(harness.bus, "train")
    await queue.remove(job.id)
    presence = Presence(service="trainer", worker=WorkerId("w1"), state="busy", at=NOW, holds=job.id)
    await harness.catalog.dispatcher.record_presence(presence)
    await harness.catalog.dispatcher.reconcile("train")
    assert await queue.queued_ids() == set()

    await dispatcher_with(harness, DispatchTiming(presence_timeout=0)).reconcile("train")
    assert await queue.queued_ids() == {job.id}


async def test_a_catalog_that_lost_the_lease_dispatches_nothing(harness: CatalogHarness) -> None:
    await harness.dataset(pictures=1)
    job = await harness.execute(CreateJob(dataset="cats", start=True))
    await WorkQueue(harness.bus, "train").remove(job.id)
    fence_checked = asyncio.Event()

    def lose_lease() -> None:
        fence_checked.set()
        raise LeaseLost

    log = EventLog(harness.bus, lose_lease)
    fenced = Dispatcher(harness.bus, harness.executor.store, log, DispatchTiming())
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
    await harness.catalog.dispatcher.reconcile("train")
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

    await harness.catalog.dispatcher.reconcile("train")
    assert fold((await log.load("job", job.id)).events()).state == "cancelling"
    await dispatcher_with(harness, DispatchTiming(cancel_timeout=0)).reconcile("train")

    history = await log.load("job", job.id)
    assert history.events()[-1][0] == JobCancelled(attempt=attempt.sequence)
    assert await WorkQueue(harness.bus, "train").queued_ids() == set()
