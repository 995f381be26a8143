"""Where the gateway may listen, said before anything is started."""

import socket
from collections.abc import Mapping

from contracts.errors import SetupError

MOST_PORT = 65_535


def refuse_open(host: str, environ: Mapping[str, str]) -> None:
    """SetupError where other machines could reach the gateway without a key; it would refuse to start itself."""
    keys = ("LORATORY_API_KEY", "LORATORY_API_KEY_FILE")
    if host not in {"localhost", "::1"} and not host.startswith("127.") and not any(environ.get(key) for key in keys):
        raise SetupError(f"other machines can reach {host}: set LORATORY_API_KEY to a secret of at least 16 characters")


def free_port(host: str, port: int) -> int:
    """The same port if it is free, some free one for 0; SetupError in one sentence otherwise."""
    if not 0 <= port <= MOST_PORT:
        raise SetupError(f"{port} is no port; ports go from 1 to {MOST_PORT}, and 0 takes a free one")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise SetupError(
                f"port {port} on {host} cannot be used ({error.strerror}); choose one with --port"
            ) from error
        return int(probe.getsockname()[1])
