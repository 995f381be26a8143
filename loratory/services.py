"""The services of the local stack: their commands and environments. Pure."""

import signal
import sys
from collections.abc import Callable, Mapping
from typing import Literal, get_args

from contracts.errors import LogDamaged, LoratoryError
from contracts.wire.service.boot import EXIT_CODES
from loratory.data_folder import DataFolder

Service = Literal["catalog", "gateway", "tagger", "trainer"]
SERVICES: tuple[Service, ...] = get_args(Service)

CORE_SERVICES: tuple[Service, ...] = ("catalog", "gateway")
"""Required services: they start first, and the whole stack stops if one of them cannot be kept running."""

FORWARDED_SETTINGS: dict[Service, tuple[str, ...]] = {
    "catalog": ("LOG_LEVEL", "LEASE", "DECODERS"),
    "gateway": ("LOG_LEVEL", "API_KEY", "API_KEY_FILE"),
    "tagger": ("LOG_LEVEL", "LEASE", "STALL", "MODELS", "PROVIDERS", "THREADS"),
    "trainer": ("LOG_LEVEL", "LEASE", "STALL", "BASES", "CACHE", "LORAS"),
}
"""`LORATORY_…` settings of the user that are passed on to each service; the stack sets all others itself."""

FOLDERS: dict[Service, dict[str, str]] = {
    "catalog": {"DATA": "", "CATALOG": "catalog", "STAGING": "staging"},
    "gateway": {"STAGING": "staging"},
    "tagger": {"MODELS": "models", "WORK": "work/tagger"},
    "trainer": {"BASES": "bases", "CACHE": "cache", "WORK": "work/trainer", "LORAS": "loras"},
}
"""Settings that are folders in the data folder."""

LOG_DAMAGED = dict(EXIT_CODES)[LogDamaged]
"""Exit code of a service or command that found the log damaged; a service is not restarted then."""

Report = Callable[[str], None]
"""Receives what a user should know about one service."""


class StackFailed(LoratoryError):
    """A service cannot be kept running."""

    code = "stack-failed"


def service_command(service: Service) -> list[str]:
    """`-P`: modules in the current folder must not shadow our packages."""
    return [sys.executable, "-P", "-m", service]


def bus_settings(url: str, user: str, password: str) -> dict[str, str]:
    """The settings of a service that say how it connects to the nats-server."""
    return {"NATS_URL": url, "NATS_USER": user, "NATS_PASSWORD": password}


def service_environment(
    service: Service, folder: DataFolder, *, given: Mapping[str, str], settings: Mapping[str, object]
) -> dict[str, str]:
    """The environment of one service: the user's own variables, and exactly this service's `LORATORY_*` settings.

    `given`: the environment of the user. `settings`: those that the data folder does not determine.
    """
    own: dict[str, object] = {name: folder / part for name, part in {"BLOBS": "blobs", **FOLDERS[service]}.items()}
    own |= {**settings, "HEALTH_FILE": folder.health_file(service)}
    forwarded = {name: value for name in FORWARDED_SETTINGS[service] if (value := given.get(f"LORATORY_{name}"))}
    inherited = {name: value for name, value in given.items() if not name.startswith("LORATORY_")}
    inherited["PYTHONSAFEPATH"] = "1"  # the same as `-P`, for processes that the service starts
    return inherited | {f"LORATORY_{name}": str(value) for name, value in {**own, **forwarded}.items()}


def reporter(print_line: Callable[[str], None], service: str) -> Report:
    """Prints what is reported about one service: `catalog   ready`."""
    return lambda text: print_line(f"{service:<9} {text}")


def describe_exit(code: int, last_line: str = "") -> str:
    """How a process ended: its exit code with the last line of its output, or the signal that killed it."""
    if code >= 0:
        return f"exit code {code}: {last_line}" if last_line else f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
