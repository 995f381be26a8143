"""`loratory keys …`: the keys with which the services of this machine prove to each other who they are."""

import asyncio
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from contracts.errors import SetupError
from contracts.wire.server.rotation import ask_for_rotation, rotate_offline
from loratory.cli.output import write_line
from loratory.data_folder import DataFolder, DataFolderInUse


async def rotate(
    which: Annotated[Literal["bus"], Parameter(help="`bus`: the keys of all services and of admin on NATS.")],
    *,
    data: Path = Path("~/loratory"),
) -> int:
    """Make new keys and forget the old ones, while Loratory runs or not; nothing is interrupted.

    :param data: The data folder.
    """
    folder = DataFolder(data)
    if not (folder / "format").exists():
        raise SetupError(f"{folder.path} is not a Loratory data folder")
    try:
        with folder:
            await asyncio.to_thread(rotate_offline, folder / "nats")
    except DataFolderInUse:
        await ask_for_rotation(folder / "nats")
        write_line(f"the {which} has new keys, and all services use them")
        return 0
    write_line(f"the {which} has new keys, which the next start uses")
    return 0
