"""A short crash drill: the program of `make drill`, with forty seconds of faults."""

import asyncio
import sys
from pathlib import Path

import pytest

from tests.damage import IGNORE_UNCLOSED_SOCKETS
from tests.drill.drill import run_drill
from tests.drill.result import DrillConfig, format_table
from tests.limits import WAIT

pytestmark = [
    IGNORE_UNCLOSED_SOCKETS,
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]

SHORT = DrillConfig(seed=83, faults=8, seconds=40, writes=200, jobs=2, longest=4, small_disk=False)


@pytest.mark.drill
async def test_forty_seconds_of_faults_lose_and_duplicate_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output: list[str] = []
    result = await run_drill(SHORT, tmp_path, output.append)
    with capsys.disabled():
        print("\n".join(format_table(result)))  # noqa: T201 - these figures are quoted in the documentation
    assert not result.failures, "\n".join([*result.failures, *output])
    assert len(result.injected) == SHORT.faults


@pytest.mark.drill
async def test_an_interrupted_drill_still_prints_its_table(tmp_path: Path) -> None:
    running = asyncio.Event()
    output: list[str] = []

    def print_line(line: str) -> None:
        output.append(line)
        if f"1/{SHORT.faults}  " in line:
            running.set()

    drill = asyncio.create_task(run_drill(SHORT, tmp_path, print_line))
    async with asyncio.timeout(WAIT):
        await running.wait()
    drill.cancel()
    result = await drill
    table = format_table(result)
    assert result.ended_early == "interrupted", "\n".join([*table, *output])
    assert result.writes > 0
    assert not [error for error in result.failures if error.startswith(("lost", "doubled", "stuck"))]
    assert "NOT PASSED" in table
