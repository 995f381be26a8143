"""Brings back the keys and blobs that a workshop lacks, from a backup; the archive must be complete.

Keys: those of today's file and of the backup, minus everything that the log or one of the two says was erased.
Blobs: what is missing, or has other bytes than its digest says. What was erased is never brought back.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from catalog import views
from catalog.archive.archive import Archive, open_archive
from catalog.backups.extraction import restore_blobs
from catalog.backups.manifest import BLOBS
from catalog.database import SUFFIXES, Connection, remove_database
from catalog.entries import last_sequence, lineage
from catalog.image_sets import SetReader
from catalog.key_file import KeyFileState, KeysDamaged, build_key_file, has_foreign_wal, key_file_state, read_content
from catalog.keys import KEYS
from catalog.projection import catch_up
from catalog.settings import Settings
from catalog.store import Store
from catalog.views import erasures, images, live_blobs
from contracts.errors import SetupError
from contracts.ids import Digest, ImageId
from contracts.sealed import NAME, NotOpened, open_sealed
from contracts.wire.blobs.store import Blobs, LocalBlobs, blobs_at
from contracts.wire.system.files import move_into_place
from contracts.wording import count

OnProgress = Callable[[str], None]
PAGE = 1000


def set_aside_foreign_wal(file: Path, *, at: datetime, report: OnProgress) -> None:
    """Move the WAL of another key file away, before anything opens the file with it."""
    if not has_foreign_wal(file):
        return
    wal, kept = file.with_name(f"{file.name}-wal"), file.with_name(f"foreign-{at:%Y%m%dT%H%M%SZ}-{file.name}-wal")
    file.with_name(f"{file.name}-shm").unlink(missing_ok=True)
    wal.replace(kept)
    report(f"the WAL beside {file} was that of another key file; it is kept as {kept}")


@dataclass(frozen=True)
class Erased:
    """What was erased according to the log: images, with names of refused files, and blobs that nothing else uses."""

    images: frozenset[ImageId]
    blobs: frozenset[Digest]


@dataclass(frozen=True)
class KeyCopies:
    """Today's key file, which may be lost, and `others`; `lineage`: the ids of the log that they must belong to."""

    today: Path
    others: tuple[Path, ...]
    lineage: frozenset[str]

    def state(self) -> KeyFileState:
        return key_file_state(self.today, self.lineage)

    def sources(self) -> list[Path]:
        """The files from which keys can be taken. SetupError: one of the others is of another workshop."""
        found = [self.today] if self.state() in {"intact", "damaged"} else []
        for other in self.others:
            state = key_file_state(other, self.lineage)
            if state == "foreign":
                raise SetupError(f"{other} is that of another workshop")
            if state in {"intact", "damaged"}:
                found.append(other)
        return found


async def mend(
    settings: Settings, *, at: datetime, report: OnProgress, backup: Path | None = None, keys: Path | None = None
) -> None:
    """Restore keys and blobs from a backup, and keys from one more file. The archive must be complete.

    KeysDamaged: the key file is lost, and there is no other copy of it. SetupError: a copy is of another workshop.
    BackupDamaged: some blobs are damaged in the backup as well.
    """
    others = [file for file in (keys, backup / KEYS if backup else None) if file and file.is_file()]
    async with open_archive(settings.catalog) as archive, open_read_model(settings, archive, backup) as store:
        copies = KeyCopies(settings.catalog / KEYS, tuple(others), await archive.read(lineage))
        erased, needed = await store.read(read_erased), await store.read(images.sealed_names)
        is_new = await archive.read(last_sequence) <= 1
    await asyncio.to_thread(mend_keys, copies, needed, erased.images, at=at, report=report, is_new=is_new)
    if backup is not None:
        await restore_blobs(settings, backup, erased.blobs, report)


