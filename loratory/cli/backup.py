"""`loratory backup …`: the catalog's maintenance commands on a data folder of this machine."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from contracts.errors import SetupError
from contracts.wire.server.embedded import running_server
from loratory.cli.options import Environ
from loratory.cli.output import write_line
from loratory.data_folder import DataFolder, DataFolderInUse, check_format
from loratory.offline import OfflineFolder, run_catalog
from loratory.services import bus_settings

DEFAULT_DATA = Path("~/loratory")

Data = Annotated[
    Path | None, Parameter(show_default=False, help="The data folder; ~/loratory if LORATORY_URL is not set.")
]


async def create(
    backup: Path, *, data: Data = None, without_keys: bool = False, without_blobs: bool = False, environ: Environ
) -> int:
    """Back up a data folder, while Loratory runs on it or not. An older backup in the folder is updated.

    :param backup: An empty folder, or one with a backup of the same data folder.
    :param without_keys: Leave out the keys of file names and captions; store them elsewhere.
    :param without_blobs: Only list the blobs (images, checkpoints, LoRAs), if they are backed up by other means.
    """
    folder = data_folder(data, environ)
    options = [f"--{name}" for name, on in (("without-keys", without_keys), ("without-blobs", without_blobs)) if on]
    arguments = ["backup", str(absolute(backup)), *options]
    try:
        async with OfflineFolder(folder, environ) as offline:
            return await offline.run_catalog("catch-up") or await offline.run_catalog(*arguments)
    except DataFolderInUse:
        bus = bus_settings(*running_server(DataFolder(folder) / "nats", "catalog"))
        return await run_catalog(DataFolder(folder), bus, environ, *arguments)


async def verify(backup: Path, *, environ: Environ) -> int:
    """Verify a backup: the hash chain of all commits, and every blob.

    :param backup: Its folder.
    """
    return await run_catalog(DataFolder(DEFAULT_DATA), {}, environ, "verify-backup", absolute(backup))


async def ls(*, data: Data = None, environ: Environ) -> int:
    """List the registered backups of a data folder. Erasures are carried out in them too, once they are reachable."""
    return await run_catalog(DataFolder(data_folder(data, environ)), {}, environ, "list-backups")


async def forget(backup: Path, *, data: Data = None, environ: Environ) -> int:
    """Unregister a backup that was deleted, so that erasures no longer wait for it.

    :param backup: The folder of the backup.
    """
    folder = DataFolder(data_folder(data, environ))
    return await run_catalog(folder, {}, environ, "forget-backup", absolute(backup))


async def restore_backup(backup: Path, *, data: Path, keys: Path | None = None, environ: Environ) -> int:
    """Create a data folder from a backup; `loratory up --data` starts it.

    :param backup: Its folder.
    :param data: An empty folder, or one that does not exist yet.
    :param keys: A keys.db to use instead of the backup's: with the current one, what was erased since stays unreadable.
    """
    target = absolute(data)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise SetupError(f"{target} is not empty; a backup is restored into a new data folder")
    options = ["--keys", str(absolute(keys))] if keys else []
    async with OfflineFolder(target, environ, create=True) as offline:
        unpack_code = await offline.run_catalog("unpack", absolute(backup), *options)
        code = unpack_code or await offline.recreate_log()
    if unpack_code:  # a partial data folder is useless
        shutil.rmtree(target)
    elif code == 0:
        write_line(f"the backup was restored into {target}; start it with: loratory up --data {target}")
    return code


def data_folder(data: Path | None, environ: Mapping[str, str]) -> Path:
    """The folder of `--data`. SetupError for another format, or if only LORATORY_URL is given."""
    url = environ.get("LORATORY_URL")
    if data is None and url:
        raise SetupError(
            f"LORATORY_URL is {url}, but this command works on a data folder of this machine: name it with --data"
        )
    folder = (data or DEFAULT_DATA).expanduser()
    check_format(folder)
    return folder


def absolute(path: Path) -> Path:
    return path.expanduser().absolute()
