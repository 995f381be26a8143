"""Retries and background loops, with a clock that jumps."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from structlog.testing import capture_logs

from contracts.errors import Behind, Rejected, Unavailable
from contracts.retry import Clock, Outage, RetryPolicy, repeat, retry

POLICY = RetryPolicy(first_delay=1.0, factor=2.0, max_delay=5.0)


@dataclass
class JumpingClock:
    """Sleeping is instant, and remembered."""

    time: float = 100.0
    slept: list[float] = field(default_factory=list)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds
        await asyncio.sleep(0)

    @property
    def clock(self) -> Clock:
        return Clock(now=lambda: self.time, sleep=self.sleep, uniform=lambda _, most: most)


class Flaky:
    """An operation that fails as often as it should, and counts its calls."""

    def __init__(self, *errors: Exception, then: Callable[[], object] = lambda: None) -> None:
        self.errors, self.then, self.calls = list(errors), then, 0

    async def __call__(self) -> int:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        self.then()
        return self.calls


async def lose_a_cancellation() -> None:
    """As `wait_for` of Python 3.11 does when the cancellation arrives together with a reply."""
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(0)


def test_delays_grow_up_to_the_longest() -> None:
    assert [POLICY.delay(failures) for failures in range(1, 6)] == [1.0, 2.0, 4.0, 5.0, 5.0]
    assert RetryPolicy(first_delay=0.3).delay(10**9) == 0.3
    assert RetryPolicy(first_delay=0.0, factor=2.0).delay(5) == 0.0


async def test_an_operation_is_retried_until_it_succeeds() -> None:
    jumping, operation = JumpingClock(), Flaky(Unavailable(), Behind(), Unavailable())

    assert await retry(operation, POLICY, on=(Unavailable, Behind), clock=jumping.clock) == 4

    assert jumping.slept == [1.0, 2.0, 4.0]


async def test_jitter_is_added_to_each_delay() -> None:
    jumping, policy = JumpingClock(), RetryPolicy(first_delay=0.5, jitter=0.25)

    await retry(Flaky(Unavailable(), Unavailable()), policy, on=Unavailable, clock=jumping.clock)

    assert jumping.slept == [0.75, 0.75]


async def test_an_outage_is_logged_once_and_so_is_its_end() -> None:
    operation = Flaky(Unavailable("no line"), Unavailable("still none"))

    with capture_logs() as logs:
        await retry(operation, POLICY, on=Unavailable, warn="queue_unavailable", clock=JumpingClock().clock)

    assert logs == [
        {"event": "queue_unavailable", "error": "no line", "log_level": "warning"},
        {"event": "outage_ended", "outage": "queue_unavailable", "failures": 2, "seconds": 3.0, "log_level": "info"},
    ]


async def test_success_at_once_logs_nothing() -> None:
    with capture_logs() as logs:
        await retry(Flaky(), POLICY, on=Unavailable, warn="queue_unavailable")

    assert logs == []


async def test_other_errors_are_not_retried() -> None:
    operation = Flaky(Rejected("no"))

    with pytest.raises(Rejected, match="no"):
        await retry(operation, POLICY, on=Unavailable)

    assert operation.calls == 1


@pytest.mark.parametrize(("limit", "calls"), [(0.0, 1), (1.0, 1), (3.0, 2), (3.5, 3)])
async def test_the_last_error_is_raised_before_the_time_limit_passes(limit: float, calls: int) -> None:
    jumping, operation = JumpingClock(), Flaky(*(Unavailable(str(number)) for number in range(1, 10)))
    policy = RetryPolicy(first_delay=1.0, factor=2.0, time_limit=limit)

    with pytest.raises(Unavailable, match=f"^{calls}$"):
        await retry(operation, policy, on=Unavailable, clock=jumping.clock)

    assert operation.calls == calls
    assert sum(jumping.slept) < max(limit, 0.1)


async def test_a_lost_cancellation_ends_the_retries() -> None:
    async def operation() -> None:
        calls.append(1)
        await lose_a_cancellation()
        raise Unavailable("gone")

    calls: list[int] = []
    task = asyncio.create_task(retry(operation, POLICY, on=Unavailable, clock=JumpingClock().clock))
    await asyncio.wait({task})
    assert (task.cancelled(), calls) == (True, [1])


async def test_a_success_restarts_delays_and_time_limit() -> None:
    jumping = JumpingClock()
    outage = Outage(None, RetryPolicy(first_delay=1.0, factor=2.0, time_limit=4.0), clock=jumping.clock)

    for _ in range(3):
        await outage.wait(Unavailable())
        await outage.wait(Unavailable())
        outage.ended()
    await outage.wait(Unavailable(), delay=3.5)
    with pytest.raises(Unavailable):
        await outage.wait(Unavailable())

    assert jumping.slept == [1.0, 2.0, 1.0, 2.0, 1.0, 2.0, 3.5]


async def test_a_background_loop_warns_once_per_outage_and_goes_on() -> None:
    jumping, done = JumpingClock(), asyncio.Event()
    step = Flaky(Unavailable("1"), Unavailable("2"), then=done.set)

    with capture_logs() as logs:
        task = asyncio.create_task(
            repeat(step, every=30.0, on=Unavailable, warn="queue_unavailable", after_error=POLICY, clock=jumping.clock)
        )
        await done.wait()
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    assert jumping.slept[:3] == [1.0, 2.0, 30.0]
    assert [line["event"] for line in logs] == ["queue_unavailable", "outage_ended"]


async def test_a_background_loop_ends_with_other_errors() -> None:
    with pytest.raises(Rejected):
        await repeat(Flaky(Unavailable(), Rejected()), every=1.0, on=Unavailable, clock=JumpingClock().clock)


async def test_a_background_loop_that_lost_its_cancellation_ends() -> None:
    async def step() -> None:
        calls.append(1)
        await lose_a_cancellation()

    calls: list[int] = []
    jumping = JumpingClock()
    await repeat(step, every=1.0, clock=jumping.clock)
    assert (calls, jumping.slept) == ([1], [])


async def test_waking_a_background_loop_skips_its_pause() -> None:
    wake, calls = asyncio.Event(), asyncio.Queue[int]()
    step = Flaky()

    async def count() -> None:
        calls.put_nowait(await step())
        if step.calls == 2:
            wake.set()  # during the step: the next one follows at once

    task = asyncio.create_task(repeat(count, every=3600.0, wake=wake))
    assert await calls.get() == 1
    wake.set()
    assert [await calls.get(), await calls.get()] == [2, 3]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_background_loop_runs_again_when_its_pause_is_over() -> None:
    done = asyncio.Event()
    step = Flaky(Unavailable(), Unavailable(), then=done.set)

    task = asyncio.create_task(repeat(step, every=0.0, on=Unavailable, wake=asyncio.Event()))
    await done.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert step.calls >= 3
