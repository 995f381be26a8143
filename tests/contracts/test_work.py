"""Holding work: queue, attempts, fence, on a real nats-server. The catalog's and the worker's side by side."""

import asyncio
import errno
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from contracts.errors import Behind, Fenced, LogFull, Rejected, Unavailable
from contracts.events import (
    AnyFact,
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
    Stored,
)
from contracts.ids import DatasetId, Digest, JobId, VersionId, WorkerId
from contracts.jobs import FRUITLESS_LIMIT, cancel, fold
from contracts.recipe import Recipe
from contracts.subjects import Kind
from contracts.wire import work as work_module
from contracts.wire.bus import Bus
from contracts.wire.log import EventLog, Head, History, draw_up
from contracts.wire.queue import Hint, WorkQueue
from contracts.wire.telling import nudge
from contracts.wire.work import Attempt, Crash, Holder, Worker
from tests.conftest import LEASE, BusOf, origin
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


async def say(bus: Bus, job: str, *facts: AnyFact) -> int:
    log = EventLog(bus)
    head = (await log.load("job", job)).head
    return (await log.append(draw_up("job", job, facts, after=head, origin=origin()), head)).sequence


async def ask_for(bus: Bus, job: str = JOB) -> None:
    await say(bus, job, CREATED)
    dispatch = await say(bus, job, JobQueued(priority="normal"))
    await WorkQueue(bus, "train").put(Hint(id=job, dispatch=dispatch), "normal")


async def facts_of(bus: Bus, job: str = JOB) -> list[AnyFact]:
    return [fact for fact, _ in (await EventLog(bus).load("job", job)).facts()]


async def until_ended(bus: Bus, job: str = JOB, within: float = WAIT) -> list[AnyFact]:
    async with asyncio.timeout(within):
        while True:
            history = (await EventLog(bus).load("job", job)).facts()
            if fold(history).ended:
                return [fact for fact, _ in history]
            await asyncio.sleep(0.05)


def finish(attempt: Attempt) -> JobSucceeded:
    return JobSucceeded(attempt=attempt.number, step=10, artifacts=())


@asynccontextmanager
async def working(
    bus: Bus, run: Callable[[Attempt], Coroutine[Any, Any, None]], name: str = "w1", stall: float = 60
) -> AsyncIterator[asyncio.Task[None]]:
    holder = Holder(work="train", worker=WorkerId(name), boot="b1", lease=LEASE, stall=stall)
    task = asyncio.create_task(Worker(bus, holder, run).work_off())
    yield task
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def catalog(bus_of: BusOf) -> Bus:
    return await bus_of("catalog")


@pytest.fixture
async def trainer(bus_of: BusOf) -> Bus:
    return await bus_of("trainer")


async def test_work_is_taken_done_and_acknowledged(catalog: Bus, trainer: Bus) -> None:
    async def run(attempt: Attempt) -> None:
        await attempt.report(finish(attempt))

    await ask_for(catalog)
    async with working(trainer, run):
        facts = await until_ended(catalog)
        assert isinstance(facts[-1], JobSucceeded)
        await asyncio.sleep(0.1)
    assert await WorkQueue(catalog, "train").waiting() == set()


async def test_what_the_catalog_says_meanwhile_does_not_fence(catalog: Bus, trainer: Bus) -> None:
    async def run(attempt: Attempt) -> None:
        for number in range(5):
            await say(catalog, JOB, JobEdited(name=f"name {number}"))
            await attempt.report(
                JobCheckpointed(attempt=attempt.number, step=number + 1, checkpoint=Digest("1" * 64), size=1)
            )
        await attempt.report(finish(attempt))

    await ask_for(catalog)
    async with working(trainer, run):
        facts = await until_ended(catalog)
    assert sum(isinstance(fact, JobCheckpointed) for fact in facts) == 5
    assert sum(isinstance(fact, JobAttemptStarted) for fact in facts) == 1


