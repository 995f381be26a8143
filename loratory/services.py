"""The services of the local stack: their commands, environments and restart policy. Pure."""

import signal
import sys
from collections import deque
from collections.abc import Mapping
from typing import Literal, NamedTuple, get_args

from loratory.data_folder import DataFolder

Service = Literal["catalog", "gateway", "tagger", "trainer"]
SERVICES: tuple[Service, ...] = get_args(Service)

CORE_SERVICES: tuple[Service, ...] = ("catalog", "gateway")
"""Required services: they start first, and the whole stack stops if one of them cannot be kept running."""

FORWARDED_SETTINGS: dict[str, tuple[Service, ...]] = {
    "API_KEY": ("gateway",),
    "API_KEY_FILE": ("gateway",),
    "LOG_LEVEL": ("catalog", "gateway", "tagger", "trainer"),
    "DECODERS": ("catalog",),
    "MODELS": ("tagger",),
    "PROVIDERS": ("tagger",),
    "THREADS": ("tagger",),
    "BASES": ("trainer",),
    "CACHE": ("trainer",),
    "LORAS": ("trainer",),
    "LEASE": ("catalog", "tagger", "trainer"),
    "STALL": ("tagger", "trainer"),
}
"""`LORATORY_…` settings of the user that are passed on, and to which services; the stack sets all others itself."""

MAX_RESTARTS = 10
RESTART_WINDOW_SECONDS = 300.0
"""A service that dies more than MAX_RESTARTS times within this window is not restarted again."""
MIN_RESTART_DELAY_SECONDS = 0.2
MAX_RESTART_DELAY_SECONDS = 10.0


class ListenAddress(NamedTuple):
    """Bind address of the gateway."""

    host: str
    port: int


class RestartBackoff:
    """Delay before a restart: doubled with each death in the window, from 0.2 s up to 10 s."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=MAX_RESTARTS)

    def next_delay(self, now: float) -> float | None:
        """The service died at `now` (seconds of a monotonic clock). None: too many deaths, do not restart."""
        if len(self._recent) == MAX_RESTARTS and now - self._recent[0] < RESTART_WINDOW_SECONDS:
            return None
        self._recent.append(now)
        recent = sum(now - death < RESTART_WINDOW_SECONDS for death in self._recent)
        return float(min(MIN_RESTART_DELAY_SECONDS * 2 ** (recent - 1), MAX_RESTART_DELAY_SECONDS))


def service_command(service: Service) -> list[str]:
    """`-P`: modules in the current folder must not shadow our packages."""
    return [sys.executable, "-P", "-m", service]


def service_environment(
    service: Service, folder: DataFolder, *, bus: Mapping[str, str], given: Mapping[str, str], at: ListenAddress
) -> dict[str, str]:
    """The environment of one service: the user's own variables, and exactly this service's `LORATORY_*` settings.

    `bus`: NATS_URL, NATS_USER, NATS_PASSWORD. `given`: the environment of the user.
    """
    per_service: dict[Service, dict[str, object]] = {
        "catalog": {"CATALOG": folder / "catalog", "STAGING": folder / "staging"},
        "gateway": {"HOST": at.host, "PORT": at.port, "STAGING": folder / "staging"},
        "tagger": {"MODELS": folder / "models", "WORK": folder / "work" / "tagger"},
        "trainer": {
            "BASES": folder / "bases",
            "CACHE": folder / "cache",
            "WORK": folder / "work" / "trainer",
            "LORAS": folder / "loras",
        },
    }
    own = {**bus, "BLOBS": folder / "blobs", "HEALTH_FILE": folder.health_file(service), **per_service[service]}
    forwarded = {
        name: value
        for name, services in FORWARDED_SETTINGS.items()
        if service in services and (value := given.get(f"LORATORY_{name}"))
    }
    inherited = {name: value for name, value in given.items() if not name.startswith("LORATORY_")}
    inherited["PYTHONSAFEPATH"] = "1"  # the same as `-P`, for processes that the service starts
    return inherited | {f"LORATORY_{name}": str(value) for name, value in {**own, **forwarded}.items()}


def describe_exit(code: int, last_line: str = "") -> str:
    """How a process ended: its exit code with the last line of its output, or the signal that killed it."""
    if code >= 0:
        return f"exit code {code}: {last_line}" if last_line else f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
