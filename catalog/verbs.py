"""`python -m catalog <verb>`: what is done to the catalog's files once, and not by serving.

Each takes the settings and the words after the verb, says what it did on stdout, and raises what goes wrong.
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
from contracts.audit import AuditHead, damaged, told
from contracts.errors import NotFound, SetupError, Unavailable
from contracts.telemetry import LossBlock
from contracts.wire.bus import Bus, connect
from contracts.wire.log import EventLog
from contracts.wire.telling import jobs_with_losses, read_losses

ARCHIVED_WITHIN = 60.0
"""Seconds the archive may take to reach where the log ended when a backup was asked for."""


async def catch_up(settings: Settings, arguments: Sequence[str]) -> None:
    """`catch-up [--whole]`: archive what the log holds beyond the archive. For a catalog that is stopped.

    `--whole`: first compare every commit, also those of a long log.
    """
    words = _Words("catch-up")
    words.add_argument("--whole", action="store_true")
    given = words.parse_args(arguments)
    async with _connected(settings) as bus:
        await restoring.catch_up(bus, settings.catalog, whole=given.whole)


async def backup(settings: Settings, arguments: Sequence[str]) -> None:
    """`backup FOLDER [--without-keys] [--without-blobs]`: of a catalog that runs, or has caught up."""
    words = _Words("backup")
    words.add_argument("folder", type=Path)
    words.add_argument("--without-keys", action="store_true")
    words.add_argument("--without-blobs", action="store_true")
    given = words.parse_args(arguments)
    async with _connected(settings) as bus:
        await _all_archived(bus, settings.catalog)
        made = await backups.create(
            settings,
            given.folder,
            clock=lambda: datetime.now(UTC),
            curves=_curves(bus),
            keys=not given.without_keys,
            blobs=not given.without_blobs,
        )
    _say(f"backed up to {given.folder}: {made.sequence} commits, {_parts(made)}")


async def verify_backup(settings: Settings, arguments: Sequence[str]) -> None:
    """`verify-backup FOLDER`: the chain, the manifest and every blob, computed again."""
    del settings
    words = _Words("verify-backup")
    words.add_argument("folder", type=Path)
    folder = words.parse_args(arguments).folder
    made = await backups.verify(folder)
    _say(f"{folder} is whole: {made.sequence} commits of {made.created:%Y-%m-%d %H:%M} UTC, {_parts(made)}")


async def list_backups(settings: Settings, arguments: Sequence[str]) -> None:
    """`list-backups`: those in which what is erased is erased as well, with the time they were made."""
    _Words("list-backups").parse_args(arguments)
    async with _keys(settings) as keys:
        for made in await keys.backups():
            there = "" if (made.path / backups.MANIFEST).exists() else "\tnot there now"
            _say(f"{made.path}\t{made.at:%Y-%m-%d %H:%M} UTC{there}")


async def forget_backup(settings: Settings, arguments: Sequence[str]) -> None:
    """`forget-backup FOLDER`: it is gone for good, and nothing has to be erased in it any more."""
    words = _Words("forget-backup")
    words.add_argument("folder", type=Path)
    folder = words.parse_args(arguments).folder
    async with _keys(settings) as keys:
        if folder not in [made.path for made in await keys.backups()]:
            raise NotFound(f"no backup in {folder} is known")
        await keys.forget_backup(folder)


async def salvage(settings: Settings, arguments: Sequence[str]) -> None:
    """`salvage [--from FOLDER] [--accept-loss]`: every commit that any copy has, into the archive."""
    words = _Words("salvage")
    words.add_argument("--from", dest="backup", type=Path)
    words.add_argument("--accept-loss", action="store_true")
    given = words.parse_args(arguments)
    async with _connected(settings) as bus:
        last = await restoring.salvage(
            bus,
            settings.catalog,
            at=datetime.now(UTC),
            say=_say,
            backup=given.backup,
            accept_loss=given.accept_loss,
        )
    _say(f"the archive holds all {last} commits")


async def refill(settings: Settings, arguments: Sequence[str]) -> None:
    """`refill`: the log anew from the archive. As the user `admin`, on a server that holds no log."""
    _Words("refill").parse_args(arguments)
    async with _connected(settings) as bus:
        made = await restoring.refill(bus, settings.catalog, at=datetime.now(UTC), say=_say)
        await restoring.put_curves_back(bus, settings.catalog)
    voids = f", {made.voided} of them in place of lost ones" if made.voided else ""
    _say(f"the log {made.log_id} holds all {made.sequence} commits again{voids}, each where it was")


async def unpack(settings: Settings, arguments: Sequence[str]) -> None:
    """`unpack FOLDER [--keys FILE]`: a backup's archive, keys and blobs, where nothing is yet."""
    words = _Words("unpack")
    words.add_argument("folder", type=Path)
    words.add_argument("--keys", type=Path)
    given = words.parse_args(arguments)
    made = await backups.unpack(settings, given.folder, keys=given.keys)
    _say(f"unpacked {made.sequence} commits, {_parts(made)}")


async def audit(settings: Settings, arguments: Sequence[str]) -> None:
    """`audit [--head FILE] [--json]`: verify archive and log, of a catalog that runs or not."""
    words = _Words("audit")
    words.add_argument("--head", type=Path)
    words.add_argument("--json", action="store_true")
    given = words.parse_args(arguments)
    head = _head_in(given.head) if given.head else None
    async with _connected(settings) as bus:
        archive, keys = Archive(settings.catalog), Keys(settings.catalog / "keys.db")
        try:
            report = await Auditor(archive, EventLog(bus), keys).verify(head)
        finally:
            await keys.close()
            await archive.close()
    for line in [msgspec.json.encode(report).decode()] if given.json else told(report):
        _say(line)
    if report.damage:
        raise damaged(report.damage[0])


def _head_in(file: Path) -> AuditHead:
    try:
        return msgspec.json.decode(file.read_bytes(), type=AuditHead)
    except (OSError, msgspec.DecodeError) as error:
        raise SetupError(f"{file} holds no head of a log: {error}") from error


class _Words(argparse.ArgumentParser):
    """The words after a verb; what is wrong with them is raised."""

    def __init__(self, verb: str) -> None:
        super().__init__(prog=f"python -m catalog {verb}", add_help=False, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        raise SetupError(f"{message}; {self.format_usage().strip()}")


@asynccontextmanager
async def _keys(settings: Settings) -> AsyncIterator[Keys]:
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
    bus = await connect(settings.nats_url, settings.nats_user, settings.nats_password, "catalog-verb")
    try:
        yield bus
    finally:
        await bus.close()


async def _all_archived(bus: Bus, folder: Path) -> None:
    """Returns when the archive holds what the log held when this was asked; a catalog that runs sees to it."""
    _, end = await EventLog(bus).end()
    try:
        async with asyncio.timeout(ARCHIVED_WITHIN), backups.opened(folder) as archive:
            while await archive.read(last_sequence) < end:  # noqa: ASYNC110 - a file that another process writes
                await asyncio.sleep(0.1)
    except TimeoutError as error:
        raise Unavailable("the archive does not follow the log; is the catalog running?", service="catalog") from error


async def _curves(bus: Bus) -> AsyncIterator[LossBlock]:
    for job in await jobs_with_losses(bus):
        for block in await read_losses(bus, job):
            yield block


def _parts(made: backups.Manifest) -> str:
    blobs = f"{len(made.blobs)} blobs of {sum(line.size for line in made.blobs)} bytes"
    return f"{blobs}{'' if made.blobs_here else ' (listed only)'}, {'keys' if made.keys else 'no keys'}"


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
