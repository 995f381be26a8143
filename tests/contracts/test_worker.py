"""Work queue, attempts and fencing, on a real nats-server, from the sides of the catalog and of the worker."""

import asyncio
import errno
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from contracts.aggregates import AnyEvent
from contracts.commands.base import CommandMetadata
from contracts.commits import AggregateHistory, Commit, RecordedCommit, StreamRevision
from contracts.errors import Behind, Fenced, LogFull, Rejected, SetupError, Unavailable
from contracts.events.jobs import (
    JOB_WORK,
    JobAttemptFailed,
    JobAttemptStarted,
    JobCancelled,
    JobCheckpointed,
    JobCreated,
    JobEdited,
    JobFailed,
    JobInterrupted,
    JobQueued,
    JobSucceeded,
    JobVersionSet,
)
from contracts.ids import DatasetId, Digest, JobId, VersionId, WorkerId
from contracts.jobs import MAX_ATTEMPTS_WITHOUT_PROGRESS, cancel, fold
from contracts.recipe import Recipe
from contracts.retry import RetryPolicy
from contracts.testing import MemoryLog
from contracts.wire.log.event_log import EventLog
from contracts.wire.service.bus import Bus
from contracts.wire.service.telemetry import wake
from contracts.wire.workers.attempt import CancelledOnRequest, RedeliveryDelays, WorkerTimings
from contracts.wire.workers.queue import Delivery, QueueMessage, WorkQueue
from contracts.wire.workers.worker import Attempt, Crash, Worker, WorkerIdentity
from tests.conftest import LEASE, BusOf, append_events, append_to
from tests.contracts.test_retry import lose_a_cancellation
from tests.limits import WAIT

JOB = JobId("job_1")
CREATED = JobCreated(
    name="cats",
    mode="single",
    dataset_id=DatasetId("ds_1"),
    dataset="cats",
    recipe=Recipe(),
)
VERSION_SET = JobVersionSet(version=1, version_id=VersionId("ver_1"), manifest=Digest("0" * 64), images=3)


async def append_to_job(bus: Bus, job: str, *events: AnyEvent) -> int:
    return await append_events(bus, "job", job, *events)


async def create_and_queue_job(bus: Bus, job: str = JOB, metadata: CommandMetadata | None = None) -> None:
    await append_events(bus, "job", job, CREATED, VERSION_SET, metadata=metadata)
    dispatch = await append_to_job(bus, job, JobQueued(priority="normal"))
    await WorkQueue(bus, "train").put(QueueMessage(id=job, dispatch=dispatch), "normal")


async def load_events(bus: Bus, job: str = JOB) -> list[AnyEvent]:
    return [event for event, _ in (await EventLog(bus).load("job", job)).events()]


async def wait_until_ended(bus: Bus, job: str = JOB, timeout: float = WAIT) -> list[AnyEvent]:
    async with asyncio.timeout(timeout):
        while True:
            history = (await EventLog(bus).load("job", job)).events()
            if fold(history).ended:
                return [event for event, _ in history]
            await asyncio.sleep(0.05)


async def wait_until_queue_is_empty(bus: Bus) -> None:
    async with asyncio.timeout(WAIT):
        while await WorkQueue(bus, "train").queued_ids():  # noqa: ASYNC110 - a queue has no event to wait for
            await asyncio.sleep(0.05)


def finish(attempt: Attempt) -> JobSucceeded:
    return JobSucceeded(attempt=attempt.number, step=10, artifacts=())


Run = Callable[[Attempt], Coroutine[Any, Any, None]]
RETRIES = RetryPolicy(first_delay=0.01)
TIMINGS = WorkerTimings(
    poll=0.05,
    release=0.2,
    redelivery=RedeliveryDelays(crashed=0.05, transient_error=0.05, disk_full=0.05, on_ended_failed=0.1),
)


def identify(name: str = "w1", stall: float = 60) -> WorkerIdentity:
    """Its message is extended (and a stall noticed) every tenth of the queue's lease."""
    return WorkerIdentity(kind=JOB_WORK, worker=WorkerId(name), boot="b1", lease=LEASE / 2, stall=stall)


@asynccontextmanager
async def running(worker: Worker) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(worker.run())
    yield task
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def run_worker(
    bus: Bus, run: Run, name: str = "w1", stall: float = 60
) -> AbstractAsyncContextManager[asyncio.Task[None]]:
    return running(Worker(bus, identify(name, stall), run, timings=TIMINGS))


