"""The services of the local stack: their commands and environments. Pure."""

import contextlib
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Literal, get_args

from contracts.errors import LoratoryError
from contracts.events.service_keys import SigningService
from contracts.wire.service.boot import SENTENCE_EXIT_CODES
from contracts.wire.service.credentials import SeedFile
from loratory.data_folder import DataFolder

Service = Literal["catalog", "gateway", "tagger", "trainer"]
SIGNING_KEYS: dict[SigningService, str] = {name: f"keys/{name}.key" for name in get_args(SigningService)}
"""The files in the data folder with the key that a service signs with."""
SERVICES: tuple[Service, ...] = get_args(Service)

CORE_SERVICES: tuple[Service, ...] = ("catalog", "gateway")
"""Required services: they start first, and the whole stack stops if one of them refuses to start for good."""

FORWARDED_SETTINGS: dict[Service, tuple[str, ...]] = {
    "catalog": ("LOG_LEVEL", "DECODERS", "COMPARE_SECONDS", "PATROL_SECONDS"),
    "gateway": ("LOG_LEVEL", "API_KEY", "API_KEY_FILE", "CORS_ORIGINS"),
    "tagger": ("LOG_LEVEL", "LEASE", "STALL", "MODELS", "PROVIDERS", "THREADS", "DECODERS"),
    "trainer": ("LOG_LEVEL", "LEASE", "STALL", "BASES", "CACHE", "LORAS"),
}
"""`LORATORY_…` settings of the user that are passed on to each service; the stack sets all others itself."""

FOLDERS: dict[Service, dict[str, str]] = {
    "catalog": {"DATA": "", "CATALOG": "catalog", "STAGING": "staging", "SIGNING_KEY": SIGNING_KEYS["catalog"]},
    "gateway": {"STAGING": "staging", "SESSIONS": "run/sessions.json"},
    "tagger": {"MODELS": "models", "WORK": "work/tagger", "SIGNING_KEY": SIGNING_KEYS["tagger"]},
    "trainer": {
        "BASES": "bases",
        "CACHE": "cache",
        "WORK": "work/trainer",
        "LORAS": "loras",
        "SIGNING_KEY": SIGNING_KEYS["trainer"],
    },
}
"""Settings that are folders or files in the data folder."""

Report = Callable[[str], None]
"""Receives what a user should know about one service."""


class StackFailed(LoratoryError):
    """A service refuses to start, and waiting does not help."""

    code = "stack-failed"


def service_command(service: Service) -> list[str]:
    """`-P`: modules in the current folder must not shadow our packages."""
    return [sys.executable, "-P", "-m", service]


def bus_settings(url: str, role: str, key: SeedFile) -> dict[str, str]:
    """The settings of a service that say how it connects to the nats-server."""
    return {"NATS_URL": url, "NATS_USER": role, "NATS_NKEY_FILE": str(key.path)}


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
    """Prints what is reported about one service: `catalog   ready`.

    What cannot be printed (a file on a full disk, a closed terminal) is dropped: it must not end the services.
    """

    def report(text: str) -> None:
        with contextlib.suppress(OSError):
            print_line(f"{service:<9} {text}")

    return report


def exit_reason(code: int, last_line: str = "") -> str:
    """Why a process ended, as a clause: the sentence it printed last, its exit code, or the signal that killed it."""
    if code in SENTENCE_EXIT_CODES and last_line:
        return f"it ended because {last_line}"
    if code >= 0:
        return f"it ended with exit code {code}{f': {last_line}' if last_line else ''}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"it was killed by {name}{', as when memory runs out' if name == 'SIGKILL' else ''}"
