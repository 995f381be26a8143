"""`python -m catalog <command>`: one-off maintenance of the catalog's files.

Each command takes the settings and its arguments, prints what it did on stdout, and raises errors.
"""

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

import msgspec

from catalog import accepting, mending, restoring
from catalog.archive.archive import COMPARE_ALL_AT_START, DEFAULT_POLICY, Archive, open_archive
from catalog.archive.rows import ARCHIVE
from catalog.audit import Auditor
from catalog.backups import creation, extraction
from catalog.backups.manifest import MANIFEST, BackupManifest, read_manifest
from catalog.cures import named_cure, with_cures
from catalog.database import peek
from catalog.entries import last_sequence, lineage
from catalog.key_file import KeysDamaged, has_foreign_wal, open_keys
from catalog.keys import KEYS, Keys
from catalog.settings import Settings
from catalog.store import checkpoint
from catalog.watch.patrol import Patrol
from catalog.watch.presence import expected_by, find_losses
from contracts.audit import AuditHead, AuditReport, damage_error, summary_lines
from contracts.errors import BlobMissing, NotFound, SetupError, Unavailable
from contracts.losses import LossReport, loss_lines
from contracts.telemetry import LossBlock
from contracts.wire.blobs.store import blobs_at
from contracts.wire.log.event_log import EventLog
from contracts.wire.service.bus import Bus
from contracts.wire.service.connection import connect_service
from contracts.wire.service.telemetry import jobs_with_loss_curves, read_loss_curve
from contracts.wording import count

ARCHIVE_TIMEOUT_SECONDS = 60.0
"""How long a backup waits for the archive to reach the end of the log."""


async def catch_up(settings: Settings, arguments: Sequence[str]) -> None:
    """`catch-up [--whole]`: archive the log's commits that are not archived yet. The catalog must be stopped.

    `--whole`: first compare every commit, even of a long log.
    """
    options = _parse("catch-up", arguments, flags=["--whole"])
    mending.set_aside_foreign_wal(settings.catalog / KEYS, at=datetime.now(UTC), report=_print)
    async with await _connect(settings) as bus:
        await restoring.catch_up(bus, settings.catalog, COMPARE_ALL_AT_START if options.whole else DEFAULT_POLICY)


async def backup(
    settings: Settings, arguments: Sequence[str], *, archive_timeout: float = ARCHIVE_TIMEOUT_SECONDS
) -> None:
    """`backup FOLDER [--without-keys] [--without-blobs]`: the catalog must be running, or have caught up."""
    options = _parse("backup", arguments, paths=["folder"], flags=["--without-keys", "--without-blobs"])
    _refuse_foreign_wal(settings)
    async with await _connect(settings) as bus:
        await _wait_until_archived(bus, settings.catalog, archive_timeout)
        manifest = await creation.create(
            settings,
            options.folder,
            clock=lambda: datetime.now(UTC),
            curves=_curves(bus),
            keys=not options.without_keys,
            blobs=not options.without_blobs,
        )
    _print(f"backed up to {options.folder}: {manifest.sequence} commits, {_describe_contents(manifest)}")
    if manifest.losses.counts:
        for line in loss_lines(manifest.losses):
            _print(line)
        raise BlobMissing(f"the backup is incomplete, because so is what was backed up: {manifest.losses.describe()}")


async def verify_backup(settings: Settings, arguments: Sequence[str]) -> None:
    """`verify-backup FOLDER`: recompute the hashes of the chain, the manifest and every blob."""
    del settings
    folder = _parse("verify-backup", arguments, paths=["folder"]).folder
    manifest = await extraction.verify(folder)
    time = f"{manifest.created:%Y-%m-%d %H:%M} UTC"
    _print(f"{folder} is intact: {manifest.sequence} commits of {time}, {_describe_contents(manifest)}")


async def check_files(settings: Settings, arguments: Sequence[str]) -> None:
    """`check-files`: can this version read the catalog's files, and are blobs and keys there? Nothing is changed."""
    _parse("check-files", arguments)
    _refuse_foreign_wal(settings)
    extraction.refuse_newer_files(settings.catalog / ARCHIVE, settings.catalog / KEYS)
    if (settings.catalog / ARCHIVE).is_file():
        report = await _find_losses(settings)
        for line in loss_lines(report):
            _print(line)
        _refuse_losses(report)


async def ends(settings: Settings, arguments: Sequence[str]) -> None:
    """`ends`: where archive and read model end, as JSON; null where there is no such file."""
    _parse("ends", arguments)
    archived = peek(settings.catalog / ARCHIVE, last_sequence)
    applied = peek(settings.catalog / "read.db", checkpoint)
    _print(msgspec.json.encode({"archived": archived, "read_model": applied}).decode())


