"""The dispatcher on a real queue: messages that the queue lost are sent again from the log."""

import asyncio

import pytest

from catalog.cancellations import CancelTiming
from catalog.dispatch import Dispatcher, DispatchTiming
from contracts import subjects
from contracts.aggregates import AnyEvent
from contracts.commands.jobs import CancelJob, CreateJob
from contracts.commands.tagging import RequestTagging
from contracts.errors import Unavailable
from contracts.events.jobs import JobAttemptStarted, JobCancelled, JobCancelRequested, JobInterrupted
from contracts.ids import JobId, WorkerId
from contracts.jobs import fold
from contracts.subjects import WorkClass
from contracts.telemetry import Presence
from contracts.wire.log.event_log import EventLog
from contracts.wire.log.lease import LeaseLost
from contracts.wire.log.migration import MigrateSettings
from contracts.wire.log.queue_watch import check_queue, keep_queue
from contracts.wire.log.streams import CONSUMERS
from contracts.wire.server.embedded import EmbeddedServer
from contracts.wire.service.jetstream import find_stream
from contracts.wire.workers.queue import QueueMessage, WorkQueue
from tests.catalog.harness import CatalogHarness
from tests.conftest import LEASE, NOW, BusOf
from tests.limits import WAIT

UNLIMITED = CancelTiming(silence=WAIT, timeout=WAIT)


async def wait_for_queue(harness: CatalogHarness, work_class: WorkClass, expected: set[str]) -> None:
    async with asyncio.timeout(WAIT):
        while await WorkQueue(harness.bus, work_class).queued_ids() != expected:  # noqa: ASYNC110 - a queue does not notify
            await asyncio.sleep(0.05)


def dispatcher_with(harness: CatalogHarness, timing: DispatchTiming) -> Dispatcher:
    return Dispatcher(harness.bus, harness.executor.store, harness.executor.log, timing)


async def test_lost_queue_messages_are_resent(harness: CatalogHarness, bus_of: BusOf) -> None:
    await harness.dataset(pictures=1)
    lost = await harness.create_job(CreateJob(dataset="cats", start=True))
    low = await harness.create_job(CreateJob(dataset="cats", start=True, priority="low"))
    run = await harness.execute(RequestTagging(dataset="cats", model="demo"))
    await harness.create_job(CreateJob(dataset="cats"))
    await WorkQueue(harness.bus, "train").remove(lost.id)
    await harness.bus.jetstream().purge_stream(subjects.QUEUE, subject=subjects.queued("tag", "normal", run.id))
    running = asyncio.create_task(harness.catalog.dispatcher.run())
    try:
        await wait_for_queue(harness, "train", {lost.id, low.id})
        await wait_for_queue(harness, "tag", {run.id})
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    first = await WorkQueue(await bus_of("trainer"), "train").fetch()
    assert first is not None
    dispatch = (await harness.wait_until_frozen(lost.id)).work.dispatch
    assert (first.message, first.priority) == (QueueMessage(id=lost.id, dispatch=dispatch), "normal")


async def test_a_deleted_queue_is_recreated_with_all_queued_jobs(harness: CatalogHarness, bus_of: BusOf) -> None:
    await harness.dataset(pictures=1)
    job = await harness.create_job(CreateJob(dataset="cats", start=True))
    admin = await bus_of("admin")
    await admin.jetstream().delete_stream(subjects.QUEUE)
    with pytest.raises(Unavailable, match="the job queue does not answer"):
        await harness.catalog.dispatcher.reconcile("train")
    assert await check_queue(admin, LEASE)
    await harness.catalog.dispatcher.reconcile("train")
    first = await WorkQueue(await bus_of("trainer"), "train").fetch()
    assert first is not None
    dispatch = (await harness.wait_until_frozen(job.id)).work.dispatch
    assert first.message == QueueMessage(id=job.id, dispatch=dispatch)

    await admin.jetstream().delete_consumer(subjects.QUEUE, subjects.queue_consumer("tag", "low"))
    assert await check_queue(admin, LEASE)
    assert (await admin.jetstream().stream_info(subjects.QUEUE)).state.consumer_count == len(CONSUMERS)
    assert not await check_queue(admin, LEASE)


