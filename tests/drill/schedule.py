"""What goes wrong, and when: a plan that follows from a seed alone. Pure."""

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Target = Literal["catalog", "gateway", "tagger", "trainer", "engine", "nats", "disk"]
Kind = Literal["kill", "restart", "pause", "outlast", "cut", "silence", "slow", "full"]

MIX: Mapping[tuple[Target, Kind], int] = {
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
"""How often each comes, in parts. `outlast` is a pause longer than any lease."""

LASTS: Mapping[Kind, tuple[float, float]] = {
    "kill": (0, 0),
    "restart": (0, 0),
    "pause": (0.5, 4),
    "outlast": (13, 16),
    "cut": (0.5, 6),
    "silence": (0.5, 8),
    "slow": (4, 10),
    "full": (2, 6),
}
"""Seconds between which a fault lasts."""

MOST_DEATHS = 6
WITHIN = 300.0
"""The local stack gives a service up that dies more than ten times in so many seconds; a drill stays well below."""


@dataclass(frozen=True)
class Fault:
    """Strikes `at` seconds after the start and lasts `seconds`; `chance` in [0, 1) is for what is chosen then."""

    number: int
    at: float
    target: Target
    kind: Kind
    seconds: float
    chance: float

    @property
    def deadly(self) -> bool:
        """Does its process not live on? (A catalog that outlasts its lease may end by itself.)"""
        return self.kind in ("kill", "restart") or (self.target, self.kind) == ("catalog", "outlast")

    def __str__(self) -> str:
        lasting = f" for {self.seconds:.1f} s" if self.seconds else ""
        return f"{self.kind} {self.target}{lasting}"


def drawn(
    seed: int, *, faults: int, seconds: float, longest: float = math.inf, without: frozenset[Target] = frozenset()
) -> list[Fault]:
    """So many faults spread over so many seconds, the same for the same arguments.

    None of `without`, and none that lasts more than `longest` seconds.
    """
    chance = random.Random(seed)
    mix = {(to, kind): part for (to, kind), part in MIX.items() if to not in without and LASTS[kind][0] < longest}
    plan: list[Fault] = []
    for number in range(faults):
        at = seconds * (number + chance.uniform(0.1, 0.9)) / faults
        while True:
            target, kind = chance.choices(list(mix), list(mix.values()))[0]
            fault = Fault(
                number, at, target, kind, round(min(chance.uniform(*LASTS[kind]), longest), 2), chance.random()
            )
            if not fault.deadly or _deaths(plan, fault) < MOST_DEATHS:
                break
        plan.append(fault)
    return plan


def _deaths(plan: list[Fault], fault: Fault) -> int:
    """Of the same process, shortly before."""
    return sum(before.deadly and before.target == fault.target and fault.at - before.at < WITHIN for before in plan)
