"""The state machine of work: what is asked and what workers say, in any order."""

from datetime import timedelta
from typing import get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from contracts import events as e
from contracts.errors import Fenced, IllegalTransition, NotFound
from contracts.events import Fact, JobFact, TaggingFact
from contracts.ids import Digest, WorkerId
from contracts.jobs import (
    ENDED,
    FRUITLESS_LIMIT,
    State,
    Status,
    Work,
    admit,
    attempt_failed,
    cancel,
    cancelled,
    evolve,
    failed,
    fold,
    interrupted,
    opening,
    queue_up,
    status_of,
)
from tests.contracts.samples import sample_of

CREATED = sample_of(e.JobCreated)
QUEUED = e.JobQueued(priority="normal")
STARTED = e.JobAttemptStarted(worker=WorkerId("w1"), boot="b1", resumes=0)


def crashed(attempt: int) -> Fact:
    return attempt_failed("train", attempt=attempt, step=0, reason="signal 9")


def polite(attempt: int) -> Fact:
    return interrupted("train", attempt=attempt, step=0, reason="stopped")


def kept(attempt: int, step: int) -> Fact:
    return e.JobCheckpointed(attempt=attempt, step=step, checkpoint=Digest("0" * 64), size=1)


def after(*facts: Fact) -> Work:
    """The work after these facts, at sequences 1, 2, …"""
    return fold((fact, sequence) for sequence, fact in enumerate(facts, start=1))


def opened(work: Work) -> Fact | None:
    return opening(work, "train", dispatch=work.dispatch, worker=WorkerId("w2"), boot="b2")


# --- no history is too strange

ANY_FACT = st.sampled_from([sample_of(kind) for kind in (*get_args(JobFact), *get_args(TaggingFact))])


@given(st.lists(st.tuples(ANY_FACT, st.integers(1, 50)), max_size=30))
@settings(max_examples=150, deadline=timedelta(seconds=2), suppress_health_check=[HealthCheck.too_slow])
def test_no_history_is_too_strange_to_be_folded(history: list[tuple[Fact, int]]) -> None:
    work = fold(history)
    assert work.state in get_args(State)
    assert status_of(work.state) in get_args(Status)
    assert work.fruitless >= 0
    middle = len(history) // 2
    assert fold(history[middle:], fold(history[:middle])) == work


# --- the fence


@pytest.mark.parametrize("ended", sorted(ENDED))
def test_nobody_writes_after_the_end(ended: State) -> None:
    with pytest.raises(Fenced):
        admit(Work(state=ended, attempt=3, open=True), kept(3, 10), 3)


def test_only_the_current_attempt_writes() -> None:
    work = after(CREATED, QUEUED, STARTED, crashed(3), STARTED)
    admit(work, kept(5, 10), 5)
    for stale in (3, 4, 6, 0):
        with pytest.raises(Fenced):
            admit(work, kept(stale, 10), stale)
    with pytest.raises(Fenced):
        admit(work, kept(3, 10), 5)


def test_an_attempt_that_has_ended_writes_no_more() -> None:
    for end in (crashed(3), polite(3)):
        with pytest.raises(Fenced):
            admit(after(CREATED, QUEUED, STARTED, end), kept(3, 10), 3)


def test_what_is_asked_is_not_for_workers_to_say() -> None:
    work = after(CREATED, QUEUED, STARTED)
    for fact in (QUEUED, e.JobCancelRequested(), e.JobRemoved(), STARTED, e.JobEdited(name="x")):
        with pytest.raises(Fenced):
            admit(work, fact, 3)


def test_what_is_said_meanwhile_does_not_fence() -> None:
    asked = (e.JobEdited(name="x"), e.JobPrioritised(priority="high"), e.JobCancelRequested())
    work = after(CREATED, QUEUED, STARTED, *asked)
    admit(work, cancelled("train", attempt=3, step=1), 3)
    admit(work, kept(3, 1), 3)


# --- hints


def test_a_hint_opens_an_attempt_that_goes_on_from_what_is_kept() -> None:
    work = after(CREATED, QUEUED, STARTED, kept(3, 40), polite(3))
    assert opened(work) == e.JobAttemptStarted(worker=WorkerId("w2"), boot="b2", resumes=40)


@pytest.mark.parametrize(
    "history",
    [
        (),
        (CREATED,),
        (CREATED, QUEUED, e.JobCancelRequested(), e.JobCancelled()),
        (CREATED, QUEUED, STARTED, e.JobSucceeded(attempt=3, step=1, artifacts=())),
    ],
)
def test_a_hint_of_what_does_not_wait_is_dropped(history: tuple[Fact, ...]) -> None:
    assert opened(after(*history)) is None


def test_only_the_newest_hint_counts() -> None:
    work = after(CREATED, QUEUED, e.JobPrioritised(priority="high"), QUEUED)
    assert work.dispatch == 4
    assert opening(work, "train", dispatch=2, worker=WorkerId("w"), boot="b") is None


def test_work_whose_worker_died_after_it_was_cancelled_ends_with_the_next() -> None:
    work = after(CREATED, QUEUED, STARTED, kept(3, 7), e.JobCancelRequested())
    assert opened(work) == e.JobCancelled(attempt=3, step=7)


# --- poison


def test_three_attempts_that_died_for_nothing_are_the_last() -> None:
    work = after(CREATED, QUEUED, STARTED, crashed(3), STARTED, crashed(5), STARTED)
    assert work.fruitless == 2
    # The third died without a word: the hint came back while its attempt is open.
    last = opened(work)
    assert isinstance(last, e.JobFailed)
    assert last.code == "poison"
    assert isinstance(opened(evolve(work, crashed(7), 8)), e.JobFailed)


