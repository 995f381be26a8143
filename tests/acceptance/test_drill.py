"""The crash drill in short: the same program, a minute of faults. `make drill` is the long one."""

import sys
from pathlib import Path

import pytest

from tests.acceptance.chronicle import LOST_LINES
from tests.drill.__main__ import table
from tests.drill.drill import Asked, drilled

pytestmark = [
    LOST_LINES,
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc"),
]

SHORT = Asked(seed=83, faults=8, seconds=60, writes=200, jobs=2, longest=4, small_disk=False)


async def test_a_minute_of_faults_loses_nothing_and_doubles_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []
    outcome = await drilled(SHORT, tmp_path, said.append)
    with capsys.disabled():
        print("\n".join(table(outcome)))  # noqa: T201 - these figures are what is asked for
    assert not outcome.failures, "\n".join([*outcome.failures, *said])
    assert len(outcome.struck) == SHORT.faults
