"""The dispatcher on a real queue: the log is the outbox, and what the queue lost comes back."""

import asyncio

from catalog.dispatch import Dispatcher
from contracts import subjects
from contracts.commands import CancelJob, CreateJob, RequestTagging
from contracts.events import JobAttemptStarted, JobCancelled
from contracts.ids import JobId, WorkerId
from contracts.jobs import fold
from contracts.subjects import WorkClass
from contracts.wire.log import EventLog, draw_up
from contracts.wire.queue import Hint, WorkQueue
from tests.catalog.house import House
from tests.conftest import origin


async def until(house: House, work: WorkClass, expected: set[str]) -> None:
    async with asyncio.timeout(10):
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


async def test_a_cancelled_job_has_no_hint_and_gets_none(house: House) -> None:
    await house.dataset(pictures=1)
    job = await house.tell(CreateJob(dataset="cats", start=True))
    await house.tell(CancelJob(job=JobId(job.id)))
    assert await WorkQueue(house.bus, "train").waiting() == set()
    await house.dispatcher._mend("train")
    assert await WorkQueue(house.bus, "train").waiting() == set()


async def test_a_cancel_that_no_worker_obeys_ends_the_job_all_the_same(house: House) -> None:
    await house.dataset(pictures=1)
    job = await house.tell(CreateJob(dataset="cats", start=True))
    log = EventLog(house.bus)
    head = (await log.load("job", job.id)).head
    started = JobAttemptStarted(worker=WorkerId("dead"), boot="b", resumes=0)
    attempt = await log.append(draw_up("job", job.id, [started], after=head, origin=origin()), head)
    await house.tell(CancelJob(job=JobId(job.id)))

    await house.dispatcher._mend("train")
    assert fold((await log.load("job", job.id)).facts()).state == "cancelling"
    await Dispatcher(house.bus, house.desk.store, patience=0)._mend("train")

    history = await log.load("job", job.id)
    assert history.facts()[-1][0] == JobCancelled(attempt=attempt.sequence)
    assert await WorkQueue(house.bus, "train").waiting() == set()
