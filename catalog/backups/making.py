"""Making a backup, or bringing one up to date: what it held before stays in it."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from pathlib import Path

import msgspec

from catalog.archive import Archive
from catalog.backups.manifest import (
    ARCHIVE,
    BLOBS,
    CURVES,
    KEYS,
    MANIFEST,
    UNFINISHED,
    Manifest,
    digest_of,
    held,
    listed,
    opened,
    read_manifest,
    store_of,
    write_manifest,
)
from catalog.database import copy, remove
from catalog.keys import Keys
from catalog.settings import Settings
from contracts.errors import SetupError
from contracts.telemetry import LossBlock
from contracts.wire.blob_bytes import CHUNK, sync_file, sync_folder
from contracts.wire.blobs import LocalBlobs


async def create(  # noqa: PLR0913 - what goes in
    settings: Settings,
    target: Path,
    *,
    clock: Callable[[], datetime],
    curves: AsyncIterator[LossBlock],
    keys: bool = True,
    blobs: bool = True,
) -> Manifest:
    """Make it, or bring it up to date, while the catalog runs or not.

    It is registered before anything is copied and again afterwards, so that what is erased meanwhile is erased in it.
    It holds all that is archived now. SetupError for a folder with other things in it; LogDamaged where the archive, or
    the one of the backup, is not whole, or where the backup is of another log.
    """
    store = store_of(settings, needed=blobs)
    await asyncio.to_thread(_begin, target, blobs)
    async with opened(settings.catalog) as archive:
        log_id = await archive.belongs_to()
        await _refuse_another(archive, target)
    if keys or blobs:
        await _register(settings, target, clock())
    await asyncio.to_thread(copy, settings.catalog / ARCHIVE, target / ARCHIVE)
    async with opened(target) as copied:
        tail = await copied.verify()
    # After the archive: what a commit names was on disk before the commit was.
    if keys:
        await asyncio.to_thread(copy, settings.catalog / KEYS, target / KEYS)
    else:
        remove(target / KEYS)
    if store and blobs:
        await asyncio.to_thread(_take_blobs, store, target)
        store = LocalBlobs(target / BLOBS)
    lines = await asyncio.to_thread(listed, store) if store else ()
    manifest = Manifest(
        created=clock(),
        log_id=log_id,
        sequence=tail.sequence,
        chain=tail.digest,
        curves=await _keep_curves(curves, target),
        keys=keys,
        blobs_here=blobs,
        blobs=lines,
    )
    await asyncio.to_thread(write_manifest, target, manifest)
    if keys or blobs:
        await _register(settings, target, clock())
    return manifest


def _begin(target: Path, blobs: bool) -> None:
    if not target.is_absolute():
        raise SetupError(f"the folder of a backup is given as an absolute path, not as {target}")
    try:
        target.mkdir(parents=True, exist_ok=True, mode=0o700)
        if any(target.iterdir()) and not any((target / name).exists() for name in (MANIFEST, UNFINISHED)):
            raise SetupError(
                f"{target} holds other things; a backup needs an empty folder, or one with an older backup"
            )
        if not blobs and (target / BLOBS).exists():
            raise SetupError(f"the backup in {target} holds blobs; make one without them elsewhere")
        if not (target / MANIFEST).exists():
            (target / UNFINISHED).touch()
    except OSError as error:
        raise SetupError(f"no backup can be made in {target}: {error.strerror}") from error


async def _refuse_another(archive: Archive, target: Path) -> None:
    """A backup that is brought up to date must be of this log: what it ends with stands here too."""
    if not (target / MANIFEST).exists():
        return
    manifest = read_manifest(target)
    async with opened(target) as old:
        tail = await old.verify()
        same = await archive.digest_at(tail.sequence) == await old.digest_at(tail.sequence)
    if not same or tail.sequence < manifest.sequence:
        raise SetupError(f"{target} holds the backup of another log; make this one elsewhere")


async def _register(settings: Settings, target: Path, at: datetime) -> None:
    keys = Keys(settings.catalog / KEYS)
    try:
        await keys.register_backup(target, at)
    finally:
        await keys.close()


async def _keep_curves(curves: AsyncIterator[LossBlock], target: Path) -> str:
    draft = target / f".{CURVES}.draft"
    with draft.open("wb") as out:
        async for block in curves:
            out.write(msgspec.json.encode(block) + b"\n")
        sync_file(out)
    draft.replace(target / CURVES)
    return digest_of(target / CURVES)


def _take_blobs(store: LocalBlobs, target: Path) -> None:
    """Links where both folders are on one disk, else copies. What is there already stays."""
    folders: set[Path] = set()
    copies = LocalBlobs(target / BLOBS)
    for digest, size in held(store):
        place = copies.path(digest)
        if place.is_file() and place.stat().st_size == size:
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        folders |= {place.parent, place.parent.parent}
        _take(store.path(digest), place)
    for folder in (*folders, target / BLOBS):
        if folder.exists():
            sync_folder(folder)


def _take(source: Path, place: Path) -> None:
    draft = place.with_name(f".{place.name}.draft")
    draft.unlink(missing_ok=True)
    try:
        os.link(source, draft)
    except FileNotFoundError:
        return  # erased or collected since it was listed
    except OSError:  # another disk, or one without links
        with source.open("rb") as whole, draft.open("wb") as out:
            shutil.copyfileobj(whole, out, CHUNK)
            sync_file(out)
    draft.replace(place)
