"""Fault schedule: which faults are injected, and when, derived from a seed alone. Pure."""

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Target = Literal["catalog", "gateway", "tagger", "trainer", "engine", "nats", "disk"]
FaultKind = Literal["kill", "restart", "pause", "outlast", "cut", "silence", "slow", "full"]

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
"""The local stack stops restarting a service that dies more than ten times in this window; a drill stays well below."""


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


def _recent_deaths(schedule: list[Fault], fault: Fault) -> int:
    """How often the same process died in the window before this fault."""
    return sum(
        before.ends_process and before.target == fault.target and fault.at - before.at < DEATH_WINDOW_SECONDS
        for before in schedule
    )