async def test_a_worker_that_was_silent_past_its_lease_is_fenced(catalog: Bus, bus_of: BusOf) -> None:
    late: list[Exception] = []
    first_holds = asyncio.Event()
    proceed = asyncio.Event()

    async def silent(attempt: Attempt) -> None:
        first_holds.set()
        await proceed.wait()
        try:
            await attempt.report(finish(attempt))
        except Fenced as error:
            late.append(error)
            raise

    async def quick(attempt: Attempt) -> None:
        await attempt.report(finish(attempt))

    async def never(*_: object) -> None:
        await asyncio.Event().wait()

    await ask_for(catalog)
    frozen = Worker(await bus_of("trainer"), Holder(work="train", worker=WorkerId("w1"), boot="b", lease=LEASE), silent)
    # A process that is stopped neither says that it lives nor looks at the log: that is all this takes from it.
    frozen._keep = never  # type: ignore[method-assign]
    frozen._watch = never  # type: ignore[method-assign]
    task = asyncio.create_task(frozen.work_off())
    await first_holds.wait()
    async with working(await bus_of("trainer"), quick, "w2"):
        facts = await until_ended(catalog)
        proceed.set()
        await asyncio.sleep(0.3)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert late
    assert await facts_of(catalog) == facts
    assert [fact.worker for fact in facts if isinstance(fact, JobAttemptStarted)] == ["w1", "w2"]


async def test_a_cancelled_job_stops_at_once(catalog: Bus, trainer: Bus) -> None:
    started = asyncio.Event()

    async def run(attempt: Attempt) -> None:
        started.set()
        await attempt.stop_asked.wait()
        await attempt.report(JobCancelled(attempt=attempt.number, step=3))

    await ask_for(catalog)
    async with working(trainer, run):
        await started.wait()
        await say(catalog, JOB, *cancel(fold((await EventLog(catalog).load("job", JOB)).facts()), "train"))  # type: ignore[arg-type]
        await nudge(catalog, "train", JOB)
        assert isinstance((await until_ended(catalog))[-1], JobCancelled)


async def test_a_polite_stop_hands_the_work_to_the_next(catalog: Bus, bus_of: BusOf) -> None:
    started = asyncio.Event()

    async def slow(_: Attempt) -> None:
        started.set()
        await asyncio.Event().wait()

    async def quick(attempt: Attempt) -> None:
        await attempt.report(finish(attempt))

    await ask_for(catalog)
    async with working(await bus_of("trainer"), slow):
        await started.wait()
    async with working(await bus_of("trainer"), quick, "w2"):
        facts = await until_ended(catalog)
    assert sum(isinstance(fact, JobInterrupted) for fact in facts) == 1


async def test_work_that_always_dies_is_given_up_with_a_reason(catalog: Bus, trainer: Bus) -> None:
    async def dies(_: Attempt) -> None:
        raise Crash("the child was killed by signal 11")

    await ask_for(catalog)
    async with working(trainer, dies):
        facts = await until_ended(catalog)
    assert sum(isinstance(fact, JobAttemptFailed) for fact in facts) == 3
    assert isinstance(facts[-1], JobFailed)
    assert facts[-1].code == "poison"


