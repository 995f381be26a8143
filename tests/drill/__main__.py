"""`python -m tests.drill --seed 7 --faults 200 --minutes 40`: runs a drill, prints its table, exits 1 on failure.

Ctrl-C and SIGTERM end it early; the table is printed then, too.
"""

import argparse
import asyncio
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.drill.drill import run_drill
from tests.drill.result import DrillConfig, DrillResult, format_table
from tests.drill.schedule import EXTRAS


def main() -> int:
    options = _options()
    config = DrillConfig(
        seed=options.seed,
        faults=options.faults,
        seconds=options.minutes * 60,
        writers=options.writers,
        writes=options.writes,
        jobs=options.jobs,
        longest=options.longest,
        small_disk=not options.no_disk,
        extras=frozenset(options.extras),
    )
    began = time.monotonic()

    def print_line(line: str) -> None:
        print(f"{time.monotonic() - began:8.1f} s  {line}", flush=True)

    folder = options.folder or Path(tempfile.mkdtemp(prefix="loratory-drill-"))
    folder.mkdir(parents=True, exist_ok=True)
    result = asyncio.run(_run(config, folder, print_line))
    print("\n".join(format_table(result)))
    return 1 if result.failures else 0


async def _run(config: DrillConfig, folder: Path, print_line: Callable[[str], None]) -> DrillResult:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await run_drill(config, folder, print_line)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.drill", description="The crash drill.")
    parser.add_argument("--seed", type=int, required=True, help="the same seed gives the same schedule")
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=40)
    parser.add_argument("--writes", type=int, default=20_000, help="minimum number of acknowledged writes")
    parser.add_argument("--jobs", type=int, default=50, help="minimum number of trainings")
    parser.add_argument("--writers", type=int, default=4)
    parser.add_argument("--longest", type=float, default=60, help="maximum duration of a fault in seconds")
    parser.add_argument("--no-disk", action="store_true", help="do not fill a disk (it requires root and Linux)")
    parser.add_argument(
        "--with",
        dest="extras",
        action="append",
        default=[],
        choices=list(EXTRAS),
        help="also: forged messages in the log; lost blobs, damaged keys (each healed from a backup); may be repeated",
    )
    parser.add_argument("--folder", type=Path, help="folder in which data and logs remain for inspection")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
