"""Slows down clients that try keys: each wrong one of too many waits before it is answered."""

import asyncio
import time
from collections.abc import Callable
from typing import NoReturn

from gateway.http.problems import TooManyAttempts, Unauthorized
from gateway.limits import KEY_LIMITS, KeyLimits


class WrongKeys:
    """Counts the wrong keys of each address. The right key is never slowed down, from wherever it comes."""

    def __init__(self, limits: KeyLimits = KEY_LIMITS, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self._full_again: dict[str, float] = {}
        """When each address has all its attempts again; the one that tried last is the last."""
        self._waiting = 0

    async def refuse(self, address: str) -> NoReturn:
        """Raises Unauthorized for a wrong key from an address, or later TooManyAttempts if there were too many."""
        limits, now = self._limits, self._clock()
        full_again = max(now, self._full_again.pop(address, now)) + limits.seconds_per_attempt
        ahead = full_again - now - limits.attempts * limits.seconds_per_attempt
        if ahead <= 0:
            self._remember(address, full_again)
            raise Unauthorized("the API key is wrong")
        self._remember(address, full_again - limits.seconds_per_attempt)
        if self._waiting < limits.waiting:
            self._waiting += 1
            try:
                await asyncio.sleep(limits.delay)
            finally:
                self._waiting -= 1
        raise TooManyAttempts(retry_after=max(1, round(ahead)))

    def _remember(self, address: str, full_again: float) -> None:
        self._full_again[address] = full_again
        if len(self._full_again) > self._limits.addresses:
            del self._full_again[next(iter(self._full_again))]