async def list_backups(settings: Settings, arguments: Sequence[str]) -> None:
    """`list-backups`: the registered backups, in which erasures are carried out too, with their time."""
    _parse("list-backups", arguments)
    async with await _open_keys(settings) as keys:
        _print("Folder\tCreated\tState")
        for registered in await keys.backups():
            missing = "" if (registered.path / MANIFEST).exists() else "\tfolder missing"
            _print(f"{registered.path}\t{registered.at:%Y-%m-%d %H:%M} UTC{missing}")


async def forget_backup(settings: Settings, arguments: Sequence[str]) -> None:
    """`forget-backup FOLDER`: unregister a backup that was deleted, so that erasures no longer wait for it."""
    folder = _parse("forget-backup", arguments, paths=["folder"]).folder
    async with await _open_keys(settings) as keys:
        if folder not in [registered.path for registered in await keys.backups()]:
            raise NotFound(f"no backup in {folder} is registered")
        await keys.forget_backup(folder)


async def salvage(settings: Settings, arguments: Sequence[str]) -> None:
    """`salvage [--from FOLDER] [--accept-loss]`: complete the archive with every commit that any copy has."""
    options = _parse("salvage", arguments, paths=["--from"], flags=["--accept-loss"])
    async with await _connect(settings) as bus:
        last = await restoring.salvage(
            bus,
            settings.catalog,
            at=datetime.now(UTC),
            report=_print,
            backup=vars(options)["from"],
            accept_loss=options.accept_loss,
        )
    _print(f"the archive holds all {last} commits")


async def mend(settings: Settings, arguments: Sequence[str]) -> None:
    """`mend [--from FOLDER] [--keys FILE]`: bring back keys and blobs. The archive must be complete."""
    options = _parse("mend", arguments, paths=["--from", "--keys"])
    with named_cure(settings):
        await mending.mend(
            settings, at=datetime.now(UTC), report=_print, backup=vars(options)["from"], keys=options.keys
        )


async def list_losses(settings: Settings, arguments: Sequence[str]) -> None:
    """`list-losses blobs|images|keys`: what `accept-loss` would give up."""
    kind = _parse_kind("list-losses", arguments)
    for line in (await accepting.find_lost(settings, kind, at=datetime.now(UTC))).lines:
        _print(f"lost: {line}")


async def accept_loss(settings: Settings, arguments: Sequence[str]) -> None:
    """`accept-loss blobs|images|keys`: give up what is lost. The catalog must be stopped, and have caught up."""
    kind = _parse_kind("accept-loss", arguments)
    async with await _connect(settings) as bus:
        with named_cure(settings):
            lost = await accepting.accept_loss(bus, settings, kind, at=datetime.now(UTC), report=_print)
    _print(f"given up: {count(len(lost.blobs), 'blob')}, and the keys of {count(len(lost.images), 'image')}")


async def renew_keys(settings: Settings, arguments: Sequence[str]) -> None:
    """`renew-keys`: give up the key file where the log is lost, too; `refill` comes next."""
    _parse("renew-keys", arguments)
    await accepting.renew_keys(settings, at=datetime.now(UTC), report=_print)


async def refill(settings: Settings, arguments: Sequence[str]) -> None:
    """`refill`: recreate the log from the archive. Needs the user `admin` and a server without a log."""
    _parse("refill", arguments)
    async with await _connect(settings) as bus:
        restored = await restoring.refill(bus, settings.catalog, at=datetime.now(UTC), report=_print)
        await restoring.restore_loss_curves(bus, settings.catalog)
    voids = f", {restored.voided} of them in place of lost ones" if restored.voided else ""
    _print(f"the log {restored.log_id} holds all {restored.sequence} commits again{voids}, at their old sequences")


async def unpack(settings: Settings, arguments: Sequence[str]) -> None:
    """`unpack FOLDER [--keys FILE]`: copy a backup's archive, keys and blobs into an empty data folder.

    With `--keys`, its keys are added, and what it says was erased stays unreadable.
    """
    options = _parse("unpack", arguments, paths=["folder", "--keys"])
    if options.keys is None and not read_manifest(options.folder).keys:
        raise SetupError("this backup holds no keys; give a keys.db with --keys")
    manifest = await extraction.unpack(settings, options.folder)
    await mending.mend(settings, at=datetime.now(UTC), report=_print, backup=options.folder, keys=options.keys)
    _print(f"unpacked {manifest.sequence} commits, {_describe_contents(manifest)}")


