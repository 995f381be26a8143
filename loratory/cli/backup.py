"""`loratory backup …` and `loratory restore`: the work is the catalog's, on a folder of this machine."""

import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from contracts import subjects
from contracts.errors import SetupError
from contracts.wire.server import running_on
from loratory.cli.common import say
from loratory.folder import DataFolder, FolderInUse
from loratory.offline import Offline, catalog

DATA = Path("~/loratory")
LOG_DAMAGED = 3
"""The exit code of a verb that found the log damaged (`contracts.wire.boot`)."""

Environ = Annotated[Mapping[str, str], Parameter(parse=False)]


async def create(
    backup: Path, *, data: Path = DATA, without_keys: bool = False, without_blobs: bool = False, environ: Environ
) -> int:
    """Back a data folder up, while the workshop runs on it or not. A folder that holds an older backup is renewed.

    Parameters
    ----------
    backup:
        An empty folder, or one with a backup of the same data folder.
    data:
        The data folder.
    without_keys:
        Leave the keys of file names and captions out; keep them elsewhere then.
    without_blobs:
        Only list the blobs (pictures, checkpoints, LoRAs), for when they are backed up by other means.
    """
    options = [f"--{name}" for name, on in (("without-keys", without_keys), ("without-blobs", without_blobs)) if on]
    words = ["backup", str(_absolute(backup)), *options]
    try:
        async with Offline(data, environ) as offline:
            return await offline.catalog("catch-up") or await offline.catalog(*words)
    except FolderInUse:
        return await _beside(data, environ, *words)


async def verify(backup: Path, *, environ: Environ) -> int:
    """Compute everything in a backup again: the chain of all commits, and each blob.

    Parameters
    ----------
    backup:
        Its folder.
    """
    return await catalog(DataFolder(DATA), {}, environ, "verify-backup", _absolute(backup))


async def ls(*, data: Path = DATA, environ: Environ) -> int:
    """List the backups that were made of a data folder: what is erased is erased in them too, once they are in reach.

    Parameters
    ----------
    data:
        The data folder.
    """
    return await catalog(DataFolder(data), {}, environ, "list-backups")


async def forget(backup: Path, *, data: Path = DATA, environ: Environ) -> int:
    """Say that a backup is gone for good, so that nothing waits for it to be erased in it.

    Parameters
    ----------
    backup:
        The folder it was made in.
    data:
        The data folder it was made of.
    """
    return await catalog(DataFolder(data), {}, environ, "forget-backup", _absolute(backup))


async def restore_backup(backup: Path, *, data: Path, keys: Path | None = None, environ: Environ) -> int:
    """Make a data folder from a backup; `loratory up --data` starts it.

    Parameters
    ----------
    backup:
        Its folder.
    data:
        An empty folder, or one that is not there yet.
    keys:
        A keys.db in place of the backup's: with today's, what was erased since stays unreadable.
    """
    place = _absolute(data)
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise SetupError(f"{place} is not empty; a backup is restored into a new data folder")
    given = ["--keys", str(_absolute(keys))] if keys else []
    async with Offline(place, environ, fresh=True) as offline:
        unpacked = await offline.catalog("unpack", _absolute(backup), *given)
        code = unpacked or await offline.refill()
    if unpacked:  # half a data folder is of no use to anybody
        shutil.rmtree(place)
    elif code == 0:
        say(f"{place} is a data folder again; start it with: loratory up --data {place}")
    return code


async def restore(
    *,
    data: Path = DATA,
    from_: Annotated[Path | None, Parameter(name="--from")] = None,
    accept_loss: bool = False,
    environ: Environ,
) -> int:
    """Put back what a damaged or deleted event log lacks, from its archive. The workshop must be stopped.

    Every commit comes back at the sequence it had. The damaged files are kept aside, in the data folder.

    Parameters
    ----------
    data:
        The data folder.
    from_:
        A backup, for when the archive is damaged or gone as well, or the keys are.
    accept_loss:
        Commits that no copy has any more are given up, and a void commit takes the place of each.
    """
    async with Offline(data, environ) as offline:
        found = await offline.catalog("catch-up", "--whole")
        if found not in {0, LOG_DAMAGED}:
            return found
        if found == 0 and from_ is None:
            say("the log is whole; there is nothing to restore")
            return 0
        given = ["--from", str(_absolute(from_))] if from_ else []
        given += ["--accept-loss"] if accept_loss else []
        if code := await offline.catalog("salvage", *given):
            return code
        if found == 0 or await offline.catalog("catch-up", "--whole", quiet=True) == 0:
            say("the log itself is whole")
            return 0
        await offline.server.stop()
        _put_aside(offline)
        code = await offline.refill()
    if code == 0:
        say("whoever follows the log starts again (an old cursor is answered 410); all else is as it was")
    return code


def _put_aside(offline: Offline) -> None:
    """The damaged log is kept as it is, for whoever wants to look."""
    log = offline.server.stream_folder(subjects.FACTS)
    if log.exists():
        kept = offline.folder / "damaged" / f"log-{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}"
        kept.parent.mkdir(exist_ok=True)
        log.rename(kept)
        say(f"the damaged log is kept in {kept}; delete it when you need it no more")


async def _beside(data: Path, environ: Mapping[str, str], *words: str | Path) -> int:
    """A verb of the catalog while a workshop runs on the folder."""
    folder = DataFolder(data)
    url, user, password = running_on(folder / "nats", "catalog")
    return await catalog(folder, {"NATS_URL": url, "NATS_USER": user, "NATS_PASSWORD": password}, environ, *words)


def _absolute(path: Path) -> Path:
    return path.expanduser().absolute()
