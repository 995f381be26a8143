"""The state machine of work: requests and reports of workers, in any order."""

from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from contracts.errors import Fenced, IllegalTransition, NotFound
from contracts.events.base import Event
from contracts.events.jobs import (
    JOB_WORK,
    JobAttemptStarted,
    JobCancelled,
    JobCancelRequested,
    JobCheckpointed,
    JobCreated,
    JobEdited,
    JobEvent,
    JobFailed,
    JobPrioritised,
    JobQueued,
    JobRemoved,
    JobStartRequested,
    JobSucceeded,
    JobVersionSet,
)
from contracts.events.tagging import (
    TAGGING_WORK,
    ImagePredictions,
    TaggingAttemptStarted,
    TaggingCancelRequested,
    TaggingEvent,
    TaggingPredicted,
    TaggingQueued,
    TaggingRequested,
)
from contracts.events.work import Cancelled, Failed
from contracts.ids import Digest, WorkerId
from contracts.jobs import (
    ENDED,
    MAX_ATTEMPTS_WITHOUT_PROGRESS,
    State,
    Work,
    cancel,
    check_fencing_token,
    enqueue,
    evolve,
    fold,
    open_attempt,
    status_of,
    with_completed_steps,
)
from contracts.subjects import Status
from tests.contracts.samples import sample_of
from tests.limits import examples

CREATED = sample_of(JobCreated)
VERSION_SET = sample_of(JobVersionSet)
QUEUED = JobQueued(priority="normal")
STARTED = JobAttemptStarted(worker=WorkerId("w1"), boot="b1", resumes=0)


def crashed(attempt: int) -> Event:
    return JOB_WORK.attempt_failed(attempt=attempt, step=0, reason="signal 9")


def stopped(attempt: int) -> Event:
    return JOB_WORK.interrupted(attempt=attempt, step=0, reason="stopped")


def checkpointed(attempt: int, step: int) -> Event:
    return JobCheckpointed(attempt=attempt, step=step, checkpoint=Digest("0" * 64), size=1)


def work_after(*events: Event) -> Work:
    """The work after these events, at sequences 1, 2, …; a new job has its version at once."""
    return fold(
        (one, sequence)
        for sequence, event in enumerate(events, start=1)
        for one in ((event, VERSION_SET) if event is CREATED else (event,))
    )


def freezing_after(*events: Event) -> Work:
    """A new job without a version after these events."""
    return fold([(event, 1) for event in (CREATED, *events)])


def open_next_attempt(work: Work) -> Event | None:
    return open_attempt(work, JOB_WORK, dispatch=work.dispatch, worker=WorkerId("w2"), boot="b2")


# --- folding

ANY_EVENT = st.sampled_from([sample_of(kind) for kind in (*get_args(JobEvent), *get_args(TaggingEvent))])


@given(st.lists(st.tuples(ANY_EVENT, st.integers(1, 50)), max_size=30))
@settings(max_examples=examples(150))
def test_any_history_can_be_folded(history: list[tuple[Event, int]]) -> None:
    work = fold(history)
    assert work.state in get_args(State)
    assert status_of(work.state) in get_args(Status)
    assert work.attempts_without_progress >= 0
    middle = len(history) // 2
    assert fold(history[middle:], fold(history[:middle])) == work


# --- the fencing token


@pytest.mark.parametrize("end_state", sorted(ENDED))
def test_no_worker_event_is_accepted_after_the_end(end_state: State) -> None:
    with pytest.raises(Fenced):
        check_fencing_token(Work(state=end_state, attempt=3, open=True), checkpointed(3, 10), 3)


def test_only_events_of_the_current_attempt_are_accepted() -> None:
    work = work_after(CREATED, QUEUED, STARTED, crashed(3), STARTED)
    check_fencing_token(work, checkpointed(5, 10), 5)
    for stale in (3, 4, 6, 0):
        with pytest.raises(Fenced):
            check_fencing_token(work, checkpointed(stale, 10), stale)
    with pytest.raises(Fenced):
        check_fencing_token(work, checkpointed(3, 10), 5)


def test_events_of_an_attempt_that_has_ended_are_refused() -> None:
    for end in (crashed(3), stopped(3)):
        with pytest.raises(Fenced):
            check_fencing_token(work_after(CREATED, QUEUED, STARTED, end), checkpointed(3, 10), 3)


def test_workers_may_not_append_requests() -> None:
    work = work_after(CREATED, QUEUED, STARTED)
    for event in (QUEUED, JobCancelRequested(), JobRemoved(), STARTED, JobEdited(name="x")):
        with pytest.raises(Fenced):
            check_fencing_token(work, event, 3)


def test_requests_by_clients_do_not_fence_the_attempt() -> None:
    requested = (JobEdited(name="x"), JobPrioritised(priority="high"), JobCancelRequested())
    work = work_after(CREATED, QUEUED, STARTED, *requested)
    for event in (JOB_WORK.cancelled(attempt=3, step=1), checkpointed(3, 1)):
        check_fencing_token(work, event, 3)
        with pytest.raises(Fenced):
            check_fencing_token(work, event, 2)