@pytest.fixture
async def catalog(bus_of: BusOf) -> Bus:
    return await bus_of("catalog")


@pytest.fixture
async def trainer(bus_of: BusOf) -> Bus:
    return await bus_of("trainer")


async def request_cancellation(bus: Bus, job: str = JOB) -> None:
    await append_to_job(bus, job, *cancel(fold((await EventLog(bus).load("job", job)).events()), JOB_WORK))
    await wake(bus, "train", job)


async def test_work_is_fetched_run_and_acknowledged(catalog: Bus, trainer: Bus) -> None:
    async def run(attempt: Attempt) -> None:
        await attempt.report(finish(attempt))

    await create_and_queue_job(catalog)
    async with run_worker(trainer, run):
        events = await wait_until_ended(catalog)
        assert isinstance(events[-1], JobSucceeded)
        await wait_until_queue_is_empty(catalog)


class RefusingLog(EventLog):
    """The catalog does not register the key of this worker."""

    async def authorize(self) -> None:
        raise SetupError("upgrade the catalog first")


async def test_a_worker_whose_key_is_refused_ends_and_leaves_its_work_to_another(catalog: Bus, trainer: Bus) -> None:
    async def run(attempt: Attempt) -> None:
        await attempt.report(finish(attempt))

    await create_and_queue_job(catalog)
    with pytest.raises(SetupError, match="upgrade the catalog first"):
        await Worker(trainer, identify("newer"), run, log=RefusingLog(trainer), timings=TIMINGS).run()
    async with run_worker(trainer, run):
        events = await wait_until_ended(catalog)
    assert [event.worker for event in events if isinstance(event, JobAttemptStarted)] == ["w1"]


async def test_commits_of_the_catalog_do_not_fence_the_attempt(catalog: Bus, trainer: Bus) -> None:
    async def run(attempt: Attempt) -> None:
        for number in range(5):
            await append_to_job(catalog, JOB, JobEdited(name=f"name {number}"))
            await attempt.report(
                JobCheckpointed(attempt=attempt.number, step=number + 1, checkpoint=Digest("1" * 64), size=1)
            )
        await attempt.report(finish(attempt))

    await create_and_queue_job(catalog)
    async with run_worker(trainer, run):
        events = await wait_until_ended(catalog)
    assert sum(isinstance(event, JobCheckpointed) for event in events) == 5
    assert sum(isinstance(event, JobAttemptStarted) for event in events) == 1


class SilentWorker(Worker):
    """Like a stopped process, it neither extends its message nor reads the log."""

    async def _with_heartbeat(self, attempt: Attempt, delivery: Delivery) -> None:
        del delivery
        await self._run(attempt)


@pytest.mark.slow
async def test_a_worker_that_was_silent_past_its_lease_is_fenced(catalog: Bus, bus_of: BusOf) -> None:
    started, proceed, fenced = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def silent(attempt: Attempt) -> None:
        started.set()
        await proceed.wait()
        try:
            await attempt.report(finish(attempt))
        except Fenced:
            fenced.set()
            raise

    async def succeed(attempt: Attempt) -> None:
        await attempt.report(finish(attempt))

    await create_and_queue_job(catalog)
    async with running(SilentWorker(await bus_of("trainer"), identify(), silent)):
        await started.wait()
        async with run_worker(await bus_of("trainer"), succeed, "w2"):
            events = await wait_until_ended(catalog)
            proceed.set()
            async with asyncio.timeout(WAIT):
                await fenced.wait()
    assert await load_events(catalog) == events
    assert [event.worker for event in events if isinstance(event, JobAttemptStarted)] == ["w1", "w2"]


async def test_a_cancelled_job_stops_at_once_wherever_it_is(catalog: Bus, trainer: Bus) -> None:
    started, cleaned_up = asyncio.Event(), asyncio.Event()

    async def run(attempt: Attempt) -> None:
        attempt.last_step = 3
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cleaned_up.set()

    await create_and_queue_job(catalog)
    async with run_worker(trainer, run):
        await started.wait()
        await request_cancellation(catalog)
        events = await wait_until_ended(catalog)
        assert isinstance(events[-1], JobCancelled)
        assert (events[-1].step, cleaned_up.is_set()) == (3, True)
        await wait_until_queue_is_empty(catalog)


