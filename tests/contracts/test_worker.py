"""Work queue, attempts and fencing, on a real nats-server, from the sides of the catalog and of the worker."""

import asyncio
import errno
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from contracts.errors import Behind, Fenced, LogFull, Rejected, Unavailable
from contracts.events import (
    AnyEvent,
    Commit,
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
    RecordedCommit,
)
from contracts.ids import DatasetId, Digest, JobId, VersionId, WorkerId
from contracts.jobs import MAX_ATTEMPTS_WITHOUT_PROGRESS, cancel, fold
from contracts.recipe import Recipe
from contracts.subjects import AggregateKind
from contracts.wire import worker as worker_module
from contracts.wire.bus import Bus
from contracts.wire.log import AggregateHistory, EventLog, StreamRevision
from contracts.wire.queue import QueueMessage, WorkQueue
from contracts.wire.telemetry_bus import wake
from contracts.wire.worker import Attempt, Crash, Worker, WorkerIdentity
from tests.conftest import LEASE, BusOf, append_events
from tests.limits import WAIT

JOB = JobId("job_1")
CREATED = JobCreated(
    name="cats",
    mode="single",
    dataset_id=DatasetId("ds_1"),
    dataset="cats",
    version=1,
    version_id=VersionId("ver_1"),
    manifest=Digest("0" * 64),
    images=3,
    recipe=Recipe(),
)


async def append_to_job(bus: Bus, job: str, *events: AnyEvent) -> int:
    return await append_events(bus, "job", job, *events)


async def create_and_queue_job(bus: Bus, job: str = JOB) -> None:
    await append_to_job(bus, job, CREATED)
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


def finish(attempt: Attempt) -> JobSucceeded:
    return JobSucceeded(attempt=attempt.number, step=10, artifacts=())


@asynccontextmanager
async def run_worker(
    bus: Bus, run: Callable[[Attempt], Coroutine[Any, Any, None]], name: str = "w1", stall: float = 60
) -> AsyncIterator[asyncio.Task[None]]:
    identity = WorkerIdentity(work="train", worker=WorkerId(name), boot="b1", lease=LEASE, stall=stall)
    task = asyncio.create_task(Worker(bus, identity, run).run())
    yield task
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def catalog(bus_of: BusOf) -> Bus:
    return await bus_of("catalog")


@pytest.fixture
async def trainer(bus_of: BusOf) -> Bus:
    return await bus_of("trainer")


async def test_work_is_fetched_run_and_acknowledged(catalog: Bus, trainer: Bus) -> None:
    async def run(attempt: Attempt) -> None:
        await attempt.report(finish(attempt))

    await create_and_queue_job(catalog)
    async with run_worker(trainer, run):
        events = await wait_until_ended(catalog)
        assert isinstance(events[-1], JobSucceeded)
        await asyncio.sleep(0.1)
    assert await WorkQueue(catalog, "train").queued_ids() == set()


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


async def test_a_worker_that_was_silent_past_its_lease_is_fenced(catalog: Bus, bus_of: BusOf) -> None:
    errors: list[Exception] = []
    first_started = asyncio.Event()
    proceed = asyncio.Event()

    async def silent(attempt: Attempt) -> None:
        first_started.set()
        await proceed.wait()
        try:
            await attempt.report(finish(attempt))
        except Fenced as error:
            errors.append(error)
            raise

    async def succeed(attempt: Attempt) -> None:
        await attempt.report(finish(attempt))

    async def never(*_: object) -> None:
        await asyncio.Event().wait()

    await create_and_queue_job(catalog)
    silent_worker = Worker(
        await bus_of("trainer"), WorkerIdentity(work="train", worker=WorkerId("w1"), boot="b", lease=LEASE), silent
    )
    # Like a stopped process, it neither extends its message nor reads the log.
    silent_worker._extend = never  # type: ignore[method-assign]
    silent_worker._watch = never  # type: ignore[method-assign]
    task = asyncio.create_task(silent_worker.run())
    await first_started.wait()
    async with run_worker(await bus_of("trainer"), succeed, "w2"):
        events = await wait_until_ended(catalog)
        proceed.set()
        await asyncio.sleep(0.3)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert errors
    assert await load_events(catalog) == events
    assert [event.worker for event in events if isinstance(event, JobAttemptStarted)] == ["w1", "w2"]


