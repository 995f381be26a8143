"""The nkeys of the bus's users: one seed file for each role, which only its owner can read.

The server's configuration holds the public keys. A rotation lets it accept two keys for each role until the files hold
the new ones.
"""

from collections.abc import Mapping
from pathlib import Path

from contracts.errors import SetupError
from contracts.wire.server.accounts import ROLES, Role
from contracts.wire.service.credentials import read_seed_file
from contracts.wire.service.nkeys import Nkey, generate_nkey
from contracts.wire.system.files import write_atomically


def seed_file(folder: Path, role: Role) -> Path:
    return folder / f"{role}.nk"


def load_or_create(folder: Path) -> dict[Role, Nkey]:
    """The keys of all roles. Those that are missing or damaged are made anew: a start gives them to all services."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    stored = {role: _read(seed_file(folder, role)) for role in ROLES}
    created = {role: generate_nkey() for role, key in stored.items() if key is None}
    store(folder, created)
    return {role: stored[role] or created[role] for role in ROLES}


def _read(file: Path) -> Nkey | None:
    """None: it is missing or damaged."""
    try:
        return read_seed_file(file)
    except SetupError:
        return None


def store(folder: Path, keys: Mapping[Role, Nkey]) -> None:
    for role, key in keys.items():
        write_atomically(seed_file(folder, role), f"{key.seed}\n".encode(), mode=0o600)
