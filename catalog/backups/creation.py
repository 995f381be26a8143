"""Making a backup, or bringing one up to date: what it held before stays in it."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from pathlib import Path

import msgspec

from catalog.archive.archive import Archive, open_archive
from catalog.archive.rows import ARCHIVE
from catalog.backups.manifest import (
    BLOBS,
    CURVES,
    MANIFEST,
    UNFINISHED,
    BackupManifest,
    BlobEntry,
    file_digest,
    local_blob_store,
    read_manifest,
    stored_blobs,
    write_manifest,
)
from catalog.database import copy_database, remove_database
from catalog.entries import last_sequence, lineage
from catalog.key_file import open_keys
from catalog.keys import KEYS, images_in
from catalog.settings import Settings
from catalog.watch.presence import expected_by, find_losses
from contracts.errors import KeyMissing, SetupError
from contracts.telemetry import LossBlock
from contracts.wire.blobs.store import Blobs, LocalBlobs, blobs_at
from contracts.wire.system.files import draft_beside, open_atomically, sync_file, sync_folder


async def create(  # noqa: PLR0913 - the contents of a backup
    settings: Settings,
    target: Path,
    *,
    clock: Callable[[], datetime],
    curves: AsyncIterator[LossBlock],
    keys: bool = True,
    blobs: bool = True,
) -> BackupManifest:
    """Create a backup in `target`, or update it, whether the catalog runs or not. It holds everything archived so far.

    A backup of a catalog that lost bytes or keys is made all the same; its manifest says what is missing.

    It is registered before anything is copied and again afterwards, so that erasures in between reach it as well.
    SetupError: the folder has other contents, or a backup of another log. LogDamaged: the archive, or the one in the
    backup, is damaged. KeyMissing: the backup has keys that were lost since.
    """
    store = local_blob_store(settings, needed=blobs)
    await asyncio.to_thread(_prepare_folder, target, blobs)
    async with open_archive(settings.catalog) as archive:
        log_id = await archive.belongs_to()
        await _refuse_other_log(archive, target)
        if keys:
            await asyncio.to_thread(_refuse_to_lose_keys, settings.catalog / KEYS, target / KEYS)
        if keys or blobs:
            await _register(archive, settings, target, clock())
    await asyncio.to_thread(copy_database, settings.catalog / ARCHIVE, target / ARCHIVE)
    async with open_archive(target) as copied:
        tail = await copied.verify()
    # Keys and blobs after the archive: what a commit names was on disk before the commit was.
    if keys:
        await asyncio.to_thread(copy_database, settings.catalog / KEYS, target / KEYS)
    else:
        remove_database(target / KEYS)
    kept = blobs_at(settings.blobs)
    if store and blobs:
        await asyncio.to_thread(_copy_blobs, store, target)
        kept = LocalBlobs(target / BLOBS)
    created = clock()
    key_file = (target if keys else settings.catalog) / KEYS
    losses = await find_losses(await asyncio.to_thread(expected_by, target), kept, key_file, at=created)
    manifest = BackupManifest(
        created=created,
        log_id=log_id,
        sequence=tail.sequence,
        chain=tail.digest,
        curves=await _write_curves(curves, target),
        keys=keys,
        blobs_here=blobs,
        blobs=await _list_blobs(kept),
        losses=losses.report(),
    )
    await asyncio.to_thread(write_manifest, target, manifest)
    if keys or blobs:
        async with open_archive(settings.catalog) as archive:
            await _register(archive, settings, target, clock())
    return manifest


def _prepare_folder(target: Path, blobs: bool) -> None:
    if not target.is_absolute():
        raise SetupError(f"the folder of a backup must be an absolute path, not {target}")
    try:
        target.mkdir(parents=True, exist_ok=True, mode=0o700)
        if any(target.iterdir()) and not any((target / name).exists() for name in (MANIFEST, UNFINISHED)):
            raise SetupError(
                f"{target} has other contents; a backup needs an empty folder, or one with an older backup"
            )
        if not blobs and (target / BLOBS).exists():
            raise SetupError(f"the backup in {target} holds blobs; create one without them elsewhere")
        if not (target / MANIFEST).exists():
            (target / UNFINISHED).touch()
    except OSError as error:
        raise SetupError(f"no backup can be created in {target}: {error.strerror}") from error


async def _refuse_other_log(archive: Archive, target: Path) -> None:
    """SetupError if `target` holds a backup of another log: its last commit must be in this archive too."""
    if not (target / MANIFEST).exists():
        return
    manifest = read_manifest(target)
    async with open_archive(target) as old:
        tail = await old.verify()
        same = await archive.digest_at(tail.sequence) == await old.digest_at(tail.sequence)
    if not same or tail.sequence < manifest.sequence:
        raise SetupError(f"{target} holds the backup of another log; create this one elsewhere")


async def _register(archive: Archive, settings: Settings, target: Path, at: datetime) -> None:
    """KeysDamaged: the key file is lost, so a backup would be without keys."""
    ids, log_id = await archive.read(lineage), await archive.belongs_to()
    required = await archive.read(last_sequence) > 1
    async with await open_keys(settings.catalog, ids, log_id, required=required) as keys:
        await keys.register_backup(target, at)


async def _write_curves(curves: AsyncIterator[LossBlock], target: Path) -> str:
    with open_atomically(target / CURVES) as out:
        async for block in curves:
            out.write(msgspec.json.encode(block) + b"\n")
    return file_digest(target / CURVES)


def _refuse_to_lose_keys(source: Path, copy: Path) -> None:
    """KeyMissing: an older backup here has keys that were lost since, and replacing its key file would lose them."""
    if lost := images_in(copy) - images_in(source):
        raise KeyMissing(
            f"{len(lost)} keys were lost since this backup was made, and it still has them: restore them with "
            f"`loratory restore --from {copy.parent}` first, or create the backup in another folder"
        )


async def _list_blobs(blobs: Blobs) -> tuple[BlobEntry, ...]:
    entries = [BlobEntry(*blob) async for part in blobs.listing() for blob in part]
    return tuple(sorted(entries, key=lambda entry: entry.sha256))


def _copy_blobs(store: LocalBlobs, target: Path) -> None:
    """Hard-link the blobs where both folders are on one disk, else copy them. Blobs already in the backup stay."""
    folders: set[Path] = set()
    copies = LocalBlobs(target / BLOBS)
    for digest, size in stored_blobs(store):
        destination = copies.path(digest)
        if destination.is_file() and destination.stat().st_size == size:
            continue
        destination.parent.mkdir(parents=True, exist_ok=True)
        folders |= {destination.parent, destination.parent.parent}
        _link_or_copy(store.path(digest), destination)
    for folder in (*folders, target / BLOBS):
        if folder.exists():
            sync_folder(folder)


def _link_or_copy(source: Path, destination: Path) -> None:
    with draft_beside(destination) as draft:
        try:
            os.link(source, draft)
        except FileNotFoundError:
            return  # deleted since it was listed
        except OSError:  # another disk, or a file system without hard links
            shutil.copyfile(source, draft)
            sync_file(draft)
        draft.replace(destination)  # the folders are synced once, after all blobs