async def audit(settings: Settings, arguments: Sequence[str]) -> None:
    """`audit [--head FILE] [--json] [--read-blobs]`: verify archive, log and what is stored, whether the catalog runs.

    `--read-blobs`: also compare the bytes of all blobs with their digests.
    """
    options = _parse("audit", arguments, paths=["--head"], flags=["--json", "--read-blobs"])
    head = _read_signed_head(options.head) if options.head else None
    with named_cure(settings):
        report = await _audit(settings, head)
    if all(damage.where != "archive" for damage in report.damage):  # else nothing says what must be there
        losses = await _find_losses(settings, read_blobs=options.read_blobs)
        report = msgspec.structs.replace(report, losses=losses)
    for line in [msgspec.json.encode(report).decode()] if options.json else summary_lines(report):
        _print(line)
    if report.damage:
        with named_cure(settings):
            raise damage_error(report.damage[0])
    _refuse_losses(report.losses)


async def _find_losses(settings: Settings, *, read_blobs: bool = False) -> LossReport:
    """By the archive, whether the catalog runs or not; `read_blobs`: also damaged blobs, which are moved aside."""
    expected, blobs = await asyncio.to_thread(expected_by, settings.catalog), blobs_at(settings.blobs)
    if read_blobs:
        await Patrol(blobs, blobs.set_aside).audit_all()
    losses = await find_losses(expected, blobs, settings.catalog / KEYS, at=datetime.now(UTC))
    return with_cures(settings, losses.report())


def _refuse_losses(report: LossReport) -> None:
    """BlobMissing: blobs or keys are missing."""
    if report.counts:
        raise BlobMissing(report.describe())


async def _audit(settings: Settings, head: AuditHead | None) -> AuditReport:
    async with await _connect(settings) as bus, Archive(settings.catalog) as archive:
        ids, log_id = await archive.read(lineage), await archive.belongs_to()
        required = await archive.read(last_sequence) > 1
        async with await open_keys(settings.catalog, ids, log_id, required=required) as keys:
            return await Auditor(archive, EventLog(bus), keys).verify(head)


def _read_signed_head(file: Path) -> AuditHead:
    try:
        return msgspec.json.decode(file.read_bytes(), type=AuditHead)
    except (OSError, msgspec.DecodeError) as error:
        raise SetupError(f"{file} does not contain an audit head: {error}") from error


class _ArgumentParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SetupError(f"{message}; {self.format_usage().strip()}")


def _parse(
    command: str, arguments: Sequence[str], *, paths: Sequence[str] = (), flags: Sequence[str] = ()
) -> argparse.Namespace:
    """The options of a command. SetupError: they are wrong."""
    parser = _ArgumentParser(prog=f"python -m catalog {command}", add_help=False, allow_abbrev=False)
    for path in paths:
        parser.add_argument(path, type=Path)
    for flag in flags:
        parser.add_argument(flag, action="store_true")
    return parser.parse_args(arguments)


def _parse_kind(command: str, arguments: Sequence[str]) -> accepting.LostKind:
    (kind,) = vars(_parse(command, arguments, paths=["kind"])).values()
    try:
        found: accepting.LostKind = msgspec.convert(str(kind), accepting.LostKind)
    except msgspec.ValidationError as error:
        raise SetupError(f"{kind} is none of blobs, images, keys") from error
    return found


def _refuse_foreign_wal(settings: Settings) -> None:
    """KeysDamaged: to open the key file would apply the WAL of another one to it."""
    file = settings.catalog / KEYS
    if has_foreign_wal(file):
        with named_cure(settings):
            raise KeysDamaged(f"the WAL beside {file} is that of another key file", where="keys")


async def _open_keys(settings: Settings) -> Keys:
    _refuse_foreign_wal(settings)
    file = settings.catalog / KEYS
    if not file.is_file():
        raise SetupError(f"there is no {file}")
    return await Keys.open(file)


async def _connect(settings: Settings) -> Bus:
    return await connect_service(settings, "catalog-maintenance")


async def _wait_until_archived(bus: Bus, folder: Path, timeout: float) -> None:
    """Wait until the archive holds every commit the log has now; the running catalog archives them."""
    _, end = await EventLog(bus).end()
    try:
        async with asyncio.timeout(timeout), open_archive(folder) as archive:
            while await archive.read(last_sequence) < end:  # noqa: ASYNC110 - a file that another process writes
                await asyncio.sleep(0.1)
    except TimeoutError as error:
        raise Unavailable("the archive is behind the log; is the catalog running?", service="catalog") from error


async def _curves(bus: Bus) -> AsyncIterator[LossBlock]:
    for job in await jobs_with_loss_curves(bus):
        for block in await read_loss_curve(bus, job):
            yield block


def _describe_contents(manifest: BackupManifest) -> str:
    blobs = f"{len(manifest.blobs)} blobs of {sum(line.size for line in manifest.blobs)} bytes"
    return f"{blobs}{'' if manifest.blobs_here else ' (listed only)'}, {'keys' if manifest.keys else 'no keys'}"


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
