"""The dispatcher on a real queue: the log is the outbox, and what the queue lost comes back."""

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
from contracts.wire.log import EventLog, draw_up
from contracts.wire.queue import Hint, WorkQueue
from contracts.wire.streams import CONSUMERS
from tests.catalog.house import House
from tests.conftest import LEASE, NOW, BusOf, origin
from tests.limits import WAIT


async def until(house: House, work: WorkClass, expected: set[str]) -> None:
    async with asyncio.timeout(WAIT):
        while await WorkQueue(house.bus, work).waiting() != expected:  # noqa: ASYNC110 - a queue tells nobody
            await asyncio.sleep(0.05)


async def test_what_the_queue_lost_is_put_back(house: House) -> None:
    await house.dataset(pictures=1)
    lost = await house.tell(CreateJob(dataset="cats", start=True))
    low = await house.tell(CreateJob(dataset="cats", start=True, priority="low"))
    run = await house.tell(RequestTagging(dataset="cats"))
    await house.tell(CreateJob(dataset="cats"))
    await WorkQueue(house.bus, "train").drop(lost.id)
    await house.bus.jetstream().purge_stream(subjects.QUEUE, subject=subjects.queued("tag", "normal", run.id))
    mending = asyncio.create_task(house.dispatcher.mend())
    try:
        await until(house, "train", {lost.id, low.id})
        await until(house, "tag", {run.id})
    finally:
        mending.cancel()
        await asyncio.gather(mending, return_exceptions=True)
    first = await WorkQueue(house.bus, "train").take()
    assert first is not None
    assert (first.hint, first.priority) == (Hint(id=lost.id, dispatch=lost.sequence), "normal")


async def test_a_queue_that_was_deleted_is_made_anew_with_all_that_waits(house: House, bus_of: BusOf) -> None:
    await house.dataset(pictures=1)
    job = await house.tell(CreateJob(dataset="cats", start=True))
    admin = (await bus_of("admin")).jetstream()
    await admin.delete_stream(subjects.QUEUE)
    await house.dispatcher._mend("train", since=0)
    first = await WorkQueue(house.bus, "train").take()
    assert first is not None
    assert first.hint == Hint(id=job.id, dispatch=job.sequence)

    await admin.delete_consumer(subjects.QUEUE, subjects.queue_consumer("tag", "low"))
    await house.dispatcher._mend("train", since=0)
    assert (await admin.stream_info(subjects.QUEUE)).state.consumer_count == len(CONSUMERS)


async def test_the_hint_of_who_lives_and_works_is_put_back_only_when_he_falls_silent(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A late ack by somebody who was fenced has taken it; a new one would go to the next free worker."""
    await house.dataset(pictures=1)
    job = await house.tell(CreateJob(dataset="cats", start=True))
    started = JobAttemptStarted(worker=WorkerId("w1"), boot="b", resumes=0)
    await house.say("job", job.id, started)
    queue = WorkQueue(house.bus, "train")
    await queue.drop(job.id)
    holds = Presence(service="trainer", worker=WorkerId("w1"), state="busy", at=NOW, holds=job.id)
    await house.dispatcher._hear(holds)
    await house.dispatcher._mend("train", since=0)
    assert await queue.waiting() == set()

    monkeypatch.setattr(dispatch, "SILENT_SECONDS", 0.0)
    await house.dispatcher._mend("train", since=0)
    assert await queue.waiting() == {job.id}


async def test_who_lost_the_lease_dispatches_nothing(house: House) -> None:
    await house.dataset(pictures=1)
    job = await house.tell(CreateJob(dataset="cats", start=True))
    await WorkQueue(house.bus, "train").drop(job.id)
    asked = asyncio.Event()

    def lost() -> None:
        asked.set()
        raise LeaseLost

    fenced = Dispatcher(house.bus, house.desk.store, EventLog(house.bus, lost), lease=LEASE)
    mending = asyncio.create_task(fenced.mend())
    await asked.wait()
    await house.bus.flush()
    assert await WorkQueue(house.bus, "train").waiting() == set()
    mending.cancel()
    await asyncio.gather(mending, return_exceptions=True)


async def test_a_cancelled_job_has_no_hint_and_gets_none(house: House) -> None:
    await house.dataset(pictures=1)
    job = await house.tell(CreateJob(dataset="cats", start=True))
    await house.tell(CancelJob(job=JobId(job.id)))
    assert await WorkQueue(house.bus, "train").waiting() == set()
    await house.dispatcher._mend("train", since=0)
    assert await WorkQueue(house.bus, "train").waiting() == set()


async def test_a_cancel_that_no_worker_obeys_ends_the_job_all_the_same(house: House) -> None:
    await house.dataset(pictures=1)
    job = await house.tell(CreateJob(dataset="cats", start=True))
    log = EventLog(house.bus)
    head = (await log.load("job", job.id)).head
    started = JobAttemptStarted(worker=WorkerId("dead"), boot="b", resumes=0)
    attempt = await log.append(draw_up("job", job.id, [started], after=head, origin=origin()), head)
    await house.tell(CancelJob(job=JobId(job.id)))

    await house.dispatcher._mend("train", since=0)
    assert fold((await log.load("job", job.id)).facts()).state == "cancelling"
    await Dispatcher(house.bus, house.desk.store, log, lease=LEASE, patience=0)._mend("train", since=0)

    history = await log.load("job", job.id)
    assert history.facts()[-1][0] == JobCancelled(attempt=attempt.sequence)
    assert await WorkQueue(house.bus, "train").waiting() == set()
