"""`loratory restore` and `loratory accept-loss`: a damaged data folder is cured while Loratory is stopped."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from contracts import subjects
from contracts.cures import cure
from contracts.wire.server.embedded import EmbeddedServer
from contracts.wire.service.boot import LOG_DAMAGED
from loratory.cli.backup import Data, absolute, data_folder
from loratory.cli.options import Environ, Flag
from loratory.cli.output import confirm, write_error, write_line
from loratory.data_folder import DataFolder
from loratory.offline import OfflineFolder

Lost = Literal["blobs", "images", "keys"]
Yes = Annotated[bool, Flag]


async def restore(
    *,
    data: Data = None,
    from_: Annotated[Path | None, Parameter(name="--from")] = None,
    accept_loss: bool = False,
    environ: Environ,
) -> int:
    """Restore what is damaged or lost: the log, its archive, keys, and blobs. Loratory must be stopped.

    Every commit is restored at its old sequence. Damaged files are kept in the data folder.

    :param from_: A backup, for what the data folder itself has no second copy of: keys and blobs above all.
    :param accept_loss: Give up commits of which no copy exists; each is replaced by a void commit.
    """
    backup: list[str | Path] = ["--from", absolute(from_)] if from_ else []
    async with OfflineFolder(data_folder(data, environ), environ) as offline:
        return await _restore(offline, backup, accept_loss=accept_loss)


async def accept_loss(lost: Lost, /, *, yes: Yes = False, data: Data = None, environ: Environ) -> int:
    """Give up for good what is lost and in no backup. It is listed first. Loratory must be stopped.

    :param lost: `blobs`: images, checkpoints, LoRAs. `images`: the keys of images. `keys`: the whole key file.
    :param yes: Do not ask for confirmation.
    """
    async with OfflineFolder(data_folder(data, environ), environ) as offline:
        code = await offline.run_catalog("catch-up", "--whole")
        is_log_lost = code == LOG_DAMAGED and lost == "keys" and not await _list(offline, lost, quiet=True)
        if is_log_lost:
            code = await offline.run_catalog("salvage")
        elif code == LOG_DAMAGED:
            write_error(cure("log", offline.folder.path))
        if code := code or await _list(offline, lost):
            return code
        await confirm(
            "Give this up?", yes, refusal="giving up is irreversible; add --yes", declined="nothing was given up"
        )
        if is_log_lost:
            return await _accept_lost_keys_and_log(offline)
        return await offline.run_catalog("accept-loss", lost, admin=True)


async def _list(offline: OfflineFolder, lost: Lost, *, quiet: bool = False) -> int:
    """Lists what would be given up; the exit code, 0 if there is anything."""
    return await offline.run_catalog("list-losses", lost, quiet=quiet)


async def _accept_lost_keys_and_log(offline: OfflineFolder) -> int:
    """A new key file first: its root key signs the new log. Then the keys of images are given up in that log."""
    if code := (await offline.run_catalog("renew-keys") or await _recreate_log(offline)):
        return code
    await offline.server.start()
    if await _list(offline, "images", quiet=True):
        return 0  # there were none
    return await offline.run_catalog("accept-loss", "images", admin=True)


async def _restore(offline: OfflineFolder, backup: list[str | Path], *, accept_loss: bool) -> int:
    damage_code = await offline.run_catalog("catch-up", "--whole")
    if damage_code not in {0, LOG_DAMAGED}:
        return damage_code
    if damage_code == 0 and not backup:
        write_line("the log is intact")
        return await offline.run_catalog("mend")
    salvaged = await offline.run_catalog("salvage", *backup, *(["--accept-loss"] if accept_loss else []))
    # Keys before the log: with the root key it is signed that the log was restored.
    if code := salvaged or await offline.run_catalog("mend", *backup):
        return code
    if damage_code == 0 or await offline.run_catalog("catch-up", "--whole", quiet=True) == 0:
        write_line("the log itself is intact")
        return 0
    return await _recreate_log(offline)


async def _recreate_log(offline: OfflineFolder) -> int:
    await offline.server.stop()
    _keep_damaged_log(offline.server, offline.folder)
    code = await offline.recreate_log()
    if code == 0:
        write_line("the log has a new id: clients with a cursor of the old one get status 410 and start over")
    return code


def _keep_damaged_log(server: EmbeddedServer, folder: DataFolder) -> None:
    """Move the damaged log aside for inspection."""
    log = server.stream_folder(subjects.EVENTS)
    if log.exists():
        kept = folder / "damaged" / f"log-{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}"
        kept.parent.mkdir(exist_ok=True)
        log.rename(kept)
        write_line(f"the damaged log was moved to {kept}; delete it when you no longer need it")