async def test_work_that_cannot_be_done_fails_at_once_with_its_reason(catalog: Bus, trainer: Bus) -> None:
    async def refuses(_: Attempt) -> None:
        raise Rejected("the base folder is none")

    await ask_for(catalog)
    async with working(trainer, refuses):
        facts = await until_ended(catalog)
    assert facts[-1] == JobFailed(attempt=facts[-1].attempt, code="rejected", reason="the base folder is none")  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "passing",
    [
        Unavailable("the catalog does not answer"),
        Behind(applied=1, asked=2),
        LogFull("no space"),
        OSError(errno.ENOSPC, "No space left on device"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_what_passes_by_itself_is_no_crash_and_no_failure(
    catalog: Bus, trainer: Bus, monkeypatch: pytest.MonkeyPatch, passing: Exception
) -> None:
    monkeypatch.setattr(work_module, "AWAY_SECONDS", 0.05)
    monkeypatch.setattr(work_module, "NO_SPACE_SECONDS", 0.05)
    tries: list[int] = []

    async def run(attempt: Attempt) -> None:
        tries.append(attempt.number)
        if len(tries) <= FRUITLESS_LIMIT:
            raise passing
        await attempt.report(finish(attempt))

    await ask_for(catalog)
    async with working(trainer, run):
        facts = await until_ended(catalog)
    assert isinstance(facts[-1], JobSucceeded)
    assert sum(isinstance(fact, JobInterrupted) for fact in facts) == FRUITLESS_LIMIT
    assert not any(isinstance(fact, JobAttemptFailed) for fact in facts)


async def test_a_report_waits_for_room_in_the_log(catalog: Bus, trainer: Bus) -> None:
    await say(catalog, JOB, CREATED)
    await say(catalog, JOB, JobQueued(priority="normal"))
    await say(trainer, JOB, JobAttemptStarted(worker=WorkerId("w1"), boot="b", resumes=0))
    holder = Holder(work="train", worker=WorkerId("w1"), boot="b")
    full = Away(trainer, appends=2, error=LogFull("no space"))
    attempt = Attempt(full, holder, JOB, await EventLog(trainer).load("job", JOB))
    await attempt.report(finish(attempt))
    assert isinstance((await facts_of(catalog))[-1], JobSucceeded)


async def test_a_late_ack_of_who_was_fenced_changes_nothing_for_who_holds_the_work_now(
    catalog: Bus, bus_of: BusOf
) -> None:
    await ask_for(catalog)
    late = await WorkQueue(await bus_of("trainer"), "train").take()
    assert late is not None
    acked = asyncio.Event()

    async def run(attempt: Attempt) -> None:
        await acked.wait()
        await attempt.report(finish(attempt))

    async with working(await bus_of("trainer"), run):
        async with asyncio.timeout(3 * LEASE + 5):
            while not any(isinstance(fact, JobAttemptStarted) for fact in await facts_of(catalog)):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        await late.done()
        await late._message._client.flush()
        assert await WorkQueue(catalog, "train").waiting() == set()
        acked.set()
        facts = await until_ended(catalog)
    assert [type(fact) for fact in facts[2:]] == [JobAttemptStarted, JobSucceeded]


async def test_work_that_stands_still_counts_as_hung(catalog: Bus, trainer: Bus) -> None:
    async def hangs(_: Attempt) -> None:
        await asyncio.Event().wait()

    await ask_for(catalog)
    async with working(trainer, hangs, stall=0.2):
        facts = await until_ended(catalog)
    assert isinstance(facts[-1], JobFailed)


async def test_who_runs_what_cannot_be_ended_hears_that_it_hung(catalog: Bus, trainer: Bus) -> None:
    """After the end of the attempt was reported: the process may end now."""
    heard: list[AnyFact] = []

    async def hangs(_: Attempt) -> None:
        await asyncio.Event().wait()

    async def after_hang() -> None:
        heard.append((await facts_of(catalog))[-1])

    await ask_for(catalog)
    holder = Holder(work="train", worker=WorkerId("w1"), boot="b1", lease=LEASE, stall=0.2)
    task = asyncio.create_task(Worker(trainer, holder, hangs, after_hang=after_hang).work_off())
    await until_ended(catalog)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert [type(fact) for fact in heard] == [JobAttemptFailed] * FRUITLESS_LIMIT


async def test_two_workers_take_two_jobs_at_once(catalog: Bus, bus_of: BusOf) -> None:
    both = asyncio.Barrier(2)

    async def run(attempt: Attempt) -> None:
        await both.wait()
        await attempt.report(finish(attempt))

    await ask_for(catalog, "job_1")
    await ask_for(catalog, "job_2")
    async with working(await bus_of("trainer"), run, "w1"), working(await bus_of("trainer"), run, "w2"):
        await until_ended(catalog, "job_1")
        await until_ended(catalog, "job_2")


async def test_an_out_of_date_hint_is_dropped(catalog: Bus, trainer: Bus) -> None:
    async def run(attempt: Attempt) -> None:
        await attempt.report(finish(attempt))

    await ask_for(catalog)
    queue = WorkQueue(catalog, "train")
    await queue.drop(JOB)
    await queue.put(Hint(id=JOB, dispatch=1), "high")
    async with working(trainer, run):
        await asyncio.sleep(0.6)
    assert await queue.waiting() == set()
    assert not any(isinstance(fact, JobAttemptStarted) for fact in await facts_of(catalog))


async def test_a_hint_is_there_once_and_a_newer_one_takes_its_place(catalog: Bus) -> None:
    queue = WorkQueue(catalog, "train")
    await queue.put(Hint(id=JOB, dispatch=5), "normal")
    await queue.put(Hint(id=JOB, dispatch=5), "normal")
    await queue.put(Hint(id=JOB, dispatch=9), "normal")
    info = await catalog.jetstream().stream_info("JOBS")
    assert info.state.messages == 1
    assert b'"dispatch":9' in ((await catalog.jetstream().get_last_msg("JOBS", "jobs.train.normal.job_1")).data or b"")


class Away(EventLog):
    """The log is away for a while: whatever is asked of it, the first times it does not answer."""

    def __init__(self, bus: Bus, *, appends: int = 0, loads: int = 0, error: Exception | None = None) -> None:
        super().__init__(bus)
        self._appends, self._loads = appends, loads
        self._error = error or Unavailable("away")

    async def append(self, commit: Commit, after: Head) -> Stored:
        if self._appends:
            self._appends -= 1
            raise self._error
        return await super().append(commit, after)

    async def load(self, kind: Kind, thing: str, since: History | None = None) -> History:
        if self._loads:
            self._loads -= 1
            raise self._error
        return await super().load(kind, thing, since)


async def test_a_report_waits_for_a_log_that_is_away_also_while_it_catches_up(catalog: Bus, trainer: Bus) -> None:
    await say(catalog, JOB, CREATED)
    await say(catalog, JOB, JobQueued(priority="normal"))
    await say(trainer, JOB, JobAttemptStarted(worker=WorkerId("w1"), boot="b", resumes=0))
    holder = Holder(work="train", worker=WorkerId("w1"), boot="b")
    attempt = Attempt(Away(trainer, appends=2, loads=2), holder, JOB, await EventLog(trainer).load("job", JOB))
    # Somebody else's commit comes first, so that the report has to catch up before it is tried again.
    await say(catalog, JOB, JobEdited(name="renamed"))
    await attempt.report(finish(attempt))
    assert [type(fact) for fact in (await facts_of(catalog))[-2:]] == [JobEdited, JobSucceeded]


async def test_what_follows_from_the_end_is_tried_again_and_does_not_end_the_worker(
    catalog: Bus, trainer: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work_module, "SETTLE_AGAIN_SECONDS", 0.1)
    settled: list[bool] = []

    async def run(attempt: Attempt) -> None:
        await attempt.report(finish(attempt))

    async def settle(history: History) -> None:
        settled.append(fold(history.facts()).ended)
        if len(settled) < 3:
            raise OSError(28, "No space left on device")

    await ask_for(catalog)
    holder = Holder(work="train", worker=WorkerId("w1"), boot="b1", lease=LEASE)
    task = asyncio.create_task(Worker(trainer, holder, run, settle).work_off())
    async with asyncio.timeout(WAIT):
        while await WorkQueue(catalog, "train").waiting():  # noqa: ASYNC110 - a queue tells nobody
            await asyncio.sleep(0.05)
    assert settled == [True] * 3
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert sum(isinstance(fact, JobAttemptStarted) for fact in await facts_of(catalog)) == 1


async def test_a_worker_that_is_stopped_while_the_log_is_away_does_not_wait_for_it(
    catalog: Bus, trainer: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work_module, "GOODBYE_SECONDS", 0.2)
    started = asyncio.Event()

    async def slow(_: Attempt) -> None:
        started.set()
        await asyncio.Event().wait()

    await ask_for(catalog)
    holder = Holder(work="train", worker=WorkerId("w1"), boot="b1", lease=LEASE)
    worker = Worker(trainer, holder, slow)
    task = asyncio.create_task(worker.work_off())
    await started.wait()

    async def never(*_: object) -> Stored:
        await asyncio.Event().wait()
        raise AssertionError

    worker._log.append = never  # type: ignore[method-assign,assignment]
    task.cancel()
    async with asyncio.timeout(WAIT):
        await asyncio.gather(task, return_exceptions=True)
    assert isinstance((await facts_of(catalog))[-1], JobAttemptStarted)
