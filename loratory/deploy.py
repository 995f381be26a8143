"""`python -m loratory.deploy`: writes what the containers' nats-server reads, `deploy/nats.conf`, to stdout."""

import sys

from contracts.wire.permissions import ROLES
from contracts.wire.server_config import ServerSettings, render_config

SETTINGS = ServerSettings(store="/data/nats", host="0.0.0.0", port=4222)  # noqa: S104 - inside its own network
HEADER = (
    "# Made by `python -m loratory.deploy > deploy/nats.conf`; a test compares. Passwords come from the environment.\n"
)


def nats_conf() -> str:
    """Users, permissions and limits as the embedded server has them; passwords from NATS_PASSWORD_<role>."""
    return HEADER + render_config(SETTINGS, {role: f"$NATS_PASSWORD_{role}" for role in ROLES})


if __name__ == "__main__":
    sys.stdout.write(nats_conf())
