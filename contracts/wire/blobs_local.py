"""Blobs as files in a folder, safe against a power cut and against several writers."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Collection
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from contracts.ids import Digest
from contracts.wire.blob_io import (
    CHUNK_BYTES,
    MAX_BYTES_IN_MEMORY,
    blob_key,
    check_digest,
    check_size,
    hash_content,
    not_found,
    read_chunks,
    starts_with,
    sync_file,
    sync_folder,
    temporary_file_in,
    verify_content,
    write_hashed,
)

TEMP_MAX_AGE_SECONDS = 24 * 3600
"""Age after which an unfinished file certainly has no writer any more."""


class LocalBlobs:
    """`<root>/aa/bb/<sha256>`. File work runs in threads. Several processes may share a root."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self._durable: set[Path] = set()  # folders whose directory entries are known to be on disk

    async def put(self, content: bytes | Path) -> Digest:
        return await asyncio.to_thread(self._put, content)

    async def get(self, digest: Digest, limit: int = MAX_BYTES_IN_MEMORY) -> bytes:
        return await asyncio.to_thread(self._get, digest, limit)

    async def fetch(self, digest: Digest, to: Path) -> None:
        await asyncio.to_thread(self._fetch, digest, to)

    async def stream(self, digest: Digest, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        with await asyncio.to_thread(self._open, digest) as source:
            source.seek(start)
            left = (os.fstat(source.fileno()).st_size if end is None else end) - start
            while left > 0 and (piece := await asyncio.to_thread(source.read, min(CHUNK_BYTES, left))):
                yield piece
                left -= len(piece)

    def path(self, digest: Digest) -> Path:
        return self.root / blob_key(digest)

    async def size(self, digest: Digest) -> int:
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError as error:
            raise not_found(digest) from error

    async def exists(self, digest: Digest) -> bool:
        return self.path(digest).is_file()

    async def delete(self, digests: Collection[Digest]) -> None:
        await asyncio.to_thread(self._delete, digests)

    async def remove_abandoned_drafts(self) -> int:
        """Removes unfinished files that killed writers left more than a day ago; returns their number."""
        return await asyncio.to_thread(self._remove_abandoned_drafts)

    def _put(self, content: bytes | Path) -> Digest:
        digest, size = hash_content(content)
        if not self._renew(digest, size):
            with temporary_file_in(self.root / "tmp") as draft:
                with draft.open("wb") as out:
                    digest, _ = write_hashed(out, read_chunks(content))
                    sync_file(out)
                target = self.path(digest)
                target.parent.mkdir(parents=True, exist_ok=True)
                draft.replace(target)
        # Also for an existing blob: another writer may have renamed it without having synced the folders yet.
        self._sync_folders(self.path(digest).parent)
        return digest

    def _renew(self, digest: Digest, size: int) -> bool:
        """Touches an existing blob and returns true. A file of another size is damaged and will be replaced."""
        target = self.path(digest)
        try:
            os.utime(target)
            return target.stat().st_size == size
        except FileNotFoundError:
            return False

    def _sync_folders(self, folder: Path) -> None:
        """Syncs the blob's folder each time, and the parent folders once per process."""
        sync_folder(folder)
        for created in (folder, folder.parent, self.root):
            if created not in self._durable:
                sync_folder(created.parent)
                self._durable.add(created)

    def _open(self, digest: Digest) -> BinaryIO:
        try:
            return self.path(digest).open("rb")
        except FileNotFoundError as error:
            raise not_found(digest) from error

    def _get(self, digest: Digest, limit: int) -> bytes:
        with self._open(digest) as source:
            size = os.fstat(source.fileno()).st_size
            check_size(digest, size, limit)
            content = source.read(size)
        return verify_content(digest, content)

    def _fetch(self, digest: Digest, to: Path) -> None:
        with self._open(digest) as source, temporary_file_in(to.parent) as draft:
            with draft.open("wb") as out:
                found, size = write_hashed(out, iter(lambda: source.read(CHUNK_BYTES), b""))
                sync_file(out)
            check_digest(digest, found, size)
            draft.replace(to)
        sync_folder(to.parent)

    def _delete(self, digests: Collection[Digest]) -> None:
        # Folders are not synced: that takes 10 ms per blob, and a purge after the next start repeats lost deletions.
        drafts = list((self.root / "tmp").glob("*.draft"))
        for path in [path for digest in digests if (path := self.path(digest)).is_file()]:
            # Drafts first: which blob they belong to can only be determined while that blob exists.
            for draft in drafts:
                if starts_with(path, draft):
                    draft.unlink(missing_ok=True)
            path.unlink(missing_ok=True)

    def _remove_abandoned_drafts(self) -> int:
        removed = 0
        for draft in (self.root / "tmp").glob("*.draft"):
            with suppress(FileNotFoundError):  # its writer has just renamed it
                if time.time() - draft.stat().st_mtime > TEMP_MAX_AGE_SECONDS:
                    draft.unlink()
                    removed += 1
        return removed
