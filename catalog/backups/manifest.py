"""What a backup is: the names of its files, its manifest, and what both sides ask of it."""

from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path

import msgspec

from catalog.archive import Archive
from catalog.settings import Settings
from contracts.errors import LoratoryError, NotFound, SetupError
from contracts.ids import Digest, is_digest
from contracts.wire.blob_bytes import measured, sync_file, sync_folder
from contracts.wire.blobs import LocalBlobs, blobs_at

FORMAT = 1
"""What this version reads and writes."""
MANIFEST = "manifest.json"
ARCHIVE = "archive.db"
KEYS = "keys.db"
BLOBS = "blobs"
CURVES = "curves.ndjson"
"""Loss curves in blocks, one a line: they are no facts, so the archive has none."""
UNFINISHED = "unfinished"
"""A file that stands in a new folder until its first manifest does."""


class BlobLine(msgspec.Struct, frozen=True):
    """A blob: its sha256, which is its name, and its bytes."""

    sha256: Digest
    size: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """`manifest.json`. `chain` is the archive's hash at `sequence`; `keys` and `blobs_here`: are they in the folder?

    `curves` is the sha256 of the file of loss curves.
    """

    format: int = FORMAT
    created: datetime
    log_id: str
    sequence: int
    chain: str
    curves: str = ""
    keys: bool
    blobs_here: bool
    blobs: tuple[BlobLine, ...] = ()


class BackupDamaged(LoratoryError):
    """The backup is not what its manifest says."""

    code = "backup-damaged"


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


def strike_out(target: Path, blobs: Collection[Digest]) -> None:
    """These were erased, here too: the manifest does not ask for them any more. A backup half made has none yet."""
    if not (target / MANIFEST).exists():
        return
    manifest = read_manifest(target)
    lines = tuple(line for line in manifest.blobs if line.sha256 not in blobs)
    if lines != manifest.blobs:
        write_manifest(target, msgspec.structs.replace(manifest, blobs=lines))


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


def store_of(settings: Settings, *, needed: bool) -> LocalBlobs | None:
    store = blobs_at(settings.blobs)
    if isinstance(store, LocalBlobs):
        return store
    if needed:
        raise SetupError(
            "the blobs lie in an object store, which has backups of its own; leave them out with --without-blobs"
        )
    return None


def held(store: LocalBlobs) -> Iterator[tuple[Digest, int]]:
    """Digest and bytes of each blob in a folder, in order."""
    for path in sorted(store.root.glob("??/??/*")):
        if is_digest(path.name) and path.is_file():
            yield Digest(path.name), path.stat().st_size


def listed(store: LocalBlobs) -> tuple[BlobLine, ...]:
    return tuple(BlobLine(*line) for line in held(store))


def digest_of(file: Path) -> str:
    return measured(file)[0] if file.is_file() else ""