async def test_a_cancelled_job_stops_at_once(catalog: Bus, trainer: Bus) -> None:
    started = asyncio.Event()

    async def run(attempt: Attempt) -> None:
        started.set()
        await attempt.cancel_requested.wait()
        await attempt.report(JobCancelled(attempt=attempt.number, step=3))

    await create_and_queue_job(catalog)
    async with run_worker(trainer, run):
        await started.wait()
        await append_to_job(catalog, JOB, *cancel(fold((await EventLog(catalog).load("job", JOB)).events()), "train"))  # type: ignore[arg-type]
        await wake(catalog, "train", JOB)
        assert isinstance((await wait_until_ended(catalog))[-1], JobCancelled)


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
    assert events[-1] == JobFailed(attempt=events[-1].attempt, code="rejected", reason="the base folder does not exist")  # type: ignore[union-attr]


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
    catalog: Bus, trainer: Bus, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(worker_module, "TRANSIENT_RETRY_SECONDS", 0.05)
    monkeypatch.setattr(worker_module, "NO_SPACE_RETRY_SECONDS", 0.05)
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


async def test_a_report_waits_while_the_log_is_full(catalog: Bus, trainer: Bus) -> None:
    await append_to_job(catalog, JOB, CREATED)
    await append_to_job(catalog, JOB, JobQueued(priority="normal"))
    await append_to_job(trainer, JOB, JobAttemptStarted(worker=WorkerId("w1"), boot="b", resumes=0))
    identity = WorkerIdentity(work="train", worker=WorkerId("w1"), boot="b")
    full_log = UnavailableLog(trainer, appends=2, error=LogFull("no space"))
    attempt = Attempt(full_log, identity, JOB, await EventLog(trainer).load("job", JOB))
    await attempt.report(finish(attempt))
    assert isinstance((await load_events(catalog))[-1], JobSucceeded)


async def test_a_late_ack_of_a_fenced_worker_does_not_affect_the_current_one(catalog: Bus, bus_of: BusOf) -> None:
    await create_and_queue_job(catalog)
    late_delivery = await WorkQueue(await bus_of("trainer"), "train").fetch()
    assert late_delivery is not None
    acked = asyncio.Event()

    async def run(attempt: Attempt) -> None:
        await acked.wait()
        await attempt.report(finish(attempt))

    async with run_worker(await bus_of("trainer"), run):
        async with asyncio.timeout(3 * LEASE + 5):
            while not any(isinstance(event, JobAttemptStarted) for event in await load_events(catalog)):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        await late_delivery.ack()
        await late_delivery._raw._client.flush()
        assert await WorkQueue(catalog, "train").queued_ids() == set()
        acked.set()
        events = await wait_until_ended(catalog)
    assert [type(event) for event in events[2:]] == [JobAttemptStarted, JobSucceeded]


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
    identity = WorkerIdentity(work="train", worker=WorkerId("w1"), boot="b1", lease=LEASE, stall=0.2)
    task = asyncio.create_task(Worker(trainer, identity, hang, on_stalled=on_stalled).run())
    await wait_until_ended(catalog)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert [type(event) for event in last_events] == [JobAttemptFailed] * MAX_ATTEMPTS_WITHOUT_PROGRESS


async def test_two_workers_run_two_jobs_concurrently(catalog: Bus, bus_of: BusOf) -> None:
    both = asyncio.Barrier(2)

    async def run(attempt: Attempt) -> None:
        await both.wait()
        await attempt.report(finish(attempt))

    await create_and_queue_job(catalog, "job_1")
    await create_and_queue_job(catalog, "job_2")
    async with run_worker(await bus_of("trainer"), run, "w1"), run_worker(await bus_of("trainer"), run, "w2"):
        await wait_until_ended(catalog, "job_1")
        await wait_until_ended(catalog, "job_2")


async def test_a_stale_queue_message_is_acked_without_an_attempt(catalog: Bus, trainer: Bus) -> None:
    async def run(attempt: Attempt) -> None:
        await attempt.report(finish(attempt))

    await create_and_queue_job(catalog)
    queue = WorkQueue(catalog, "train")
    await queue.remove(JOB)
    await queue.put(QueueMessage(id=JOB, dispatch=1), "high")
    async with run_worker(trainer, run):
        await asyncio.sleep(0.6)
    assert await queue.queued_ids() == set()
    assert not any(isinstance(event, JobAttemptStarted) for event in await load_events(catalog))


