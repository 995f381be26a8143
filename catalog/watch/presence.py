"""Compares the blobs and keys that must be there with those that are: presence, and sizes where they are known."""

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from catalog.archive.rows import ARCHIVE
from catalog.database import Connection, DatabaseError, open_reader
from catalog.domain.live_blobs import BlobReference, LiveBlobs
from catalog.entries import commits_at, last_sequence
from catalog.keys import images_in
from catalog.store import Store
from catalog.views import live_blobs
from catalog.watch.losses import Losses, by_digest
from contracts.errors import LogDamaged, NotFound, SetupError
from contracts.ids import Digest, ImageId, is_digest
from contracts.wire.blobs.io import hash_content
from contracts.wire.blobs.store import Blobs

Sizes = Mapping[bytes, int]
"""Sizes of stored blobs in bytes, by digest (32 bytes)."""
RANGE_BYTES = 1 << 20
"""Bytes of a blob that are requested at a time where reading is slowed down."""
FOLDED_AT_ONCE = 2_000
"""Commits of an archive that are folded at a time."""


@dataclass(frozen=True)
class Scan:
    """References compared with a list of stored blobs: how many there are, and which blobs are missing or resized."""

    count: int
    missing: list[BlobReference]
    resized: list[BlobReference]


def scan(references: Iterable[BlobReference], sizes: Sizes) -> Scan:
    """Pure. What is no digest names a blob that cannot be stored: a worker may say anything of its own work."""
    count, missing, resized = 0, [], []
    for reference in references:
        count += 1
        size = sizes.get(bytes.fromhex(reference.digest)) if is_digest(reference.digest) else None
        if size is None:
            missing.append(reference)
        elif reference.size not in {None, size}:
            resized.append(reference)
    return Scan(count, missing, resized)


class Expected(Protocol):
    """What must be there, from rows of the read model or from an archive."""

    async def scan(self, sizes: Sizes) -> Scan: ...

    async def keys(self) -> set[ImageId]: ...


@dataclass(frozen=True)
class ReadModelExpected:
    """By the read model of a running catalog."""

    store: Store

    async def scan(self, sizes: Sizes) -> Scan:
        return await self.store.read(lambda connection: scan(live_blobs.references(connection), sizes))

    async def keys(self) -> set[ImageId]:
        return await self.store.read(live_blobs.key_images)


@dataclass(frozen=True)
class ArchiveExpected:
    """By an archive alone, whether a catalog runs or not."""

    live: LiveBlobs

    async def scan(self, sizes: Sizes) -> Scan:
        return await asyncio.to_thread(scan, self.live.references(), sizes)

    async def keys(self) -> set[ImageId]:
        return self.live.keys()


def expected_by(folder: Path) -> ArchiveExpected:
    """By the archive in a folder, which is only read. LogDamaged: it is not an intact database."""
    try:
        with closing(open_reader(folder / ARCHIVE)) as archive:
            return ArchiveExpected(_fold(archive))
    except (DatabaseError, SetupError) as error:
        raise LogDamaged(f"the archive's file is damaged: {error}; `loratory restore` rebuilds it") from error


def _fold(archive: Connection) -> LiveBlobs:
    live, end = LiveBlobs(), last_sequence(archive)
    for start in range(1, end + 1, FOLDED_AT_ONCE):
        live.apply(commits_at(archive, range(start, min(start + FOLDED_AT_ONCE, end + 1))))
    return live


async def find_losses(  # noqa: PLR0913 - what is compared, and how
    expected: Expected, blobs: Blobs, keys: Path, *, at: datetime, known: Losses | None = None, share: float = 1.0
) -> Losses:
    """What is missing of what is expected. OSError, Unavailable: the blobs cannot be listed.

    `share`: of the time, that listing the blobs takes; the rest of it is left to others.

    `known`: what was missing before. Anything else must be missing from two lists in a row: a blob that was stored, or
    an image erased, while the first was made is no loss. Of blobs with another size than expected the bytes decide.
    """
    found = await expected.scan(await list_sizes(blobs, share))
    missing = found.missing
    if any(known is None or reference.digest not in known.lost_blobs for reference in missing):
        again = set((await expected.scan(await list_sizes(blobs, share))).missing)
        missing = [reference for reference in missing if reference in again]
    damaged = [reference for reference in found.resized if not await is_intact(blobs, reference.digest)]
    expected_keys = await expected.keys()
    return Losses(
        checked_at=at,
        blobs=found.count,
        keys=len(expected_keys),
        lost_blobs=by_digest([*missing, *damaged]),
        lost_keys=frozenset(expected_keys - await asyncio.to_thread(images_in, keys)),
        damaged=frozenset(reference.digest for reference in damaged),
    )


async def list_sizes(blobs: Blobs, share: float = 1.0) -> Sizes:
    """About 200 bytes of memory for each stored blob. Pauses after each part unless `share` is 1."""
    sizes: dict[bytes, int] = {}
    started = time.monotonic()
    async for part in blobs.listing():
        sizes.update((bytes.fromhex(digest), size) for digest, size in part)
        await asyncio.sleep((time.monotonic() - started) * (1 / share - 1))
        started = time.monotonic()
    return sizes


async def is_intact(blobs: Blobs, digest: Digest, pace: Callable[[int], Awaitable[object]] | None = None) -> bool:
    """Whether the stored bytes have this digest; false if they are missing. `pace` is awaited after each range."""
    path = blobs.path(digest)
    try:
        if path is not None and pace is None:
            return (await asyncio.to_thread(hash_content, path))[0] == digest
        hashed, size = hashlib.sha256(), await blobs.size(digest)
        step = RANGE_BYTES if pace else max(size, 1)
        for start in range(0, size, step):
            end = min(start + step, size)
            async for chunk in blobs.stream(digest, start, end):
                await asyncio.to_thread(hashed.update, chunk)
            if pace is not None:
                await pace(end - start)
    except (NotFound, FileNotFoundError):
        return False
    return hashed.hexdigest() == digest