# --- queue messages


def test_a_queue_message_opens_an_attempt_that_resumes_from_the_checkpoint() -> None:
    work = work_after(CREATED, QUEUED, STARTED, checkpointed(3, 40), stopped(3))
    assert open_next_attempt(work) == JobAttemptStarted(worker=WorkerId("w2"), boot="b2", resumes=40)


@pytest.mark.parametrize(
    "history",
    [
        (),
        (CREATED,),
        (CREATED, QUEUED, JobCancelRequested(), JobCancelled()),
        (CREATED, QUEUED, STARTED, JobSucceeded(attempt=3, step=1, artifacts=())),
    ],
)
def test_a_queue_message_for_work_that_is_not_queued_is_stale(history: tuple[Event, ...]) -> None:
    assert open_next_attempt(work_after(*history)) is None


def test_only_the_newest_dispatch_number_is_current() -> None:
    work = work_after(CREATED, QUEUED, JobPrioritised(priority="high"), QUEUED)
    assert work.dispatch == 4
    assert open_attempt(work, JOB_WORK, dispatch=2, worker=WorkerId("w"), boot="b") is None


def test_cancelled_work_whose_worker_died_is_ended_by_the_next_worker() -> None:
    work = work_after(CREATED, QUEUED, STARTED, checkpointed(3, 7), JobCancelRequested())
    assert open_next_attempt(work) == JobCancelled(attempt=3, step=7)


# --- poison


def test_work_fails_after_three_crashed_attempts_without_progress() -> None:
    work = work_after(CREATED, QUEUED, STARTED, crashed(3), STARTED, crashed(5), STARTED)
    assert work.attempts_without_progress == 2
    # The third worker died without a report: the message was redelivered while its attempt is open.
    last = open_next_attempt(work)
    assert isinstance(last, JobFailed)
    assert last.code == "poison"
    assert isinstance(open_next_attempt(evolve(work, crashed(7), 8)), JobFailed)


def test_an_interruption_never_counts_as_a_crash() -> None:
    attempts = [event for number in range(3, 23, 2) for event in (STARTED, stopped(number))]
    assert work_after(CREATED, QUEUED, *attempts).attempts_without_progress == 0
    work = work_after(CREATED, QUEUED, STARTED, crashed(3), STARTED, stopped(5), STARTED, crashed(7))
    assert work.attempts_without_progress == 2
    assert isinstance(open_next_attempt(work), JobAttemptStarted)


def test_a_newer_checkpoint_resets_the_count_of_crashes() -> None:
    work = work_after(
        CREATED, QUEUED, STARTED, crashed(3), STARTED, crashed(5), STARTED, checkpointed(7, 10), crashed(7)
    )
    assert work.attempts_without_progress == 0
    again = work_after(
        CREATED, QUEUED, STARTED, checkpointed(3, 10), crashed(3), STARTED, checkpointed(6, 10), crashed(6)
    )
    assert again.attempts_without_progress == 1, "the same step again is no progress"


# --- requests


def test_starting_and_cancelling_are_idempotent() -> None:
    draft = work_after(CREATED)
    assert enqueue(draft, JOB_WORK) == JobQueued(priority=CREATED.priority)
    waiting = work_after(CREATED, QUEUED)
    assert enqueue(waiting, JOB_WORK) is None
    assert cancel(waiting, JOB_WORK, "enough") == [JobCancelRequested(reason="enough"), JobCancelled()]
    running = work_after(CREATED, QUEUED, STARTED)
    assert cancel(running, JOB_WORK) == [JobCancelRequested()]
    assert cancel(evolve(running, JobCancelRequested(), 4), JOB_WORK) == []
    assert cancel(Work(state="cancelled"), JOB_WORK) == []


def test_impossible_transitions_are_refused_with_the_state() -> None:
    for state in ("completed", "failed"):
        with pytest.raises(IllegalTransition) as refused:
            cancel(Work(state=state), JOB_WORK)
        assert refused.value.extra["state"] == state
    for state in ("completed", "failed", "cancelled", "cancelling"):
        with pytest.raises(IllegalTransition):
            enqueue(Work(state=state), JOB_WORK)  # type: ignore[arg-type]
    for state in ("absent", "removed"):
        with pytest.raises(NotFound):
            enqueue(Work(state=state), JOB_WORK)  # type: ignore[arg-type]


