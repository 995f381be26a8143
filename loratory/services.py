"""Which services the local stack runs, with which settings, and how often one may die. Pure."""

import signal
import sys
from collections import deque
from collections.abc import Mapping
from typing import Literal, NamedTuple, get_args

from loratory.folder import DataFolder

Service = Literal["catalog", "gateway", "tagger", "trainer"]
SERVICES: tuple[Service, ...] = get_args(Service)

SERVE: tuple[Service, ...] = ("catalog", "gateway")
"""Without these nobody is served: they start first, and when one cannot live the whole stack ends."""

PASSED_ON: dict[str, tuple[Service, ...]] = {
    "API_KEY": ("gateway",),
    "API_KEY_FILE": ("gateway",),
    "MODELS": ("tagger",),
    "BASES": ("trainer",),
    "LEASE": ("catalog", "tagger", "trainer"),
    "STALL": ("tagger", "trainer"),
}
"""The settings (`LORATORY_…`) of who runs the stack, with the services that see them; others are the stack's own."""

MOST_DEATHS = 10
WITHIN = 300.0
"""A service that dies more often than MOST_DEATHS times in so many seconds is given up."""


class Place(NamedTuple):
    """Where the gateway listens."""

    host: str
    port: int


class Deaths:
    """How long to wait before the next life: 0.2 s after the first death, doubled up to 10 s."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=MOST_DEATHS)

    def another(self, now: float) -> float | None:
        """It died at `now` (seconds on any steady clock). None: it is not worth another try."""
        if len(self._recent) == MOST_DEATHS and now - self._recent[0] < WITHIN:
            return None
        self._recent.append(now)
        recent = sum(now - death < WITHIN for death in self._recent)
        return float(min(0.2 * 2 ** (recent - 1), 10.0))


def command(service: Service) -> list[str]:
    """`-P`: what lies in the folder somebody stands in must not be imported in place of ours."""
    return [sys.executable, "-P", "-m", service]


def settings(
    service: Service, folder: DataFolder, *, bus: Mapping[str, str], given: Mapping[str, str], at: Place
) -> dict[str, str]:
    """The environment of one service: what is not ours as it was given, and exactly its `LORATORY_*` settings.

    `bus`: NATS_URL, NATS_USER, NATS_PASSWORD.
    """
    own: dict[Service, dict[str, object]] = {
        "catalog": {"CATALOG": folder / "catalog", "STAGING": folder / "staging"},
        "gateway": {"HOST": at.host, "PORT": at.port, "STAGING": folder / "staging"},
        "tagger": {"WORK": folder / "work" / "tagger"},
        "trainer": {
            "BASES": folder / "bases",
            "CACHE": folder / "cache",
            "WORK": folder / "work" / "trainer",
            "LORAS": folder / "loras",
        },
    }
    ours = {**bus, "BLOBS": folder / "blobs", "HEALTH_FILE": folder.health(service), **own[service]}
    passed = {
        name: value
        for name, services in PASSED_ON.items()
        if service in services and (value := given.get(f"LORATORY_{name}"))
    }
    foreign = {name: value for name, value in given.items() if not name.startswith("LORATORY_")}
    # Also for what a service starts in its turn, see `command`.
    foreign["PYTHONSAFEPATH"] = "1"
    return foreign | {f"LORATORY_{name}": str(value) for name, value in {**ours, **passed}.items()}


def told(code: int, last_words: str = "") -> str:
    """How a process ended, in words: its own last ones, but where a signal cut them short."""
    if code >= 0:
        return f"exit code {code}: {last_words}" if last_words else f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
