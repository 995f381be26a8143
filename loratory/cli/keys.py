"""`loratory keys …`: the keys with which the services of this machine prove to each other who they are."""

import asyncio
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from contracts.errors import SetupError
from contracts.events.service_keys import SigningService
from contracts.wire.log.service_keys import write_key
from contracts.wire.server.rotation import ask_for_rotation, rotate_offline
from loratory.cli.output import write_line
from loratory.data_folder import DataFolder, DataFolderInUse
from loratory.services import SIGNING_KEYS


async def rotate(
    which: Annotated[
        Literal["bus", "catalog", "tagger", "trainer"],
        Parameter(help="`bus`: the keys of all services and of admin on NATS; else the key this service signs with."),
    ],
    *,
    data: Path = Path("~/loratory"),
) -> int:
    """Make new keys and forget the old ones, while Loratory runs or not; nothing is interrupted.

    :param data: The data folder.
    """
    folder = DataFolder(data)
    if not (folder / "format").exists():
        raise SetupError(f"{folder.path} is not a Loratory data folder")
    if which != "bus":
        return _rotate_signing_key(folder, which)
    try:
        with folder:
            await asyncio.to_thread(rotate_offline, folder / "nats")
    except DataFolderInUse:
        await ask_for_rotation(folder / "nats")
        write_line(f"the {which} has new keys, and all services use them")
        return 0
    write_line(f"the {which} has new keys, which the next start uses")
    return 0


def _rotate_signing_key(folder: DataFolder, service: SigningService) -> int:
    """The catalog changes to it within seconds, a worker before its next job; what was signed before stays valid."""
    file = folder / SIGNING_KEYS[service]
    if not file.is_file():
        raise SetupError(f"{folder.path} has no signing key of the {service}: it has not been started there yet")
    write_key(file)
    write_line(f"the {service} has a new signing key in {file}")
    return 0
