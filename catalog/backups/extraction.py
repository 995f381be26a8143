"""Verifies a backup and copies its files into an empty data folder."""

import asyncio
import shutil
from pathlib import Path

from catalog.archive.archive import open_archive
from catalog.archive.rows import ARCHIVE, ARCHIVE_SCHEMA
from catalog.backups.manifest import (
    BLOBS,
    CURVES,
    BackupDamaged,
    BackupManifest,
    BlobEntry,
    file_digest,
    local_blob_store,
    read_manifest,
    stored_blobs,
)
from catalog.database import copy_database, peek
from catalog.keys import KEYS, KEYS_SCHEMA, images_in
from catalog.settings import Settings
from catalog.watch.presence import expected_by
from contracts.errors import LogDamaged, SetupError
from contracts.wire.blobs.io import hash_content
from contracts.wire.blobs.store import LocalBlobs

MAX_LISTED_PROBLEMS = 20
"""Maximum number of problems that the error message lists."""


async def verify(target: Path) -> BackupManifest:
    """Recompute all hashes: the archive's chain, the loss curves, every blob; and compare blobs with the archive.

    BackupDamaged lists the problems: also what was missing already when the backup was made.

    SetupError: a newer version of Loratory wrote the backup.
    """
    manifest = await asyncio.to_thread(read_manifest, target)
    refuse_newer_files(target / ARCHIVE, target / KEYS)
    problems: list[str] = []
    try:
        async with open_archive(target) as archive:
            tail = await archive.verify()
        if (tail.sequence, tail.digest) != (manifest.sequence, manifest.chain):
            problems.append(
                f"the archive ends at {tail.sequence}, which is not the end in the manifest ({manifest.sequence})"
            )
        problems += await asyncio.to_thread(_find_gaps, target, manifest)
    except (LogDamaged, SetupError) as error:  # damaged, or missing
        problems.append(error.detail)
    if manifest.keys and not (target / KEYS).is_file():
        problems.append(f"{KEYS} is missing")
    if file_digest(target / CURVES) != manifest.curves:
        problems.append(f"{CURVES} is missing or damaged")
    if manifest.blobs_here:
        problems += await asyncio.to_thread(_find_damaged_blobs, target, manifest)
    if problems:
        more = f"; and {len(problems) - MAX_LISTED_PROBLEMS} more" if len(problems) > MAX_LISTED_PROBLEMS else ""
        raise BackupDamaged("; ".join(problems[:MAX_LISTED_PROBLEMS]) + more, problems=len(problems))
    return manifest


async def unpack(settings: Settings, target: Path, *, keys: Path | None = None) -> BackupManifest:
    """Copy archive, keys and blobs of a backup into the catalog's folders; `refill` recreates the log from them.

    `keys` replaces the backup's keys, so that what was erased since stays unreadable. All copies are verified.
    SetupError: there is data already, or there are no keys, or a newer version wrote the backup. BackupDamaged,
    LogDamaged: the backup is damaged, and the unpacked files must not be used.
    """
    manifest = await asyncio.to_thread(read_manifest, target)
    refuse_newer_files(target / ARCHIVE, keys or target / KEYS)
    store = local_blob_store(settings, needed=manifest.blobs_here)
    if (settings.catalog / ARCHIVE).exists() or (store and any(stored_blobs(store))):
        raise SetupError("the catalog has data already; a backup is restored into an empty data folder")
    if keys is None and not manifest.keys:
        raise SetupError("this backup holds no keys; give a keys.db with --keys")
    settings.catalog.mkdir(parents=True, exist_ok=True)
    await asyncio.to_thread(copy_database, target / ARCHIVE, settings.catalog / ARCHIVE)
    await asyncio.to_thread(copy_database, keys or target / KEYS, settings.catalog / KEYS)
    async with open_archive(settings.catalog) as archive:
        tail = await archive.verify()
        if (tail.sequence, tail.digest) != (manifest.sequence, manifest.chain):
            raise BackupDamaged(f"the archive ends at {tail.sequence}, which is not the end in the manifest")
    if (target / CURVES).is_file():
        await asyncio.to_thread(shutil.copyfile, target / CURVES, settings.catalog / CURVES)
    if file_digest(settings.catalog / CURVES) != manifest.curves:
        raise BackupDamaged(f"{CURVES} is missing or damaged")
    if store and manifest.blobs_here:
        for entry in manifest.blobs:
            await _put_blob(store, LocalBlobs(target / BLOBS).path(entry.sha256), entry)
    return manifest


def refuse_newer_files(archive: Path, keys: Path) -> None:
    """SetupError if a newer version wrote one of the files. Missing and damaged ones are found elsewhere."""
    peek(archive, ARCHIVE_SCHEMA.check)
    peek(keys, KEYS_SCHEMA.check)


async def _put_blob(store: LocalBlobs, source: Path, entry: BlobEntry) -> None:
    """Copy a blob, never link it: the restored data must not share files with the backup."""
    try:
        digest = await store.put(source)
    except FileNotFoundError as error:
        raise BackupDamaged(f"blob {entry.sha256} is missing") from error
    if digest != entry.sha256:
        raise BackupDamaged(f"blob {entry.sha256} is damaged")


def _find_gaps(target: Path, manifest: BackupManifest) -> list[str]:
    """What the archive names and the backup never had; what was erased from it since is no gap."""
    live, listed = expected_by(target).live, {entry.sha256 for entry in manifest.blobs} | {*manifest.erased}
    gaps = [
        f"the {reference.kind} of {reference.owner} (blob {reference.digest}) is not in it"
        for reference in live.references()
        if reference.digest not in listed
    ]
    if manifest.keys:
        gaps += [f"the key of {image} is not in it" for image in sorted(live.keys() - images_in(target / KEYS))]
    return gaps


def _find_damaged_blobs(target: Path, manifest: BackupManifest) -> list[str]:
    copies, problems = LocalBlobs(target / BLOBS), []
    for entry in manifest.blobs:
        path = copies.path(entry.sha256)
        if not path.is_file():
            problems.append(f"blob {entry.sha256} is missing")
        elif hash_content(path) != (entry.sha256, entry.size):
            problems.append(f"blob {entry.sha256} is damaged")
    return problems
