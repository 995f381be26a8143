"""Verifies a backup, and copies its files into an empty data folder, or its blobs into one that lacks some."""

import asyncio
import shutil
from collections.abc import Callable, Collection, Sequence
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
from catalog.entries import lineage
from catalog.key_file import key_file_state
from catalog.keys import KEYS, check_schema, images_in
from catalog.settings import Settings
from catalog.watch.presence import expected_by
from contracts.errors import LogDamaged, SetupError
from contracts.ids import Digest
from contracts.wire.blobs.io import hash_content
from contracts.wire.blobs.store import LocalBlobs
from contracts.wording import count

MAX_LISTED_PROBLEMS = 20
"""Maximum number of problems that the error message lists."""
PROGRESS_INTERVAL_BLOBS = 1000
"""Blobs compared between two progress messages."""

OnProgress = Callable[[str], None]


async def verify(target: Path) -> BackupManifest:
    """Recompute all hashes: the archive's chain, the loss curves, every blob; and compare blobs with the archive.

    BackupDamaged lists the problems: also what was missing already when the backup was made.

    SetupError: a newer version of Loratory wrote the backup.
    """
    manifest = await asyncio.to_thread(read_manifest, target)
    refuse_newer_files(target / ARCHIVE, target / KEYS)
    problems: list[str] = []
    ids = frozenset({manifest.log_id})
    try:
        async with open_archive(target) as archive:
            tail = await archive.verify()
            ids |= await archive.read(lineage)
        if (tail.sequence, tail.digest) != (manifest.sequence, manifest.chain):
            problems.append(
                f"the archive ends at {tail.sequence}, which is not the end in the manifest ({manifest.sequence})"
            )
        problems += await asyncio.to_thread(_find_gaps, target, manifest)
    except (LogDamaged, SetupError) as error:  # damaged, or missing
        problems.append(error.detail)
    if manifest.keys and (state := await asyncio.to_thread(key_file_state, target / KEYS, ids)) != "intact":
        problems.append(f"{KEYS} is {state}")
    if file_digest(target / CURVES) != manifest.curves:
        problems.append(f"{CURVES} is missing or damaged")
    if manifest.blobs_here:
        problems += await asyncio.to_thread(_find_damaged_blobs, target, manifest)
    _raise_problems(problems)
    return manifest


async def unpack(settings: Settings, target: Path) -> BackupManifest:
    """Copy archive and loss curves of a backup into the catalog's folder; `mend` adds keys and blobs, `refill` the log.

    SetupError: there is data already, or a newer version wrote the backup. BackupDamaged, LogDamaged: the backup is
    damaged, and the unpacked files must not be used.
    """
    manifest = await asyncio.to_thread(read_manifest, target)
    refuse_newer_files(target / ARCHIVE, target / KEYS)
    store = local_blob_store(settings, needed=manifest.blobs_here)
    if (settings.catalog / ARCHIVE).exists() or (store and any(stored_blobs(store))):
        raise SetupError("the catalog has data already; a backup is restored into an empty data folder")
    settings.catalog.mkdir(parents=True, exist_ok=True)
    await asyncio.to_thread(copy_database, target / ARCHIVE, settings.catalog / ARCHIVE)
    async with open_archive(settings.catalog) as archive:
        tail = await archive.verify()
        if (tail.sequence, tail.digest) != (manifest.sequence, manifest.chain):
            raise BackupDamaged(f"the archive ends at {tail.sequence}, which is not the end in the manifest")
    if (target / CURVES).is_file():
        await asyncio.to_thread(shutil.copyfile, target / CURVES, settings.catalog / CURVES)
    if file_digest(settings.catalog / CURVES) != manifest.curves:
        raise BackupDamaged(f"{CURVES} is missing or damaged")
    return manifest


async def restore_blobs(settings: Settings, target: Path, erased: Collection[Digest], report: OnProgress) -> None:
    """Copy those of the backup's blobs that are missing or damaged here, except erased ones.

    BackupDamaged: some are damaged in the backup as well; all others were restored.
    """
    manifest = await asyncio.to_thread(read_manifest, target)
    if not manifest.blobs_here:
        report("the backup lists the blobs, but does not hold them")
        return
    store = local_blob_store(settings, needed=True)
    assert store is not None  # noqa: S101 - it was needed
    copies, problems, restored = LocalBlobs(target / BLOBS), list[str](), 0
    for number, entry in enumerate(manifest.blobs, start=1):
        if entry.sha256 not in erased and not await asyncio.to_thread(_is_whole, store, entry):
            try:
                await _put_blob(store, copies.path(entry.sha256), entry)
                restored += 1
            except BackupDamaged as error:
                problems.append(error.detail)
        if number % PROGRESS_INTERVAL_BLOBS == 0:
            report(f"{number} of {len(manifest.blobs)} blobs compared")
    if restored:
        report(f"restored {count(restored, 'blob')}")
    _raise_problems(problems)


def refuse_newer_files(archive: Path, keys: Path) -> None:
    """SetupError if a newer version wrote one of the files. Missing and damaged ones are found elsewhere."""
    peek(archive, ARCHIVE_SCHEMA.check)
    peek(keys, check_schema)


def _is_whole(store: LocalBlobs, entry: BlobEntry) -> bool:
    """Whether the blob is there, with the bytes of its digest."""
    path = store.path(entry.sha256)
    return path.is_file() and hash_content(path) == (entry.sha256, entry.size)


async def _put_blob(store: LocalBlobs, source: Path, entry: BlobEntry) -> None:
    """Copy a blob, never link it: the restored data must not share files with the backup."""
    try:
        found = await asyncio.to_thread(hash_content, source)
    except FileNotFoundError as error:
        raise BackupDamaged(f"blob {entry.sha256} is missing") from error
    if found != (entry.sha256, entry.size):
        raise BackupDamaged(f"blob {entry.sha256} is damaged")
    store.path(entry.sha256).unlink(missing_ok=True)  # one of the same size would be taken for whole
    await store.put(source)


def _raise_problems(problems: Sequence[str]) -> None:
    if problems:
        more = f"; and {len(problems) - MAX_LISTED_PROBLEMS} more" if len(problems) > MAX_LISTED_PROBLEMS else ""
        raise BackupDamaged("; ".join(problems[:MAX_LISTED_PROBLEMS]) + more, problems=len(problems))


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
