"""What a drill was and what came of it: the result, and its table."""

from collections import Counter
from dataclasses import dataclass, field

from tests.drill.checker import Verdict
from tests.drill.forging import ForgedMessages
from tests.drill.losses import Losses
from tests.drill.schedule import Extra, Fault

MIN_BUSY_SHARE = 0.6
"""Minimum share of faults that must hit a busy target."""
MAX_FAILURES_PRINTED = 20


@dataclass(frozen=True, kw_only=True)
class DrillConfig:
    """`writes` and `jobs` are minimums; `seconds` is the duration, `longest` the longest fault in seconds.

    `extras`: kinds of faults beyond the usual ones.
    """

    seed: int
    faults: int
    seconds: float
    writers: int = 4
    writes: int
    jobs: int
    longest: float = 60.0
    small_disk: bool = True
    extras: frozenset[Extra] = frozenset()


@dataclass
class InjectedFault:
    """One fault as injected. `was_busy`: whether its target had unfinished work; None: it was down already."""

    fault: Fault
    at: float
    was_busy: bool | None


@dataclass
class DrillResult:
    config: DrillConfig
    injected: list[InjectedFault] = field(default_factory=list)
    commands: Verdict = field(default_factory=Verdict)
    jobs: Verdict = field(default_factory=Verdict)
    runs: Verdict = field(default_factory=Verdict)
    differences: list[str] = field(default_factory=list)
    """Between copies of the same data, such as log and archive."""
    server_errors: list[str] = field(default_factory=list)
    forged: ForgedMessages = field(default_factory=ForgedMessages)
    losses: Losses = field(default_factory=Losses)
    ended_early: str = ""
    """Why the drill did not come to its end; then what was requested is checked as far as the log was read."""
    no_disk_reason: str = ""
    """Why the disk was not filled; empty if it was."""
    commits: int = 0
    seconds: float = 0.0

    @property
    def busy_share(self) -> float:
        """Share of the faults that hit a busy target."""
        return sum(one.was_busy is True for one in self.injected) / max(len(self.injected), 1)

    @property
    def writes(self) -> int:
        return self.commands.counts["kept"]

    @property
    def failures(self) -> list[str]:
        """Why this drill did not pass; empty if it did."""
        failures = [
            *self.commands.errors,
            *self.jobs.errors,
            *self.runs.errors,
            *self.differences,
            *self.server_errors,
            *self.losses.errors,
            *(f"not noticed: {loss.describe()}" for loss in self.losses.found if loss.harmed and not loss.notice),
        ]
        if self.ended_early:
            return [f"ended early: {self.ended_early}", *failures]
        if self.writes < self.config.writes:
            failures.append(f"only {self.writes} writes were acknowledged, {self.config.writes} are required")
        if self.jobs.counts.total() < self.config.jobs:
            failures.append(f"only {self.jobs.counts.total()} jobs were requested, {self.config.jobs} are required")
        if self.busy_share < MIN_BUSY_SHARE:
            failures.append(f"only {self.busy_share:.0%} of the faults hit a busy target")
        return failures


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
    lines += _extra_lines(result)
    for outcome in ("lost", "doubled", "stuck", "failed"):
        times = sum(verdict.counts[outcome] for verdict in (result.commands, result.jobs, result.runs))
        lines.append(f"{outcome:<12}{times:>5}")
    compared = "not compared: the drill ended early" if result.ended_early else f"{len(result.differences):>5}"
    lines.append(f"{'differences':<12}{compared}")
    failures = result.failures
    lines += ["", *(f"  {line}" for line in failures[:MAX_FAILURES_PRINTED])]
    lines += [f"  and {len(failures) - MAX_FAILURES_PRINTED} more"] if len(failures) > MAX_FAILURES_PRINTED else []
    return [*lines, "NOT PASSED" if failures else "passed"]


def _extra_lines(result: DrillResult) -> list[str]:
    """What became of forged messages and of damage that was healed from the backup."""
    lines, forged, losses = [], result.forged, result.losses
    if "forged" in result.config.extras:
        outcomes = ", ".join(f"{outcome} {times}" for outcome, times in sorted(forged.outcomes.items()))
        lines.append(f"{'forged':<12}{forged.outcomes.total():>5}   {outcomes}")
    if result.config.extras - {"forged"}:
        made = "no backup" if losses.backup_at is None else f"backup at {losses.backup_at:.0f} s"
        given_up = f"given up: {len(losses.keys)} keys, {len(losses.blobs)} blobs"
        lines.append(f"{'healed':<12}{len(losses.found):>5}   {made}, {given_up}")
        lines += [f"  {loss.describe()}" for loss in losses.found]
    return lines
