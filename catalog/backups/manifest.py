"""The files of a backup and its manifest, with helpers for creation and extraction."""

from collections.abc import Collection, Iterator
from datetime import datetime
from pathlib import Path

import msgspec

from catalog.settings import Settings
from contracts.errors import LoratoryError, NotFound, SetupError
from contracts.ids import Digest, is_digest
from contracts.losses import LossReport
from contracts.wire.blobs.io import hash_content
from contracts.wire.blobs.store import LocalBlobs, blobs_at
from contracts.wire.system.files import sync_folder, write_atomically

FORMAT = 4
"""Format of a backup, frozen as that of the data folder is (`contracts.wire.log.migration.FORMAT`)."""
MANIFEST = "manifest.json"
BLOBS = "blobs"
CURVES = "curves.ndjson"
"""Loss curves as JSON lines, one block per line: they are telemetry, not events, so the archive lacks them."""
UNFINISHED = "unfinished"
"""Marker file in a new backup folder until its first manifest is written."""


class BlobEntry(msgspec.Struct, frozen=True):
    """A blob: its sha256, which is also its file name, and its size in bytes."""

    sha256: Digest
    size: int


class BackupManifest(msgspec.Struct, frozen=True, kw_only=True):
    """`manifest.json`. `chain` is the archive's chain hash at `sequence`, `curves` the sha256 of the loss curve file.

    `keys` and `blobs_here` say whether keys and blobs are in the folder; `blobs` lists all blobs either way. `losses`:
    what was missing when it was created; `erased`: blobs that were deleted from it since, because they were erased.
    """

    format: int = FORMAT
    created: datetime
    log_id: str
    sequence: int
    chain: str
    curves: str = ""
    keys: bool
    blobs_here: bool
    blobs: tuple[BlobEntry, ...] = ()
    losses: LossReport = LossReport()
    erased: tuple[Digest, ...] = ()


class BackupDamaged(LoratoryError):
    """The backup differs from its manifest, or lacks what its archive names."""

    code = "backup-damaged"


def read_manifest(target: Path) -> BackupManifest:
    """NotFound: there is none. BackupDamaged: it cannot be read. SetupError: it has another format."""
    try:
        manifest = msgspec.json.decode((target / MANIFEST).read_bytes(), type=BackupManifest)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound(f"there is no backup in {target}") from error
    except msgspec.DecodeError as error:
        raise BackupDamaged(f"the manifest of {target} cannot be read: {error}") from error
    if manifest.format != FORMAT:
        raise SetupError(f"the backup has format {manifest.format}, but this Loratory reads format {FORMAT} only")
    return manifest


def write_manifest(target: Path, manifest: BackupManifest) -> None:
    write_atomically(target / MANIFEST, msgspec.json.format(msgspec.json.encode(manifest), indent=1))
    (target / UNFINISHED).unlink(missing_ok=True)
    sync_folder(target)


def remove_from_manifest(target: Path, blobs: Collection[Digest]) -> None:
    """Remove erased blobs from the backup's manifest, if it has one; an unfinished backup has none yet."""
    if not (target / MANIFEST).exists():
        return
    manifest = read_manifest(target)
    kept = tuple(entry for entry in manifest.blobs if entry.sha256 not in blobs)
    erased = tuple(sorted({*manifest.erased, *blobs}))
    if (kept, erased) != (manifest.blobs, manifest.erased):
        write_manifest(target, msgspec.structs.replace(manifest, blobs=kept, erased=erased))


def local_blob_store(settings: Settings, *, needed: bool) -> LocalBlobs | None:
    """The catalog's local blob store; for a remote one None, or SetupError if it is `needed`."""
    store = blobs_at(settings.blobs)
    if isinstance(store, LocalBlobs):
        return store
    if needed:
        raise SetupError(
            "the blobs are in an object store, which has its own backups; leave them out with --without-blobs"
        )
    return None


def stored_blobs(store: LocalBlobs) -> Iterator[tuple[Digest, int]]:
    """Digest and size in bytes of each blob in a folder, in order of digest."""
    for path in sorted(store.root.glob("??/??/*")):
        if is_digest(path.name) and path.is_file():
            yield Digest(path.name), path.stat().st_size


def file_digest(file: Path) -> str:
    """sha256 of a file; empty if it does not exist."""
    return hash_content(file)[0] if file.is_file() else ""
