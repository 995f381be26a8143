"""Retrying and repeating: how long to wait is a value, and an outage is logged once when it begins and once it is over.

    QUEUE_RETRIES = RetryPolicy(first_delay=0.5, factor=2, max_delay=10, time_limit=60)

    # One result. Raises the last error after `time_limit`, and CancelledError as soon as the task was cancelled:
    page = await retry(lambda: client.query(query), QUEUE_RETRIES, on=(Unavailable, Behind), warn="catalog_unavailable")
    # A background task: one step every five seconds, or earlier when `wake` is set; ends when it is cancelled:
    await repeat(self._reconcile, every=5.0, on=Unavailable, warn="queue_unavailable", wake=self._wake)
    # Any other loop: call `ended` after each success, and `begun` (logs) or `wait` (also waits or raises) on errors.
    outage = Outage("stream_unavailable", QUEUE_RETRIES)

Only errors of `on` are retried. Tests pass a `Clock` of their own and do not wait.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

import msgspec
import structlog

from contracts.cancellation import is_cancelled

T = TypeVar("T")
Errors = type[Exception] | tuple[type[Exception], ...]

_log = structlog.get_logger()


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Delays in seconds: the first, then `factor` times the one before up to `max_delay`, each plus 0 to `jitter`.

    `time_limit`: seconds since the start or the last success after which the error is raised; None: never.
    """

    first_delay: float = 1.0
    factor: float = 1.0
    max_delay: float = float("inf")
    jitter: float = 0.0
    time_limit: float | None = None

    def delay(self, failures: int) -> float:
        """The delay after this many failures in a row (1: the first), without jitter."""
        exponent = min(failures - 1, 100)  # more would overflow in the end, and no delay grows that far
        return min(self.first_delay * self.factor**exponent, self.max_delay)


@dataclass(frozen=True)
class Clock:
    """The time and the random numbers that retries use; tests pass their own."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    uniform: Callable[[float, float], float] = random.uniform


REAL_CLOCK = Clock()
EVERY_SECOND = RetryPolicy()


class Outage:
    """The failures in a row of one operation: the first one is logged as the warning `warn`, and so is the recovery."""

    def __init__(self, warn: str | None, policy: RetryPolicy = EVERY_SECOND, *, clock: Clock = REAL_CLOCK) -> None:
        """`warn` None: nothing is logged."""
        self._warn, self._policy, self._clock = warn, policy, clock
        self.failures = 0
        self._last_success = clock.now()

    def begun(self, error: Exception, **keys: object) -> None:
        """Counts a failure; `keys` are logged with it."""
        self.failures += 1
        if self.failures == 1 and self._warn is not None:
            _log.warning(self._warn, error=str(error) or repr(error), **keys)

    def ended(self) -> None:
        """Counts a success."""
        if self.failures and self._warn is not None:
            seconds = round(self._clock.now() - self._last_success, 1)
            _log.info("outage_ended", outage=self._warn, failures=self.failures, seconds=seconds)
        self.failures = 0
        self._last_success = self._clock.now()

    async def wait(self, error: Exception, *, delay: float | None = None) -> None:
        """Counts a failure and waits for the next try (`delay` seconds, if given).

        Raises `error` instead if the time limit would be over by then; CancelledError if the task was cancelled and
        that was lost (see `contracts.cancellation`).
        """
        self.begun(error)
        if delay is None:
            delay = self._policy.delay(self.failures) + self._clock.uniform(0, self._policy.jitter)
        limit = self._policy.time_limit
        if is_cancelled():
            raise asyncio.CancelledError from error
        if limit is not None and self._clock.now() + delay >= self._last_success + limit:
            raise error
        await self._clock.sleep(delay)


async def retry(
    operation: Callable[[], Awaitable[T]],
    policy: RetryPolicy,
    *,
    on: Errors,
    warn: str | None = None,
    clock: Clock = REAL_CLOCK,
) -> T:
    """The result of `operation`, which is tried again on errors of `on`; raises the last of them at the time limit."""
    outage = Outage(warn, policy, clock=clock)
    while True:
        try:
            result = await operation()
        except on as error:
            await outage.wait(error)
        else:
            outage.ended()
            return result


async def repeat(  # noqa: PLR0913 - one keyword for each way in which background loops differ
    step: Callable[[], Awaitable[object]],
    *,
    every: float,
    on: Errors = (),
    warn: str | None = None,
    after_error: RetryPolicy | None = None,
    wake: asyncio.Event | None = None,
    clock: Clock = REAL_CLOCK,
) -> None:
    """Runs `step` at once and then `every` seconds (counted from its end), until the task is cancelled.

    Errors of `on` do not end it; `after_error` are the delays after them, where they differ. Setting `wake` ends a
    pause early; set during a step, it skips the pause.
    """
    outage = Outage(warn, clock=clock)
    while True:
        if wake is not None:
            wake.clear()
        pause = every
        try:
            await step()
        except on as error:
            outage.begun(error)
            pause = every if after_error is None else after_error.delay(outage.failures)
        else:
            outage.ended()
        if is_cancelled():
            return
        await _pause(pause, wake, clock)


async def _pause(seconds: float, wake: asyncio.Event | None, clock: Clock) -> None:
    if wake is None:
        await clock.sleep(seconds)
        return
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await wake.wait()