@asynccontextmanager
async def open_read_model(settings: Settings, archive: Archive, backup: Path | None = None) -> AsyncIterator[Store]:
    """The read model with all that was archived, read from the blobs and those of a backup.

    Where a set of images is in none of them it is empty here, and the catalog builds the rows again when it starts.
    """
    file = settings.catalog / "read.db"
    sources: list[Blobs] = [blobs_at(settings.blobs), *([LocalBlobs(backup / BLOBS)] if backup else [])]
    sets = SetReader(archive, sources, may_lack=True)
    store = Store(file, await archive.belongs_to(), views)
    try:
        await catch_up(store, archive, sets.read)
        yield store
    finally:
        await store.close()
        if sets.missing:
            remove_database(file)


def mend_keys(  # noqa: PLR0913 - the copies, what the log says of them, and the options
    copies: KeyCopies,
    needed: Mapping[ImageId, bytes],
    erased: Collection[ImageId],
    *,
    at: datetime,
    report: OnProgress,
    is_new: bool = False,
) -> None:
    """Make one key file of all copies. `needed`: the images that have a key, with their sealed names.

    KeysDamaged: there is no copy. A log that `is_new` may have no key file yet.
    """
    state, sources, before = copies.state(), copies.sources(), read_content(copies.today)
    if state == "intact" and not copies.others:
        return
    if not sources:
        if is_new and state == "missing":
            return
        raise KeysDamaged(f"{copies.today} is lost, and there is no copy of it", where="all keys")
    replace_key_file(copies, sources, needed, erased, at=at, report=report)
    after = read_content(copies.today)
    if restored := len((after.images - before.images) & needed.keys()):
        report(f"restored the keys of {count(restored, 'image')}")
    if missing := len(needed.keys() - after.images - after.erased):
        report(f"the keys of {count(missing, 'image')} are in no copy: their names and captions cannot be read")


def replace_key_file(  # noqa: PLR0913 - as above
    copies: KeyCopies,
    sources: Sequence[Path],
    needed: Mapping[ImageId, bytes],
    erased: Collection[ImageId],
    *,
    at: datetime,
    report: OnProgress,
) -> None:
    """Replace today's file with one made of `sources`; one that is damaged or foreign is kept under another name."""

    def accepts(image: ImageId, key: bytes) -> bool:
        return image not in needed or _opens(key, needed[image])

    state, file = copies.state(), copies.today
    draft = file.with_name(f".{file.name}.draft")
    build_key_file(draft, sources, erased=erased, known_ids=copies.lineage, accepts=accepts)
    if state in {"damaged", "unreadable", "foreign"}:
        _set_aside(file, "foreign" if state == "foreign" else "damaged", at, report)
    for suffix in SUFFIXES[1:]:  # a WAL of the replaced file must not be applied to this one
        file.with_name(file.name + suffix).unlink(missing_ok=True)
    move_into_place(draft, file)
    if state != "intact":
        report(f"the key file was {'lost' if state == 'missing' else state}; it was made again from all copies")


def read_erased(connection: Connection) -> Erased:
    """Everything that was erased according to the log."""
    erased_images: set[ImageId] = set()
    digests: set[Digest] = set()
    position = (0, "")
    while rows := erasures.page(connection, position, PAGE):
        erased_images |= {row.image_id for row in rows}
        digests |= {digest for row in rows for digest in row.digests}
        position = (rows[-1].sequence, rows[-1].image_id)
    return Erased(frozenset(erased_images), frozenset(digests - live_blobs.in_use(connection, digests)))


def _opens(key: bytes, sealed_name: bytes) -> bool:
    """Whether this is the key of the image with this sealed name."""
    try:
        open_sealed(key, sealed_name, NAME)
    except (NotOpened, ValueError):  # another key, or bytes that are not a key
        return False
    return True


def _set_aside(file: Path, why: str, at: datetime, report: OnProgress) -> None:
    kept = f"{why}-{at:%Y%m%dT%H%M%SZ}-{file.name}"
    for suffix in SUFFIXES:
        if (part := file.with_name(file.name + suffix)).exists():
            part.replace(file.with_name(kept + suffix))
    report(f"the {why} key file is kept as {file.with_name(kept)}")
