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
    """The keys of all roles. SetupError: a file is damaged."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    missing = {role: generate_nkey() for role in ROLES if not seed_file(folder, role).exists()}
    store(folder, missing)
    try:
        return {role: read_seed_file(seed_file(folder, role)) for role in ROLES}
    except SetupError as error:
        raise SetupError(f"{error.detail}; delete the file, and the next start makes a new key") from error


def store(folder: Path, keys: Mapping[Role, Nkey]) -> None:
    for role, key in keys.items():
        write_atomically(seed_file(folder, role), f"{key.seed}\n".encode(), mode=0o600)
