"""Ports for servers that must know theirs before they listen: no connection of another process takes them meanwhile."""

import random
import socket

BELOW_EPHEMERAL = range(10_000, 32_000)
"""Systems give outgoing connections, and servers that ask for any port, a number from 32,768 on (Linux)."""
TRIES = 200


def free_port() -> int:
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """All different; nobody listens on them now. Tests that run beside this one hardly choose the same."""
    found: list[int] = []
    for port in random.SystemRandom().sample(BELOW_EPHEMERAL, TRIES):
        if len(found) < count and _is_free(port):
            found.append(port)
    assert len(found) == count, "nearly all ports are in use"
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers set it
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