async def test_of_a_success_and_a_cancellation_the_first_in_the_log_counts(catalog: Bus, trainer: Bus) -> None:
    """The success is recorded, but its confirmation does not arrive before the attempt is cancelled."""
    ended: list[str] = []
    attempts: list[Attempt] = []
    stored = asyncio.Event()

    async def run(attempt: Attempt) -> None:
        attempts.append(attempt)
        log, append = attempt._log, attempt._log.append

        async def lose_confirmation(commit: Commit, revision: StreamRevision) -> RecordedCommit:
            await append(commit, revision)
            log.append = append  # type: ignore[method-assign]  # the next one is confirmed
            stored.set()
            await asyncio.Event().wait()
            raise AssertionError

        log.append = lose_confirmation  # type: ignore[method-assign,assignment]  # the bus of this attempt, for one append
        await attempt.report(finish(attempt))

    async def on_ended(history: AggregateHistory) -> None:
        ended.append(fold(history.events()).state)

    await create_and_queue_job(catalog)
    async with running(Worker(trainer, identify(), run, on_ended=on_ended, timings=TIMINGS)):
        await stored.wait()
        attempts[0].stop(CancelledOnRequest())
        await wait_until_queue_is_empty(catalog)
    assert ended == ["completed"]
    assert [type(event) for event in (await load_events(catalog))[3:]] == [JobAttemptStarted, JobSucceeded]


async def test_a_stopped_worker_releases_its_work_to_another(catalog: Bus, bus_of: BusOf) -> None:
    started = asyncio.Event()

    async def run_forever(_: Attempt) -> None:
        started.set()
        await asyncio.Event().wait()

    async def succeed(attempt: Attempt) -> None:
        await attempt.report(finish(attempt))

    await create_and_queue_job(catalog)
    async with run_worker(await bus_of("trainer"), run_forever):
        await started.wait()
    async with run_worker(await bus_of("trainer"), succeed, "w2"):
        events = await wait_until_ended(catalog)
    assert sum(isinstance(event, JobInterrupted) for event in events) == 1


async def test_work_that_always_crashes_fails_with_a_reason(catalog: Bus, trainer: Bus) -> None:
    async def crash(_: Attempt) -> None:
        raise Crash("the child was killed by signal 11")

    await create_and_queue_job(catalog)
    async with run_worker(trainer, crash):
        events = await wait_until_ended(catalog)
    assert sum(isinstance(event, JobAttemptFailed) for event in events) == 3
    assert isinstance(events[-1], JobFailed)
    assert events[-1].code == "poison"


async def test_rejected_work_fails_at_once_with_its_reason(catalog: Bus, trainer: Bus) -> None:
    async def reject(_: Attempt) -> None:
        raise Rejected("the base folder does not exist")

    await create_and_queue_job(catalog)
    async with run_worker(trainer, reject):
        events = await wait_until_ended(catalog)
    failed = events[-1]
    assert isinstance(failed, JobFailed)
    assert (failed.code, failed.reason) == ("rejected", "the base folder does not exist")
    assert sum(isinstance(event, JobAttemptStarted) for event in events) == 1