def test_tagging_runs_follow_the_same_rules() -> None:
    requested, queued = sample_of(TaggingRequested), TaggingQueued(priority="low")
    started = TaggingAttemptStarted(worker=WorkerId("t"), boot="b", resumes=0)
    prediction = ImagePredictions(ordinal=0, predictions=())
    work = work_after(requested, queued, started, TaggingPredicted(attempt=3, images=(prediction, prediction)))
    assert (work.state, work.completed_units, work.priority) == ("running", 2, "low")
    assert cancel(work, TAGGING_WORK) == [TaggingCancelRequested()]
    started_again = open_attempt(work, TAGGING_WORK, dispatch=work.dispatch, worker=WorkerId("u"), boot="b")
    assert started_again == TaggingAttemptStarted(worker=WorkerId("u"), boot="b", resumes=2)


# --- random sequences of transitions


class WorkStateMachine(RuleBasedStateMachine):
    """A catalog and several workers, some of them stale, append what the rules allow."""

    attempts = Bundle("attempts")

    def __init__(self) -> None:
        super().__init__()
        self.sequence = 2
        self.work = work_after(CREATED, QUEUED)
        self.ends = 0

    def write(self, *events: Event) -> None:
        self.sequence += 1
        for event in events:
            self.work = evolve(self.work, event, self.sequence)
        self.ends += sum(isinstance(event, Cancelled | Failed | JobSucceeded) for event in events)

    @rule(target=attempts)
    def a_queue_message_is_delivered(self) -> int:
        work_before = self.work
        event = open_next_attempt(work_before)
        if event is not None:
            self.write(event)
        if isinstance(event, JobAttemptStarted):
            assert work_before.attempts_without_progress < MAX_ATTEMPTS_WITHOUT_PROGRESS
        return self.work.attempt

    @rule(attempt=attempts, step=st.integers(1, 9), kind=st.sampled_from("skcpxf"))
    def a_worker_reports(self, attempt: int, step: int, kind: str) -> None:
        event = {
            "s": JobSucceeded(attempt=attempt, step=step, artifacts=()),
            "k": checkpointed(attempt, step),
            "c": crashed(attempt),
            "p": stopped(attempt),
            "x": JOB_WORK.cancelled(attempt=attempt, step=step),
            "f": JOB_WORK.failed(attempt=attempt, code="x", reason="y"),
        }[kind]
        current = self.work.open and attempt == self.work.attempt
        try:
            check_fencing_token(self.work, event, attempt)
        except Fenced:
            assert not current or self.work.ended
            return
        assert current
        self.write(event)

    @rule()
    def it_is_cancelled(self) -> None:
        try:
            events = cancel(self.work, JOB_WORK)
        except (IllegalTransition, NotFound):
            assert self.work.ended
            return
        if events:
            self.write(*events)

    @rule()
    def it_is_started(self) -> None:
        try:
            assert enqueue(self.work, JOB_WORK) is None
        except (IllegalTransition, NotFound):
            assert self.work.ended or self.work.state == "cancelling"

    @invariant()
    def it_ends_once_and_for_good(self) -> None:
        assert self.ends == int(self.work.ended)
        assert not (self.work.ended and self.work.open)

    @invariant()
    def an_open_attempt_is_running(self) -> None:
        if self.work.open:
            assert self.work.state in ("running", "cancelling")
        assert self.work.attempts_without_progress <= MAX_ATTEMPTS_WITHOUT_PROGRESS


WorkStateMachine.TestCase.settings = settings(max_examples=examples(60), stateful_step_count=25)
TestWorkStateMachine = WorkStateMachine.TestCase


def test_the_end_of_an_attempt_names_the_steps_that_are_in_the_log() -> None:
    work = Work(state="running", attempt=3, open=True, completed_units=8)
    interrupted = JOB_WORK.interrupted(attempt=3, step=4, reason="stopped")
    assert with_completed_steps(work, interrupted) == JOB_WORK.interrupted(attempt=3, step=8, reason="stopped")
    assert with_completed_steps(work, JOB_WORK.cancelled(attempt=3, step=9)) == JOB_WORK.cancelled(attempt=3, step=9)
    failed = JOB_WORK.failed(attempt=3, code="x", reason="y")
    assert with_completed_steps(work, failed) == failed


# --- while its data set is being frozen


def test_a_job_without_a_version_is_pending_and_no_worker_gets_it() -> None:
    work = freezing_after()
    assert (work.state, status_of(work.state), work.start_requested) == ("freezing", "pending", False)
    assert open_next_attempt(work) is None
    assert freezing_after(VERSION_SET).state == "draft"


def test_a_start_is_remembered_until_the_job_has_its_version() -> None:
    assert enqueue(freezing_after(), JOB_WORK) == JobStartRequested()
    requested = freezing_after(JobStartRequested())
    assert (requested.start_requested, enqueue(requested, JOB_WORK)) == (True, None)
    assert freezing_after(JobStartRequested(), VERSION_SET, QUEUED).state == "queued"


def test_a_job_without_a_version_is_cancelled_at_once() -> None:
    events = cancel(freezing_after(), JOB_WORK)
    assert events == [JobCancelRequested(), JobCancelled()]
    assert freezing_after(*events, VERSION_SET).state == "cancelled"
