"""Taking a backup's files out again, and checking that all of them are there."""

import asyncio
import shutil
from pathlib import Path

from catalog.backups.manifest import (
    ARCHIVE,
    BLOBS,
    CURVES,
    KEYS,
    BackupDamaged,
    BlobLine,
    Manifest,
    digest_of,
    held,
    opened,
    read_manifest,
    store_of,
)
from catalog.database import copy
from catalog.settings import Settings
from contracts.errors import LogDamaged, SetupError
from contracts.wire.blob_bytes import measured
from contracts.wire.blobs import LocalBlobs

MOST_NAMED = 20
"""So many troubles are named one by one."""


async def verify(target: Path) -> Manifest:
    """Compute everything again: chain, head, digests of all blobs. BackupDamaged names what is wrong."""
    manifest = await asyncio.to_thread(read_manifest, target)
    wrong: list[str] = []
    try:
        async with opened(target) as archive:
            tail = await archive.verify()
        if (tail.sequence, tail.digest) != (manifest.sequence, manifest.chain):
            wrong.append(f"the archive ends at {tail.sequence}, and not as the manifest says ({manifest.sequence})")
    except (LogDamaged, SetupError) as error:
        wrong.append(error.detail)
    if manifest.keys and not (target / KEYS).is_file():
        wrong.append(f"{KEYS} is missing")
    if digest_of(target / CURVES) != manifest.curves:
        wrong.append(f"{CURVES} is missing or damaged")
    if manifest.blobs_here:
        wrong += await asyncio.to_thread(_wrong_blobs, target, manifest)
    if wrong:
        more = f"; and {len(wrong) - MOST_NAMED} more" if len(wrong) > MOST_NAMED else ""
        raise BackupDamaged("; ".join(wrong[:MOST_NAMED]) + more, troubles=len(wrong))
    return manifest


async def unpack(settings: Settings, target: Path, *, keys: Path | None = None) -> Manifest:
    """Archive, keys and blobs of a backup, to where the catalog keeps its own; the log is made from them afterwards.

    `keys` in place of those of the backup: what was erased since stays unreadable. All is checked on the way.
    SetupError where something is there already, or where there are no keys to take. BackupDamaged, LogDamaged: it is
    not whole, and what was unpacked is of no use.
    """
    manifest = await asyncio.to_thread(read_manifest, target)
    store = store_of(settings, needed=manifest.blobs_here)
    if (settings.catalog / ARCHIVE).exists() or (store and any(held(store))):
        raise SetupError("there is a catalog with data here already; a backup is restored into an empty folder")
    if keys is None and not manifest.keys:
        raise SetupError("this backup holds no keys; give a keys.db with --keys")
    settings.catalog.mkdir(parents=True, exist_ok=True)
    await asyncio.to_thread(copy, target / ARCHIVE, settings.catalog / ARCHIVE)
    await asyncio.to_thread(copy, keys or target / KEYS, settings.catalog / KEYS)
    async with opened(settings.catalog) as archive:
        tail = await archive.verify()
        if (tail.sequence, tail.digest) != (manifest.sequence, manifest.chain):
            raise BackupDamaged(f"the archive ends at {tail.sequence}, and not as the manifest says")
    if (target / CURVES).is_file():
        await asyncio.to_thread(shutil.copyfile, target / CURVES, settings.catalog / CURVES)
    if digest_of(settings.catalog / CURVES) != manifest.curves:
        raise BackupDamaged(f"{CURVES} is missing or damaged")
    if store and manifest.blobs_here:
        for line in manifest.blobs:
            await _put_blob(store, LocalBlobs(target / BLOBS).path(line.sha256), line)
    return manifest


async def _put_blob(store: LocalBlobs, source: Path, line: BlobLine) -> None:
    """A copy, never a link: what is restored does not share its bytes with the backup."""
    try:
        digest = await store.put(source)
    except FileNotFoundError as error:
        raise BackupDamaged(f"blob {line.sha256} is missing") from error
    if digest != line.sha256:
        raise BackupDamaged(f"blob {line.sha256} is damaged")


def _wrong_blobs(target: Path, manifest: Manifest) -> list[str]:
    copies, wrong = LocalBlobs(target / BLOBS), []
    for line in manifest.blobs:
        path = copies.path(line.sha256)
        if not path.is_file():
            wrong.append(f"blob {line.sha256} is missing")
        elif measured(path) != (line.sha256, line.size):
            wrong.append(f"blob {line.sha256} is damaged")
    return wrong
