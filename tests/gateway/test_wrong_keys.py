"""How many wrong keys are answered at once, and when an address has attempts again."""

import pytest

from gateway.http.problems import TooManyAttempts, Unauthorized
from gateway.http.wrong_keys import WrongKeys
from gateway.limits import KeyLimits
from tests.gateway.conftest import Clock

LIMITS = KeyLimits(attempts=3, seconds_per_attempt=6, delay=0, addresses=2)


async def outcome(keys: WrongKeys, address: str) -> int:
    """0, or the seconds after which to try again."""
    try:
        await keys.refuse(address)
    except Unauthorized:
        return 0
    except TooManyAttempts as error:
        seconds = error.extra["retry_after"]
        assert isinstance(seconds, int)
        return seconds


async def test_attempts_come_back_with_time() -> None:
    clock = Clock()
    keys = WrongKeys(LIMITS, clock)
    assert [await outcome(keys, "a") for _ in range(5)] == [0, 0, 0, 6, 6]
    clock.ahead = 4
    assert await outcome(keys, "a") == 2
    clock.ahead = 6
    assert [await outcome(keys, "a") for _ in range(2)] == [0, 6]
    clock.ahead = 1000
    assert [await outcome(keys, "a") for _ in range(4)] == [0, 0, 0, 6]


async def test_each_address_has_its_own_and_few_are_remembered() -> None:
    keys = WrongKeys(LIMITS, Clock())
    assert [await outcome(keys, "a") for _ in range(4)] == [0, 0, 0, 6]
    assert [await outcome(keys, one) for one in ("b", "c")] == [0, 0]
    assert await outcome(keys, "a") == 0


async def test_only_so_many_answers_wait() -> None:
    keys = WrongKeys(KeyLimits(attempts=0, delay=60, waiting=0), Clock())
    with pytest.raises(TooManyAttempts):
        await keys.refuse("a")
