"""`python -m contracts.wire.server.secret_files FOLDER [--rotate]`: the secrets of the containers.

An nkey seed for each user of the bus, the API key, and what the NATS server knows of the users, in `users/`.
Containers see each secret as a mounted file, so a file is rewritten in place: one that replaced it would not be seen.
"""

import argparse
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path

from contracts.wire.server.accounts import ROLES, Role
from contracts.wire.server.config import render_users
from contracts.wire.service.credentials import read_seed_file
from contracts.wire.service.nkeys import generate_nkey

API_KEY = "api_key"
USERS = "users"
"""Folder of the files that `nats.conf` includes, one for each account: the public keys of its users."""


def write_secrets(folder: Path) -> None:
    """Creates what is missing and keeps the rest. Only the owner can enter the folder; the files are for containers."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    (folder / USERS).mkdir(exist_ok=True)
    for role in ROLES:
        if not (folder / role).exists():
            _write(folder / role, generate_nkey().seed)
        accepted = [file for file in (folder / role, _next(folder, role)) if file.exists()]
        _write(folder / USERS / f"{role}.conf", render_users(read_seed_file(file).public for file in accepted))
    if not (folder / API_KEY).exists():
        _write(folder / API_KEY, secrets.token_urlsafe(32))


def rotate(folder: Path) -> str:
    """One of two steps, each to be followed by a reload of the NATS server; returns what to do next.

    First the server learns new keys besides the old ones, then the clients' files hold them and it forgets the old.
    """
    if not all(_next(folder, role).exists() for role in ROLES):
        for role in ROLES:
            _write(_next(folder, role), generate_nkey().seed)
        write_secrets(folder)
        return "the NATS server accepts old and new keys once it is reloaded; then run this command again"
    for role in ROLES:
        _write(folder / role, read_seed_file(_next(folder, role)).seed)
    for role in ROLES:
        _next(folder, role).unlink()
    write_secrets(folder)
    return "the files hold the new keys; reload the NATS server again, and it accepts no others"


def _next(folder: Path, role: Role) -> Path:
    return folder / f"{role}.next"


def _write(file: Path, text: str) -> None:
    """In place; readable by the unprivileged users of the containers."""
    if file.exists():
        file.chmod(0o644)
    file.write_text(f"{text}\n", encoding="utf-8")
    file.chmod(0o444)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description="Create the secrets of the containers; existing ones are kept.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rotate", action="store_true", help="make new keys, in two steps")
    options = parser.parse_args(arguments)
    if options.rotate:
        sys.stdout.write(f"{rotate(options.folder)}\n")
    else:
        write_secrets(options.folder)


if __name__ == "__main__":
    main(sys.argv[1:])