@pytest.mark.parametrize(
    "error",
    [
        Unavailable("the catalog does not answer"),
        Behind(applied=1, asked=2),
        LogFull("no space"),
        OSError(errno.ENOSPC, "No space left on device"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_a_transient_error_counts_neither_as_a_crash_nor_as_a_failure(
    catalog: Bus, trainer: Bus, error: Exception
) -> None:
    attempt_numbers: list[int] = []

    async def run(attempt: Attempt) -> None:
        attempt_numbers.append(attempt.number)
        if len(attempt_numbers) <= MAX_ATTEMPTS_WITHOUT_PROGRESS:
            raise error
        await attempt.report(finish(attempt))

    await create_and_queue_job(catalog)
    async with run_worker(trainer, run):
        events = await wait_until_ended(catalog)
    assert isinstance(events[-1], JobSucceeded)
    assert sum(isinstance(event, JobInterrupted) for event in events) == MAX_ATTEMPTS_WITHOUT_PROGRESS
    assert not any(isinstance(event, JobAttemptFailed) for event in events)


@pytest.mark.slow
async def test_a_late_ack_of_a_fenced_worker_does_not_affect_the_current_one(catalog: Bus, bus_of: BusOf) -> None:
    await create_and_queue_job(catalog)
    late_delivery = await WorkQueue(await bus_of("trainer"), "train").fetch()
    assert late_delivery is not None
    acked = asyncio.Event()

    async def run(attempt: Attempt) -> None:
        await acked.wait()
        await attempt.report(finish(attempt))

    async with run_worker(await bus_of("trainer"), run):
        async with asyncio.timeout(WAIT):
            while not any(isinstance(event, JobAttemptStarted) for event in await load_events(catalog)):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        await late_delivery.ack()
        await late_delivery._raw._client.flush()
        assert await WorkQueue(catalog, "train").queued_ids() == set()
        acked.set()
        events = await wait_until_ended(catalog)
    assert [type(event) for event in events[3:]] == [JobAttemptStarted, JobSucceeded]


async def test_work_without_progress_counts_as_stalled_and_fails(catalog: Bus, trainer: Bus) -> None:
    async def hang(_: Attempt) -> None:
        await asyncio.Event().wait()

    await create_and_queue_job(catalog)
    async with run_worker(trainer, hang, stall=0.2):
        events = await wait_until_ended(catalog)
    assert isinstance(events[-1], JobFailed)


async def test_on_stalled_is_called_after_the_attempt_has_ended(catalog: Bus, trainer: Bus) -> None:
    """The end of the attempt is in the log then, so the process may end."""
    last_events: list[AnyEvent] = []

    async def hang(_: Attempt) -> None:
        await asyncio.Event().wait()

    async def on_stalled() -> None:
        last_events.append((await load_events(catalog))[-1])

    await create_and_queue_job(catalog)
    async with running(Worker(trainer, identify(stall=0.2), hang, on_stalled=on_stalled, timings=TIMINGS)):
        await wait_until_ended(catalog)
    assert [type(event) for event in last_events] == [JobAttemptFailed] * MAX_ATTEMPTS_WITHOUT_PROGRESS


async def test_two_workers_run_two_jobs_concurrently(catalog: Bus, bus_of: BusOf) -> None:
    both = asyncio.Barrier(2)

    async def run(attempt: Attempt) -> None:
        await both.wait()
        await attempt.report(finish(attempt))

    await create_and_queue_job(catalog, "job_1")
    await create_and_queue_job(catalog, "job_2")
    async with run_worker(await bus_of("trainer"), run, "w1"), run_worker(await bus_of("trainer"), run, "w2"):
        ended = [await wait_until_ended(catalog, job) for job in ("job_1", "job_2")]
    workers = {event.worker for events in ended for event in events if isinstance(event, JobAttemptStarted)}
    assert workers == {"w1", "w2"}
    assert all(isinstance(events[-1], JobSucceeded) for events in ended)


async def test_a_stale_queue_message_is_acked_without_an_attempt(catalog: Bus, trainer: Bus) -> None:
    async def run(attempt: Attempt) -> None:
        await attempt.report(finish(attempt))

    await create_and_queue_job(catalog)
    queue = WorkQueue(catalog, "train")
    await queue.remove(JOB)
    await queue.put(QueueMessage(id=JOB, dispatch=1), "high")
    async with run_worker(trainer, run):
        await wait_until_queue_is_empty(catalog)
    assert not any(isinstance(event, JobAttemptStarted) for event in await load_events(catalog))


async def test_work_has_one_queue_message_and_a_newer_one_replaces_it(catalog: Bus) -> None:
    queue = WorkQueue(catalog, "train")
    await queue.put(QueueMessage(id=JOB, dispatch=5), "normal")
    await queue.put(QueueMessage(id=JOB, dispatch=5), "normal")
    await queue.put(QueueMessage(id=JOB, dispatch=9), "normal")
    info = await catalog.jetstream().stream_info("JOBS")
    assert info.state.messages == 1
    assert b'"dispatch":9' in ((await catalog.jetstream().get_last_msg("JOBS", "jobs.train.normal.job_1")).data or b"")


class UnavailableLog(MemoryLog):
    """A log with the history of a started job, whose next appends and loads can be made to fail."""

    def __init__(self) -> None:
        super().__init__()
        self.failing_appends = self.failing_loads = 0
        self.error: Exception = Unavailable("the event log does not answer")

    async def open_attempt(self) -> Attempt:
        for event in (
            CREATED,
            VERSION_SET,
            JobQueued(priority="normal"),
            JobAttemptStarted(worker=WorkerId("w1"), boot="b", resumes=0),
        ):
            await append_to(self, "job", JOB, event)
        return Attempt(self, identify(), JOB, await self.load("job", JOB), RETRIES)

    async def append(self, commit: Commit, expected_revision: StreamRevision) -> RecordedCommit:
        if self.failing_appends:
            self.failing_appends -= 1
            raise self.error
        return await super().append(commit, expected_revision)

    async def load(
        self, aggregate_kind: str, aggregate_id: str, since: AggregateHistory | None = None
    ) -> AggregateHistory:
        if self.failing_loads:
            self.failing_loads -= 1
            raise self.error
        return await super().load(aggregate_kind, aggregate_id, since)


async def test_an_attempt_is_not_fenced_by_its_own_end() -> None:
    """What it does after that, such as deleting its folder, may take until the next look at the log."""
    log = UnavailableLog()
    attempt = await log.open_attempt()
    await attempt.report(finish(attempt))
    await attempt.refresh()
    assert not attempt.is_current
    with pytest.raises(Fenced):
        await attempt.report(finish(attempt))


async def test_a_report_waits_while_the_log_is_full() -> None:
    log = UnavailableLog()
    attempt = await log.open_attempt()
    log.failing_appends, log.error = 2, LogFull("no space")
    recorded = await attempt.report(finish(attempt))
    assert (await log.load("job", JOB)).commits[-1] == recorded
    assert attempt.work.state == "completed"


async def test_a_report_waits_while_the_log_is_unavailable_also_while_catching_up() -> None:
    log = UnavailableLog()
    attempt = await log.open_attempt()
    # Another writer's commit comes first, so the report has to catch up before it is repeated.
    await append_to(log, "job", JOB, JobEdited(name="renamed"))
    log.failing_appends = log.failing_loads = 2
    await attempt.report(finish(attempt))
    events = [event for event, _ in (await log.load("job", JOB)).events()]
    assert [type(event) for event in events[-2:]] == [JobEdited, JobSucceeded]


async def test_a_report_is_given_up_at_the_time_limit_and_when_the_worker_is_stopping() -> None:
    log = UnavailableLog()
    history = (await log.open_attempt()).history
    log.failing_appends = 1000
    limited = Attempt(log, identify(), JOB, history, RetryPolicy(first_delay=0.01, time_limit=0.05))
    with pytest.raises(Unavailable):
        await limited.report(finish(limited))
    assert log.failing_appends < 1000

    async def report_while_stopping() -> None:
        await lose_a_cancellation()
        patient = Attempt(log, identify(), JOB, history)
        await patient.report(finish(patient))

    log.failing_appends = 1000
    (error,) = await asyncio.gather(asyncio.create_task(report_while_stopping()), return_exceptions=True)
    assert isinstance(error, Unavailable)
    assert log.failing_appends == 999


async def test_on_ended_is_retried_after_an_error_and_the_worker_keeps_running(catalog: Bus, trainer: Bus) -> None:
    calls: list[bool] = []

    async def run(attempt: Attempt) -> None:
        await attempt.report(finish(attempt))

    async def on_ended(history: AggregateHistory) -> None:
        calls.append(fold(history.events()).ended)
        if len(calls) < 3:
            raise OSError(28, "No space left on device")

    await create_and_queue_job(catalog)
    async with running(Worker(trainer, identify(), run, on_ended=on_ended, timings=TIMINGS)) as task:
        await wait_until_queue_is_empty(catalog)
        assert calls == [True] * 3
        assert not task.done()
    assert sum(isinstance(event, JobAttemptStarted) for event in await load_events(catalog)) == 1


@pytest.mark.slow
async def test_a_worker_stopped_while_the_log_is_unavailable_does_not_wait_for_it(catalog: Bus, trainer: Bus) -> None:
    started = asyncio.Event()

    async def run_forever(_: Attempt) -> None:
        started.set()
        await asyncio.Event().wait()

    async def never(*_: object) -> RecordedCommit:
        await asyncio.Event().wait()
        raise AssertionError

    await create_and_queue_job(catalog)
    worker = Worker(trainer, identify(), run_forever, timings=TIMINGS)
    async with asyncio.timeout(WAIT), running(worker):
        await started.wait()
        worker._log.append = never  # type: ignore[method-assign,assignment]  # it makes its own log
    assert isinstance((await load_events(catalog))[-1], JobAttemptStarted)
