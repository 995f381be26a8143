"""`python -m tests.drill --seed 7 --faults 200 --minutes 40`: runs a drill, prints its table, exits 1 on failure."""

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.drill.drill import DrillConfig, DrillResult, run_drill

MAX_FAILURES_PRINTED = 20


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
    )
    began = time.monotonic()

    def print_line(line: str) -> None:
        print(f"{time.monotonic() - began:8.1f} s  {line}", flush=True)

    folder = options.folder or Path(tempfile.mkdtemp(prefix="loratory-drill-"))
    folder.mkdir(parents=True, exist_ok=True)
    result = asyncio.run(run_drill(config, folder, print_line))
    print("\n".join(format_table(result)))
    return 1 if result.failures else 0


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
    parser.add_argument("--folder", type=Path, help="folder in which data and logs remain for inspection")
    return parser.parse_args()


def format_table(result: DrillResult) -> list[str]:
    """The summary printed at the end, line by line."""
    by_kind = Counter((injected.fault.target, injected.fault.kind) for injected in result.injected)
    by_target = Counter(injected.fault.target for injected in result.injected)
    busy = Counter(injected.fault.target for injected in result.injected if injected.was_busy)
    lines = [
        "",
        f"drill with seed {result.config.seed}, {result.seconds / 60:.1f} minutes, {result.commits} commits",
        "",
    ]
    lines += [f"faults {len(result.injected)}, {result.busy_share:.0%} on a busy process"]
    for target, times in by_target.most_common():
        kinds = ", ".join(f"{kind} {by_kind[target, kind]}" for to, kind in sorted(by_kind) if to == target)
        lines.append(f"  {target:<10}{times:>5}, busy {busy[target]:>4}   {kinds}")
    if result.no_disk_reason:
        lines.append(f"  disk       none: {result.no_disk_reason}")
    for name, verdict in (("writes", result.commands), ("jobs", result.jobs), ("tagging", result.runs)):
        outcomes = ", ".join(f"{outcome} {times}" for outcome, times in sorted(verdict.counts.items()))
        lines.append(f"{name:<12}{verdict.counts.total():>5}   {outcomes}")
    for outcome in ("lost", "doubled", "stuck", "failed"):
        times = sum(verdict.counts[outcome] for verdict in (result.commands, result.jobs, result.runs))
        lines.append(f"{outcome:<12}{times:>5}")
    lines.append(f"{'differences':<12}{len(result.differences):>5}")
    failures = result.failures
    lines += ["", *(f"  {line}" for line in failures[:MAX_FAILURES_PRINTED])]
    lines += [f"  and {len(failures) - MAX_FAILURES_PRINTED} more"] if len(failures) > MAX_FAILURES_PRINTED else []
    return [*lines, "NOT PASSED" if failures else "passed"]


if __name__ == "__main__":
    sys.exit(main())
