"""Blobs as files in a folder, safe against a power cut and against several writers."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Collection
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from contracts.ids import Digest
from contracts.wire.blob_bytes import (
    CHUNK,
    MOST_IN_MEMORY,
    begins,
    checked,
    draft_in,
    key_of,
    measured,
    missing,
    pieces,
    refuse_damaged,
    refuse_large,
    sync_file,
    sync_folder,
    written,
)

TEMP_AGE = 24 * 3600
"""Seconds after which an unfinished file cannot have a writer any more."""


class LocalBlobs:
    """`<root>/aa/bb/<sha256>`. File work runs in threads. Several processes may share a root."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self._durable: set[Path] = set()  # folders whose own names are known to be on disk

    async def put(self, content: bytes | Path) -> Digest:
        return await asyncio.to_thread(self._put, content)

    async def get(self, digest: Digest, limit: int = MOST_IN_MEMORY) -> bytes:
        return await asyncio.to_thread(self._get, digest, limit)

    async def fetch(self, digest: Digest, to: Path) -> None:
        await asyncio.to_thread(self._fetch, digest, to)

    async def stream(self, digest: Digest, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        with await asyncio.to_thread(self._open, digest) as source:
            source.seek(start)
            left = (os.fstat(source.fileno()).st_size if end is None else end) - start
            while left > 0 and (piece := await asyncio.to_thread(source.read, min(CHUNK, left))):
                yield piece
                left -= len(piece)

    def path(self, digest: Digest) -> Path:
        return self.root / key_of(digest)

    async def size(self, digest: Digest) -> int:
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError as error:
            raise missing(digest) from error

    async def exists(self, digest: Digest) -> bool:
        return self.path(digest).is_file()

    async def delete(self, digests: Collection[Digest]) -> None:
        await asyncio.to_thread(self._delete, digests)

    async def tidy(self) -> int:
        """Removes unfinished files a killed writer left more than a day ago; how many."""
        return await asyncio.to_thread(self._tidy)

    def _put(self, content: bytes | Path) -> Digest:
        digest, size = measured(content)
        if not self._renewed(digest, size):
            with draft_in(self.root / "tmp") as draft:
                with draft.open("wb") as out:
                    digest, _ = written(out, pieces(content))
                    sync_file(out)
                target = self.path(digest)
                target.parent.mkdir(parents=True, exist_ok=True)
                draft.replace(target)
        # Also when it was there already: another writer may have renamed it and not come to this line yet.
        self._sync_folders(self.path(digest).parent)
        return digest

    def _renewed(self, digest: Digest, size: int) -> bool:
        """Is it there in full? Then its time is now. A file of another size is damaged, and will be replaced."""
        target = self.path(digest)
        try:
            os.utime(target)
            return target.stat().st_size == size
        except FileNotFoundError:
            return False

    def _sync_folders(self, folder: Path) -> None:
        """The blob's name in its folder each time; the folders' own names once in a process."""
        sync_folder(folder)
        for made in (folder, folder.parent, self.root):
            if made not in self._durable:
                sync_folder(made.parent)
                self._durable.add(made)

    def _open(self, digest: Digest) -> BinaryIO:
        try:
            return self.path(digest).open("rb")
        except FileNotFoundError as error:
            raise missing(digest) from error

    def _get(self, digest: Digest, limit: int) -> bytes:
        with self._open(digest) as source:
            size = os.fstat(source.fileno()).st_size
            refuse_large(digest, size, limit)
            content = source.read(size)
        return checked(digest, content)

    def _fetch(self, digest: Digest, to: Path) -> None:
        with self._open(digest) as source, draft_in(to.parent) as draft:
            with draft.open("wb") as out:
                found, size = written(out, iter(lambda: source.read(CHUNK), b""))
                sync_file(out)
            refuse_damaged(digest, found, size)
            draft.replace(to)
        sync_folder(to.parent)

    def _delete(self, digests: Collection[Digest]) -> None:
        # Folders are not synced: that takes 10 ms a blob, and what a power cut brings back is swept at the next start.
        drafts = list((self.root / "tmp").glob("*.draft"))
        for path in [path for digest in digests if (path := self.path(digest)).is_file()]:
            # The drafts first: what they are the beginning of can only be told while the blob is there.
            for draft in drafts:
                if begins(path, draft):
                    draft.unlink(missing_ok=True)
            path.unlink(missing_ok=True)

    def _tidy(self) -> int:
        removed = 0
        for draft in (self.root / "tmp").glob("*.draft"):
            with suppress(FileNotFoundError):  # its writer has just finished
                if time.time() - draft.stat().st_mtime > TEMP_AGE:
                    draft.unlink()
                    removed += 1
        return removed
