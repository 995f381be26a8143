"""A short crash drill: the program of `make drill`, with one minute of faults."""

import sys
from pathlib import Path

import pytest

from tests.damage import IGNORE_UNCLOSED_SOCKETS
from tests.drill.__main__ import format_table
from tests.drill.drill import DrillConfig, run_drill

pytestmark = [
    IGNORE_UNCLOSED_SOCKETS,
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]

SHORT = DrillConfig(seed=83, faults=8, seconds=60, writes=200, jobs=2, longest=4, small_disk=False)


async def test_a_minute_of_faults_loses_and_duplicates_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output: list[str] = []
    result = await run_drill(SHORT, tmp_path, output.append)
    with capsys.disabled():
        print("\n".join(format_table(result)))  # noqa: T201 - these figures are quoted in the documentation
    assert not result.failures, "\n".join([*result.failures, *output])
    assert len(result.injected) == SHORT.faults
