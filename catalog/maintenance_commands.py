"""`python -m catalog <command>`: one-off maintenance of the catalog's files.

Each command takes the settings and its arguments, prints what it did on stdout, and raises errors.
"""

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

import msgspec

from catalog import backups, restoring
from catalog.archive import Archive
from catalog.audit import Auditor
from catalog.entries import last_sequence
from catalog.keys import Keys
from catalog.settings import Settings
from contracts.audit import AuditHead, damage_error, summary_lines
from contracts.errors import NotFound, SetupError, Unavailable
from contracts.telemetry import LossBlock
from contracts.wire.bus import Bus, connect
from contracts.wire.log import EventLog
from contracts.wire.telemetry_bus import jobs_with_loss_curves, read_loss_curve

ARCHIVE_TIMEOUT_SECONDS = 60.0
"""How long a backup waits for the archive to reach the end of the log."""


async def catch_up(settings: Settings, arguments: Sequence[str]) -> None:
    """`catch-up [--whole]`: archive the log's commits that are not archived yet. The catalog must be stopped.

    `--whole`: first compare every commit, even of a long log.
    """
    parser = _ArgumentParser("catch-up")
    parser.add_argument("--whole", action="store_true")
    options = parser.parse_args(arguments)
    async with _connected(settings) as bus:
        await restoring.catch_up(bus, settings.catalog, compare_all=options.whole)


async def backup(settings: Settings, arguments: Sequence[str]) -> None:
    """`backup FOLDER [--without-keys] [--without-blobs]`: the catalog must be running, or have caught up."""
    parser = _ArgumentParser("backup")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--without-keys", action="store_true")
    parser.add_argument("--without-blobs", action="store_true")
    options = parser.parse_args(arguments)
    async with _connected(settings) as bus:
        await _wait_until_archived(bus, settings.catalog)
        manifest = await backups.create(
            settings,
            options.folder,
            clock=lambda: datetime.now(UTC),
            curves=_curves(bus),
            keys=not options.without_keys,
            blobs=not options.without_blobs,
        )
    _print(f"backed up to {options.folder}: {manifest.sequence} commits, {_describe_contents(manifest)}")


async def verify_backup(settings: Settings, arguments: Sequence[str]) -> None:
    """`verify-backup FOLDER`: recompute the hashes of the chain, the manifest and every blob."""
    del settings
    parser = _ArgumentParser("verify-backup")
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args(arguments).folder
    manifest = await backups.verify(folder)
    time = f"{manifest.created:%Y-%m-%d %H:%M} UTC"
    _print(f"{folder} is intact: {manifest.sequence} commits of {time}, {_describe_contents(manifest)}")


async def list_backups(settings: Settings, arguments: Sequence[str]) -> None:
    """`list-backups`: the registered backups, in which erasures are carried out too, with their time."""
    _ArgumentParser("list-backups").parse_args(arguments)
    async with _open_keys(settings) as keys:
        _print("Folder\tCreated\tState")
        for registered in await keys.backups():
            missing = "" if (registered.path / backups.MANIFEST).exists() else "\tfolder missing"
            _print(f"{registered.path}\t{registered.at:%Y-%m-%d %H:%M} UTC{missing}")


async def forget_backup(settings: Settings, arguments: Sequence[str]) -> None:
    """`forget-backup FOLDER`: unregister a backup that was deleted, so that erasures no longer wait for it."""
    parser = _ArgumentParser("forget-backup")
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args(arguments).folder
    async with _open_keys(settings) as keys:
        if folder not in [registered.path for registered in await keys.backups()]:
            raise NotFound(f"no backup in {folder} is registered")
        await keys.forget_backup(folder)


async def salvage(settings: Settings, arguments: Sequence[str]) -> None:
    """`salvage [--from FOLDER] [--accept-loss]`: complete the archive with every commit that any copy has."""
    parser = _ArgumentParser("salvage")
    parser.add_argument("--from", dest="backup", type=Path)
    parser.add_argument("--accept-loss", action="store_true")
    options = parser.parse_args(arguments)
    async with _connected(settings) as bus:
        last = await restoring.salvage(
            bus,
            settings.catalog,
            at=datetime.now(UTC),
            report=_print,
            backup=options.backup,
            accept_loss=options.accept_loss,
        )
    _print(f"the archive holds all {last} commits")


