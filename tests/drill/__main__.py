"""`python -m tests.drill --seed 7 --faults 200 --minutes 40`: a drill, its table, and 1 when anything is wrong."""

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.drill.drill import Asked, Outcome, drilled

SHOWN = 20


def main() -> int:
    options = _options()
    asked = Asked(
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

    def say(line: str) -> None:
        print(f"{time.monotonic() - began:8.1f} s  {line}", flush=True)

    folder = options.folder or Path(tempfile.mkdtemp(prefix="loratory-drill-"))
    folder.mkdir(parents=True, exist_ok=True)
    outcome = asyncio.run(drilled(asked, folder, say))
    print("\n".join(table(outcome)))
    return 1 if outcome.failures else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.drill", description="The crash drill.")
    parser.add_argument("--seed", type=int, required=True, help="the same seed is the same plan")
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=40)
    parser.add_argument("--writes", type=int, default=20_000, help="acknowledged writes at least")
    parser.add_argument("--jobs", type=int, default=50, help="trainings at least")
    parser.add_argument("--writers", type=int, default=4)
    parser.add_argument("--longest", type=float, default=60, help="seconds a fault may last at most")
    parser.add_argument("--no-disk", action="store_true", help="do not fill a disk (it takes root and Linux)")
    parser.add_argument("--folder", type=Path, help="where data and logs stay for a look afterwards")
    return parser.parse_args()


def table(outcome: Outcome) -> list[str]:
    """What is told at the end, line by line."""
    kinds = Counter((struck.fault.target, struck.fault.kind) for struck in outcome.struck)
    by_target = Counter(struck.fault.target for struck in outcome.struck)
    at_work = Counter(struck.fault.target for struck in outcome.struck if struck.held)
    lines = ["", f"drill of seed {outcome.asked.seed}, {outcome.took / 60:.1f} minutes, {outcome.commits} commits", ""]
    lines += [f"faults {len(outcome.struck)}, {outcome.on_work:.0%} on a process that held work"]
    for target, times in by_target.most_common():
        of = ", ".join(f"{kind} {kinds[target, kind]}" for to, kind in sorted(kinds) if to == target)
        lines.append(f"  {target:<10}{times:>5}, at work {at_work[target]:>4}   {of}")
    if outcome.skipped:
        lines.append(f"  disk       none: {outcome.skipped}")
    for name, verdict in (("writes", outcome.wishes), ("jobs", outcome.jobs), ("tagging", outcome.runs)):
        told = ", ".join(f"{what} {times}" for what, times in sorted(verdict.counts.items()))
        lines.append(f"{name:<12}{verdict.counts.total():>5}   {told}")
    for what in ("lost", "doubled", "stuck", "failed"):
        times = sum(verdict.counts[what] for verdict in (outcome.wishes, outcome.jobs, outcome.runs))
        lines.append(f"{what:<12}{times:>5}")
    lines.append(f"{'differences':<12}{len(outcome.found):>5}")
    wrong = outcome.failures
    lines += ["", *(f"  {line}" for line in wrong[:SHOWN])]
    lines += [f"  and {len(wrong) - SHOWN} more"] if len(wrong) > SHOWN else []
    return [*lines, "NOT PASSED" if wrong else "passed"]


if __name__ == "__main__":
    sys.exit(main())