def test_a_polite_stop_never_counts() -> None:
    stops = [fact for number in range(3, 23, 2) for fact in (STARTED, polite(number))]
    assert after(CREATED, QUEUED, *stops).fruitless == 0
    work = after(CREATED, QUEUED, STARTED, crashed(3), STARTED, polite(5), STARTED, crashed(7))
    assert work.fruitless == 2
    assert isinstance(opened(work), e.JobAttemptStarted)


def test_a_newer_checkpoint_makes_good_what_died_before() -> None:
    work = after(CREATED, QUEUED, STARTED, crashed(3), STARTED, crashed(5), STARTED, kept(7, 10), crashed(7))
    assert work.fruitless == 0
    again = after(CREATED, QUEUED, STARTED, kept(3, 10), crashed(3), STARTED, kept(6, 10), crashed(6))
    assert again.fruitless == 1, "the same step again is nothing new"


# --- what may be asked


def test_starting_and_cancelling_twice_is_no_news() -> None:
    draft = after(CREATED)
    assert queue_up(draft, "train") == e.JobQueued(priority=CREATED.priority)
    waiting = after(CREATED, QUEUED)
    assert queue_up(waiting, "train") is None
    assert cancel(waiting, "train", "enough") == [e.JobCancelRequested(reason="enough"), e.JobCancelled()]
    running = after(CREATED, QUEUED, STARTED)
    assert cancel(running, "train") == [e.JobCancelRequested()]
    assert cancel(evolve(running, e.JobCancelRequested(), 4), "train") == []
    assert cancel(Work(state="cancelled"), "train") == []


def test_what_cannot_be_done_is_refused_with_the_state() -> None:
    for state in ("completed", "failed"):
        with pytest.raises(IllegalTransition) as refused:
            cancel(Work(state=state), "train")
        assert refused.value.facts["state"] == state
    for state in ("completed", "failed", "cancelled", "cancelling"):
        with pytest.raises(IllegalTransition):
            queue_up(Work(state=state), "train")  # type: ignore[arg-type]
    for state in ("absent", "removed"):
        with pytest.raises(NotFound):
            queue_up(Work(state=state), "train")  # type: ignore[arg-type]


def test_tagging_runs_move_by_the_same_rules() -> None:
    asked, queued = sample_of(e.TaggingRequested), e.TaggingQueued(priority="low")
    started = e.TaggingAttemptStarted(worker=WorkerId("t"), boot="b", resumes=0)
    seen = e.ImagePredictions(ordinal=0, predictions=())
    work = after(asked, queued, started, e.TaggingPredicted(attempt=3, images=(seen, seen)))
    assert (work.state, work.kept, work.priority) == ("running", 2, "low")
    assert cancel(work, "tag") == [e.TaggingCancelRequested()]
    opens = opening(work, "tag", dispatch=work.dispatch, worker=WorkerId("u"), boot="b")
    assert opens == e.TaggingAttemptStarted(worker=WorkerId("u"), boot="b", resumes=2)


# --- all walks that the rules allow


class Walk(RuleBasedStateMachine):
    """A catalog and several workers, one of which is always slow, write as the rules let them."""

    attempts = Bundle("attempts")

    def __init__(self) -> None:
        super().__init__()
        self.sequence = 2
        self.work = after(CREATED, QUEUED)
        self.ends = 0

    def write(self, *facts: Fact) -> None:
        self.sequence += 1
        for fact in facts:
            self.work = evolve(self.work, fact, self.sequence)
        self.ends += sum(isinstance(fact, e.Cancelled | e.Failed | e.JobSucceeded) for fact in facts)

    @rule(target=attempts)
    def a_hint_is_taken(self) -> int:
        before = self.work
        fact = opened(before)
        if fact is not None:
            self.write(fact)
        if isinstance(fact, e.JobAttemptStarted):
            assert before.fruitless < FRUITLESS_LIMIT
        return self.work.attempt

    @rule(attempt=attempts, step=st.integers(1, 9), kind=st.sampled_from("skcpxf"))
    def a_worker_reports(self, attempt: int, step: int, kind: str) -> None:
        fact = {
            "s": e.JobSucceeded(attempt=attempt, step=step, artifacts=()),
            "k": kept(attempt, step),
            "c": crashed(attempt),
            "p": polite(attempt),
            "x": cancelled("train", attempt=attempt, step=step),
            "f": failed("train", attempt=attempt, code="x", reason="y"),
        }[kind]
        current = self.work.open and attempt == self.work.attempt
        try:
            admit(self.work, fact, attempt)
        except Fenced:
            assert not current or self.work.ended
            return
        assert current
        self.write(fact)

    @rule()
    def it_is_cancelled(self) -> None:
        try:
            facts = cancel(self.work, "train")
        except (IllegalTransition, NotFound):
            assert self.work.ended
            return
        if facts:
            self.write(*facts)

    @rule()
    def it_is_started(self) -> None:
        try:
            assert queue_up(self.work, "train") is None
        except (IllegalTransition, NotFound):
            assert self.work.ended or self.work.state == "cancelling"

    @invariant()
    def it_ends_once_and_for_good(self) -> None:
        assert self.ends == int(self.work.ended)
        assert not (self.work.ended and self.work.open)

    @invariant()
    def who_runs_has_an_attempt(self) -> None:
        if self.work.open:
            assert self.work.state in ("running", "cancelling")
        assert self.work.fruitless <= FRUITLESS_LIMIT


Walk.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestWalk = Walk.TestCase
