"""Backups: a folder with archive, keys and blobs of one moment, and a manifest that says what must be there.

The archive holds every commit verbatim, so it is the log's backup too. A folder that holds a backup of the same log is
brought up to date; what it held before stays in it.
"""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path

import msgspec

from catalog.archive import Archive
from catalog.database import copy, remove
from catalog.keys import Keys
from catalog.settings import Settings
from contracts.errors import LogDamaged, LoratoryError, NotFound, SetupError
from contracts.ids import Digest, is_digest
from contracts.wire.blob_bytes import CHUNK, measured, sync_file, sync_folder
from contracts.wire.blobs import LocalBlobs, blobs_at

FORMAT = 1
"""What this version reads and writes."""
MANIFEST = "manifest.json"
ARCHIVE = "archive.db"
KEYS = "keys.db"
BLOBS = "blobs"
UNFINISHED = "unfinished"
"""A file that stands in a new folder until its first manifest does."""
MOST_NAMED = 20
"""So many troubles are named one by one."""


class BlobLine(msgspec.Struct, frozen=True):
    """A blob: its sha256, which is its name, and its bytes."""

    sha256: Digest
    size: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """`manifest.json`. `chain` is the archive's hash at `sequence`; `keys` and `blobs_here`: are they in the folder?"""

    format: int = FORMAT
    created: datetime
    log_id: str
    sequence: int
    chain: str
    keys: bool
    blobs_here: bool
    blobs: tuple[BlobLine, ...] = ()


class BackupDamaged(LoratoryError):
    """The backup is not what its manifest says."""

    code = "backup-damaged"


async def create(
    settings: Settings, target: Path, *, clock: Callable[[], datetime], keys: bool = True, blobs: bool = True
) -> Manifest:
    """Make it, or bring it up to date, while the catalog runs or not.

    It is registered before anything is copied and again afterwards, so that what is erased meanwhile is erased in it.
    It holds all that is archived now. SetupError for a folder with other things in it; LogDamaged where the archive, or
    the one of the backup, is not whole, or where the backup is of another log.
    """
    store = _store(settings, needed=blobs)
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
    lines = await asyncio.to_thread(_listed, store) if store else ()
    manifest = Manifest(
        created=clock(),
        log_id=log_id,
        sequence=tail.sequence,
        chain=tail.digest,
        keys=keys,
        blobs_here=blobs,
        blobs=lines,
    )
    await asyncio.to_thread(write_manifest, target, manifest)
    if keys or blobs:
        await _register(settings, target, clock())
    return manifest


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
    store = _store(settings, needed=manifest.blobs_here)
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
    if store and manifest.blobs_here:
        for line in manifest.blobs:
            await _put_blob(store, LocalBlobs(target / BLOBS).path(line.sha256), line)
    return manifest


def strike_out(target: Path, blobs: Collection[Digest]) -> None:
    """These were erased, here too: the manifest does not ask for them any more. A backup half made has none yet."""
    if not (target / MANIFEST).exists():
        return
    manifest = read_manifest(target)
    lines = tuple(line for line in manifest.blobs if line.sha256 not in blobs)
    if lines != manifest.blobs:
        write_manifest(target, msgspec.structs.replace(manifest, blobs=lines))


def read_manifest(target: Path) -> Manifest:
    """NotFound where there is none; SetupError for one that cannot be read, or of a newer version."""
    try:
        manifest = msgspec.json.decode((target / MANIFEST).read_bytes(), type=Manifest)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound(f"there is no backup in {target}") from error
    except msgspec.DecodeError as error:
        raise BackupDamaged(f"the manifest of {target} cannot be read: {error}") from error
    if manifest.format > FORMAT:
        raise SetupError(f"the backup has format {manifest.format}, this Loratory knows up to {FORMAT}")
    return manifest


def write_manifest(target: Path, manifest: Manifest) -> None:
    draft = target / f".{MANIFEST}.draft"
    with draft.open("wb") as out:
        out.write(msgspec.json.format(msgspec.json.encode(manifest), indent=1))
        sync_file(out)
    draft.replace(target / MANIFEST)
    (target / UNFINISHED).unlink(missing_ok=True)
    sync_folder(target)


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Archive]:
    """The archive in a folder. SetupError where there is none: a look must not make one."""
    if not (folder / ARCHIVE).is_file():
        raise SetupError(f"there is no archive in {folder}")
    archive = Archive(folder)
    try:
        yield archive
    finally:
        await archive.close()


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


def _store(settings: Settings, *, needed: bool) -> LocalBlobs | None:
    store = blobs_at(settings.blobs)
    if isinstance(store, LocalBlobs):
        return store
    if needed:
        raise SetupError(
            "the blobs lie in an object store, which has backups of its own; leave them out with --without-blobs"
        )
    return None


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


def _listed(store: LocalBlobs) -> tuple[BlobLine, ...]:
    return tuple(BlobLine(*line) for line in held(store))


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


def held(store: LocalBlobs) -> Iterator[tuple[Digest, int]]:
    """Digest and bytes of each blob in a folder, in order."""
    for path in sorted(store.root.glob("??/??/*")):
        if is_digest(path.name) and path.is_file():
            yield Digest(path.name), path.stat().st_size


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