async def refill(settings: Settings, arguments: Sequence[str]) -> None:
    """`refill`: recreate the log from the archive. Needs the user `admin` and a server without a log."""
    _ArgumentParser("refill").parse_args(arguments)
    async with _connected(settings) as bus:
        restored = await restoring.refill(bus, settings.catalog, at=datetime.now(UTC), report=_print)
        await restoring.restore_loss_curves(bus, settings.catalog)
    voids = f", {restored.voided} of them in place of lost ones" if restored.voided else ""
    _print(f"the log {restored.log_id} holds all {restored.sequence} commits again{voids}, at their old sequences")


async def unpack(settings: Settings, arguments: Sequence[str]) -> None:
    """`unpack FOLDER [--keys FILE]`: copy a backup's archive, keys and blobs into an empty data folder."""
    parser = _ArgumentParser("unpack")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--keys", type=Path)
    options = parser.parse_args(arguments)
    manifest = await backups.unpack(settings, options.folder, keys=options.keys)
    _print(f"unpacked {manifest.sequence} commits, {_describe_contents(manifest)}")


async def audit(settings: Settings, arguments: Sequence[str]) -> None:
    """`audit [--head FILE] [--json]`: verify archive and log, whether the catalog runs or not."""
    parser = _ArgumentParser("audit")
    parser.add_argument("--head", type=Path)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    head = _read_signed_head(options.head) if options.head else None
    async with _connected(settings) as bus:
        archive, keys = Archive(settings.catalog), Keys(settings.catalog / "keys.db")
        try:
            report = await Auditor(archive, EventLog(bus), keys).verify(head)
        finally:
            await keys.close()
            await archive.close()
    for line in [msgspec.json.encode(report).decode()] if options.json else summary_lines(report):
        _print(line)
    if report.damage:
        raise damage_error(report.damage[0])


def _read_signed_head(file: Path) -> AuditHead:
    try:
        return msgspec.json.decode(file.read_bytes(), type=AuditHead)
    except (OSError, msgspec.DecodeError) as error:
        raise SetupError(f"{file} does not contain an audit head: {error}") from error


class _ArgumentParser(argparse.ArgumentParser):
    """Parses a command's arguments; raises SetupError instead of exiting."""

    def __init__(self, command: str) -> None:
        super().__init__(prog=f"python -m catalog {command}", add_help=False, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        raise SetupError(f"{message}; {self.format_usage().strip()}")


@asynccontextmanager
async def _open_keys(settings: Settings) -> AsyncIterator[Keys]:
    file = settings.catalog / backups.KEYS
    if not file.is_file():
        raise SetupError(f"there is no {file}")
    keys = Keys(file)
    try:
        yield keys
    finally:
        await keys.close()


@asynccontextmanager
async def _connected(settings: Settings) -> AsyncIterator[Bus]:
    bus = await connect(settings.nats_url, settings.nats_user, settings.nats_password, "catalog-maintenance")
    try:
        yield bus
    finally:
        await bus.close()


async def _wait_until_archived(bus: Bus, folder: Path) -> None:
    """Wait until the archive holds every commit the log has now; the running catalog archives them."""
    _, end = await EventLog(bus).end()
    try:
        async with asyncio.timeout(ARCHIVE_TIMEOUT_SECONDS), backups.open_archive(folder) as archive:
            while await archive.read(last_sequence) < end:  # noqa: ASYNC110 - a file that another process writes
                await asyncio.sleep(0.1)
    except TimeoutError as error:
        raise Unavailable("the archive is behind the log; is the catalog running?", service="catalog") from error


async def _curves(bus: Bus) -> AsyncIterator[LossBlock]:
    for job in await jobs_with_loss_curves(bus):
        for block in await read_loss_curve(bus, job):
            yield block


def _describe_contents(manifest: backups.BackupManifest) -> str:
    blobs = f"{len(manifest.blobs)} blobs of {sum(line.size for line in manifest.blobs)} bytes"
    return f"{blobs}{'' if manifest.blobs_here else ' (listed only)'}, {'keys' if manifest.keys else 'no keys'}"


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
