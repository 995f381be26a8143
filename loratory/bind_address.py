"""Checks of the gateway's bind address, before anything is started."""

import socket
from collections.abc import Mapping
from pathlib import Path

from contracts.errors import SetupError

MAX_PORT = 65_535


def require_key_if_exposed(host: str, environ: Mapping[str, str]) -> None:
    """SetupError if other machines could reach the gateway without an API key; the gateway itself would not start."""
    keys = ("LORATORY_API_KEY", "LORATORY_API_KEY_FILE")
    if host not in {"localhost", "::1"} and not host.startswith("127.") and not any(environ.get(key) for key in keys):
        raise SetupError(
            f"{host} is reachable from other machines: set LORATORY_API_KEY to a secret of at least 16 characters"
        )


def find_free_port(host: str, port: int) -> int:
    """The port if it is free, any free port for 0; else SetupError."""
    if not 0 <= port <= MAX_PORT:
        raise SetupError(f"{port} is not a port number; use 1 to {MAX_PORT}, or 0 for any free port")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise SetupError(
                f"port {port} on {host} is not available ({error.strerror}); choose another with --port"
            ) from error
        return int(probe.getsockname()[1])


def api_key(environ: Mapping[str, str]) -> str | None:
    """The API key that the stack's gateway is configured with."""
    if file := environ.get("LORATORY_API_KEY_FILE"):
        return Path(file).read_text(encoding="utf-8").rstrip("\r\n")
    return environ.get("LORATORY_API_KEY") or None