async def test_work_has_one_queue_message_and_a_newer_one_replaces_it(catalog: Bus) -> None:
    queue = WorkQueue(catalog, "train")
    await queue.put(QueueMessage(id=JOB, dispatch=5), "normal")
    await queue.put(QueueMessage(id=JOB, dispatch=5), "normal")
    await queue.put(QueueMessage(id=JOB, dispatch=9), "normal")
    info = await catalog.jetstream().stream_info("JOBS")
    assert info.state.messages == 1
    assert b'"dispatch":9' in ((await catalog.jetstream().get_last_msg("JOBS", "jobs.train.normal.job_1")).data or b"")


class UnavailableLog(EventLog):
    """A log whose first appends and loads fail."""

    def __init__(self, bus: Bus, *, appends: int = 0, loads: int = 0, error: Exception | None = None) -> None:
        super().__init__(bus)
        self._appends, self._loads = appends, loads
        self._error = error or Unavailable("the event log does not answer")

    async def append(self, commit: Commit, expected_revision: StreamRevision) -> RecordedCommit:
        if self._appends:
            self._appends -= 1
            raise self._error
        return await super().append(commit, expected_revision)

    async def load(
        self, aggregate_kind: AggregateKind, aggregate_id: str, since: AggregateHistory | None = None
    ) -> AggregateHistory:
        if self._loads:
            self._loads -= 1
            raise self._error
        return await super().load(aggregate_kind, aggregate_id, since)


async def test_a_report_waits_while_the_log_is_unavailable_also_while_catching_up(catalog: Bus, trainer: Bus) -> None:
    await append_to_job(catalog, JOB, CREATED)
    await append_to_job(catalog, JOB, JobQueued(priority="normal"))
    await append_to_job(trainer, JOB, JobAttemptStarted(worker=WorkerId("w1"), boot="b", resumes=0))
    identity = WorkerIdentity(work="train", worker=WorkerId("w1"), boot="b")
    attempt = Attempt(
        UnavailableLog(trainer, appends=2, loads=2), identity, JOB, await EventLog(trainer).load("job", JOB)
    )
    # Another writer's commit comes first, so the report has to catch up before it is repeated.
    await append_to_job(catalog, JOB, JobEdited(name="renamed"))
    await attempt.report(finish(attempt))
    assert [type(event) for event in (await load_events(catalog))[-2:]] == [JobEdited, JobSucceeded]


async def test_on_ended_is_retried_after_an_error_and_the_worker_keeps_running(
    catalog: Bus, trainer: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "ON_ENDED_RETRY_SECONDS", 0.1)
    calls: list[bool] = []

    async def run(attempt: Attempt) -> None:
        await attempt.report(finish(attempt))

    async def on_ended(history: AggregateHistory) -> None:
        calls.append(fold(history.events()).ended)
        if len(calls) < 3:
            raise OSError(28, "No space left on device")

    await create_and_queue_job(catalog)
    identity = WorkerIdentity(work="train", worker=WorkerId("w1"), boot="b1", lease=LEASE)
    task = asyncio.create_task(Worker(trainer, identity, run, on_ended).run())
    async with asyncio.timeout(WAIT):
        while await WorkQueue(catalog, "train").queued_ids():  # noqa: ASYNC110 - a queue has no event to wait for
            await asyncio.sleep(0.05)
    assert calls == [True] * 3
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert sum(isinstance(event, JobAttemptStarted) for event in await load_events(catalog)) == 1


async def test_a_worker_stopped_while_the_log_is_unavailable_does_not_wait_for_it(
    catalog: Bus, trainer: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "RELEASE_TIMEOUT_SECONDS", 0.2)
    started = asyncio.Event()

    async def run_forever(_: Attempt) -> None:
        started.set()
        await asyncio.Event().wait()

    await create_and_queue_job(catalog)
    identity = WorkerIdentity(work="train", worker=WorkerId("w1"), boot="b1", lease=LEASE)
    worker = Worker(trainer, identity, run_forever)
    task = asyncio.create_task(worker.run())
    await started.wait()

    async def never(*_: object) -> RecordedCommit:
        await asyncio.Event().wait()
        raise AssertionError

    worker._log.append = never  # type: ignore[method-assign,assignment]
    task.cancel()
    async with asyncio.timeout(WAIT):
        await asyncio.gather(task, return_exceptions=True)
    assert isinstance((await load_events(catalog))[-1], JobAttemptStarted)