async def test_admin_watches_the_queue_also_while_the_server_is_away(server: EmbeddedServer, bus_of: BusOf) -> None:
    admin = await bus_of("admin")
    role, key = server.credentials("admin")
    settings = MigrateSettings(nats_url=server.url, nats_user=role, nats_nkey_file=key.path)
    watching = asyncio.create_task(keep_queue(settings, LEASE, every=0.05))
    try:
        for restarts in (1, 2):
            await admin.jetstream().delete_stream(subjects.QUEUE)
            async with asyncio.timeout(WAIT):
                while await find_stream(admin.jetstream(), subjects.QUEUE) is None:  # noqa: ASYNC110 - made by the task
                    await asyncio.sleep(0.05)
            await server.restart()
            async with asyncio.timeout(WAIT):
                while admin.stats["reconnects"] < restarts or not admin.is_connected:  # noqa: ASYNC110 - nats-py only counts
                    await asyncio.sleep(0.05)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def test_the_message_of_a_held_job_is_resent_only_when_its_worker_falls_silent(harness: CatalogHarness) -> None:
    """A fenced worker's late ack removed the message; a new one would go to the next free worker."""
    await harness.dataset(pictures=1)
    job = await harness.create_job(CreateJob(dataset="cats", start=True))
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
    job = await harness.create_job(CreateJob(dataset="cats", start=True))
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
    job = await harness.create_job(CreateJob(dataset="cats", start=True))
    await harness.execute(CancelJob(job=JobId(job.id)))
    assert await WorkQueue(harness.bus, "train").queued_ids() == set()
    await harness.catalog.dispatcher.reconcile("train")
    assert await WorkQueue(harness.bus, "train").queued_ids() == set()


async def start_attempt(harness: CatalogHarness) -> JobId:
    """A job that a worker started, which since then has said nothing."""
    await harness.dataset(pictures=1)
    job = await harness.create_job(CreateJob(dataset="cats", start=True))
    await harness.append("job", job.id, JobAttemptStarted(worker=WorkerId("w1"), boot="b", resumes=0))
    return JobId(job.id)


async def events_after(
    harness: CatalogHarness, job: str, timing: CancelTiming, presence: Presence | None = None
) -> list[AnyEvent]:
    """The events of a job after the catalog looked once at the cancellations that wait for a worker."""
    dispatcher = dispatcher_with(harness, DispatchTiming(cancel=timing))
    if presence is not None:
        await dispatcher.record_presence(presence)
    dispatcher.cancellations.add("train", job)
    await dispatcher.cancellations.end_abandoned()
    return await harness.events("job", job)


async def test_a_cancel_whose_worker_is_silent_ends_the_job_at_once(harness: CatalogHarness) -> None:
    job = await start_attempt(harness)
    await harness.execute(CancelJob(job=job))
    assert isinstance((await events_after(harness, job, UNLIMITED))[-1], JobCancelRequested)
    events = await events_after(harness, job, CancelTiming(silence=0))
    attempt = fold((await harness.executor.log.load("job", job)).events()).attempt
    assert events[-1] == JobCancelled(attempt=attempt)
    assert await WorkQueue(harness.bus, "train").queued_ids() == set()
    assert await events_after(harness, job, CancelTiming(silence=0)) == events


async def test_a_worker_that_is_there_has_some_time_to_stop(harness: CatalogHarness) -> None:
    job = await start_attempt(harness)
    await harness.execute(CancelJob(job=job))
    presence = Presence(service="trainer", worker=WorkerId("w1"), state="busy", at=NOW, holds=job)
    assert isinstance((await events_after(harness, job, UNLIMITED, presence))[-1], JobCancelRequested)
    assert isinstance(
        (await events_after(harness, job, CancelTiming(silence=WAIT, timeout=0), presence))[-1], JobCancelled
    )


async def test_a_cancel_that_comes_while_a_worker_releases_the_job_waits_for_nobody(harness: CatalogHarness) -> None:
    job = await start_attempt(harness)
    attempt = fold((await harness.executor.log.load("job", job)).events()).attempt
    await harness.execute(CancelJob(job=job))
    await harness.append("job", job, JobInterrupted(attempt=attempt, step=0, reason="the worker was stopped"))
    events = await events_after(harness, job, UNLIMITED)
    assert [type(event) for event in events[-2:]] == [JobInterrupted, JobCancelled]


async def test_a_restarted_catalog_ends_the_cancellations_it_finds(harness: CatalogHarness) -> None:
    job = await start_attempt(harness)
    await harness.execute(CancelJob(job=job))
    timing = DispatchTiming(cancel=CancelTiming(interval=0.05, silence=0.1))
    running = asyncio.create_task(dispatcher_with(harness, timing).run())
    try:
        async with asyncio.timeout(WAIT):
            while fold((await harness.executor.log.load("job", job)).events()).state != "cancelled":  # noqa: ASYNC110 - the log has no condition to wait on
                await asyncio.sleep(0.05)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
