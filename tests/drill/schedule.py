"""Fault schedule: which faults are injected, and when, derived from a seed alone. Pure."""

import math
import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Literal

Target = Literal["catalog", "gateway", "tagger", "trainer", "engine", "nats", "disk", "log", "blobs", "keys"]
FaultKind = Literal["kill", "restart", "pause", "outlast", "cut", "silence", "slow", "full", "forge", "lose", "damage"]
Extra = Literal["forged", "blobs", "keys"]

FAULT_WEIGHTS: Mapping[tuple[Target, FaultKind], int] = {
    ("catalog", "kill"): 10,
    ("catalog", "pause"): 4,
    ("catalog", "outlast"): 3,
    ("catalog", "cut"): 5,
    ("catalog", "silence"): 4,
    ("catalog", "slow"): 3,
    ("gateway", "kill"): 8,
    ("gateway", "pause"): 4,
    ("gateway", "cut"): 5,
    ("gateway", "silence"): 3,
    ("gateway", "slow"): 2,
    ("nats", "kill"): 6,
    ("nats", "restart"): 4,
    ("nats", "pause"): 4,
    ("trainer", "kill"): 7,
    ("trainer", "pause"): 3,
    ("trainer", "outlast"): 3,
    ("trainer", "cut"): 4,
    ("trainer", "silence"): 3,
    ("engine", "kill"): 6,
    ("engine", "pause"): 3,
    ("tagger", "kill"): 5,
    ("tagger", "pause"): 2,
    ("tagger", "outlast"): 2,
    ("tagger", "cut"): 3,
    ("disk", "full"): 3,
}
"""Relative frequency of each fault. `outlast` is a pause longer than any lease."""

DURATIONS: Mapping[FaultKind, tuple[float, float]] = {
    "kill": (0, 0),
    "restart": (0, 0),
    "pause": (0.5, 4),
    "outlast": (13, 16),
    "cut": (0.5, 6),
    "silence": (0.5, 8),
    "slow": (4, 10),
    "full": (2, 6),
}
"""Minimum and maximum duration of a fault, in seconds."""

MAX_DEATHS_PER_WINDOW = 6
DEATH_WINDOW_SECONDS = 300.0
"""A process that died more often would mostly be found dead already by the next fault."""

EXTRAS: Mapping[Extra, tuple[Target, FaultKind, float]] = {
    "forged": ("log", "forge", 0.25),
    "blobs": ("blobs", "lose", 0.02),
    "keys": ("keys", "damage", 0.02),
}
"""Faults beyond the others, each with its number as a share of theirs."""
BACKUP_RANGE = (0.1, 0.4)
"""The backup from which losses are healed is made at a random moment in this part of the drill."""


@dataclass(frozen=True)
class Fault:
    """Injected `at` seconds after the start for `seconds`; `variant` in [0, 1) selects among variants of the fault."""

    number: int
    at: float
    target: Target
    kind: FaultKind
    seconds: float
    variant: float

    @property
    def ends_process(self) -> bool:
        """Whether its process may end. (A catalog paused beyond its lease may exit by itself.)"""
        return self.kind in ("kill", "restart") or (self.target, self.kind) == ("catalog", "outlast")

    def __str__(self) -> str:
        duration = f" for {self.seconds:.1f} s" if self.seconds else ""
        return f"{self.kind} {self.target}{duration}"


def build_schedule(
    seed: int, *, faults: int, seconds: float, longest: float = math.inf, without: frozenset[Target] = frozenset()
) -> list[Fault]:
    """`faults` faults spread over `seconds`; equal arguments give an equal schedule.

    No fault hits a target in `without` or lasts more than `longest` seconds.
    """
    rng = random.Random(seed)
    weights = {
        (target, kind): weight
        for (target, kind), weight in FAULT_WEIGHTS.items()
        if target not in without and DURATIONS[kind][0] < longest
    }
    schedule: list[Fault] = []
    for number in range(faults):
        at = seconds * (number + rng.uniform(0.1, 0.9)) / faults
        while True:
            target, kind = rng.choices(list(weights), list(weights.values()))[0]
            duration = round(min(rng.uniform(*DURATIONS[kind]), longest), 2)
            fault = Fault(number, at, target, kind, duration, rng.random())
            if not fault.ends_process or _recent_deaths(schedule, fault) < MAX_DEATHS_PER_WINDOW:
                break
        schedule.append(fault)
    return schedule


def backup_moment(seed: int, seconds: float) -> float:
    """When the backup is made, in seconds after the start."""
    return seconds * random.Random(f"{seed} backup").uniform(*BACKUP_RANGE)


def extra_faults(seed: int, extras: Collection[Extra], *, faults: int, seconds: float) -> list[Fault]:
    """The faults of `extras`, in order; those that are healed from the backup come after it. `faults`: all others."""
    after = backup_moment(seed, seconds)
    found = []
    for extra, (target, kind, share) in EXTRAS.items():
        rng = random.Random(f"{seed} {extra}")
        for _ in range(max(1, round(faults * share)) if extra in extras else 0):
            at = rng.uniform(0 if target == "log" else after, seconds)
            found.append(Fault(faults, at, target, kind, 0, rng.random()))
    in_order = sorted(found, key=lambda fault: fault.at)
    return [replace(fault, number=faults + number) for number, fault in enumerate(in_order)]


def _recent_deaths(schedule: list[Fault], fault: Fault) -> int:
    """How often the same process died in the window before this fault."""
    return sum(
        before.ends_process and before.target == fault.target and fault.at - before.at < DEATH_WINDOW_SECONDS
        for before in schedule
    )
