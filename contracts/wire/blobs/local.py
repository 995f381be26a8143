"""Blobs as files in a folder, safe against a power cut and against several writers."""

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import BinaryIO

from contracts.ids import Digest, is_digest
from contracts.thread_cancellation import ThreadCancellation
from contracts.wire.blobs import io
from contracts.wire.system.files import draft_in, remove_abandoned_drafts, rename_into_place, sync_file, sync_folder
from contracts.wire.system.threads import run_cancellable


class LocalBlobs:
    """`<root>/aa/bb/<sha256>`. File work runs in threads. Several processes may share a root."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self._durable: set[Path] = set()  # folders whose directory entries are known to be on disk

    async def put(self, content: bytes | Path) -> Digest:
        (digest,) = await run_cancellable(partial(self._put_all, [content]))
        return digest

    async def put_all(self, contents: Sequence[bytes | Path], cancellation: ThreadCancellation) -> list[Digest]:
        return await asyncio.to_thread(self._put_all, contents, cancellation)

    async def get(self, digest: Digest, limit: int = io.MAX_BYTES_IN_MEMORY) -> bytes:
        return await asyncio.to_thread(self._get, digest, limit)

    async def fetch(self, digest: Digest, to: Path) -> None:
        await run_cancellable(partial(self._fetch, digest, to))

    async def stream(self, digest: Digest, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes, None]:
        with self._open(digest) as source:  # not in a thread: one that is cancelled would leave it open
            source.seek(start)
            left = (os.fstat(source.fileno()).st_size if end is None else end) - start
            while left > 0 and (piece := await asyncio.to_thread(source.read, min(io.CHUNK_BYTES, left))):
                yield piece
                left -= len(piece)

    def path(self, digest: Digest) -> Path:
        return self.root / io.blob_key(digest)

    async def size(self, digest: Digest) -> int:
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError as error:
            raise io.not_found(digest) from error

    async def exists(self, digest: Digest) -> bool:
        return self.path(digest).is_file()

    async def listing(self, prefix: str = "") -> AsyncIterator[Sequence[io.StoredBlob]]:
        folders = [prefix[:2]] if prefix else await asyncio.to_thread(_subfolders, self.root)
        for folder in folders:
            yield await asyncio.to_thread(_list_blobs, self.root / folder, prefix[2:])

    async def set_aside(self, digest: Digest) -> None:
        await asyncio.to_thread(self._set_aside, digest)

    async def delete(self, digests: Collection[Digest]) -> None:
        await asyncio.to_thread(self._delete, digests)

    async def remove_abandoned_drafts(self) -> int:
        return await asyncio.to_thread(remove_abandoned_drafts, self.root / "tmp")

    def _put_all(self, contents: Sequence[bytes | Path], cancellation: ThreadCancellation) -> list[Digest]:
        with ExitStack() as drafts:
            written = [self._write_draft(content, drafts, cancellation) for content in contents]
            cancellation.commit()
            for digest, draft in written:
                if draft is not None:
                    rename_into_place(draft, self.path(digest))
                self._sync_parents(self.path(digest).parent)
        return [digest for digest, _ in written]

    def _write_draft(
        self, content: bytes | Path, drafts: ExitStack, cancellation: ThreadCancellation
    ) -> tuple[Digest, Path | None]:
        """The digest, and the bytes in a file that has no name yet; None if they are stored already."""
        digest, size = io.hash_chunks(cancellation.checked(io.read_chunks(content)))
        if self._renew(digest, size):
            return digest, None
        draft = drafts.enter_context(draft_in(self.root / "tmp"))
        with draft.open("wb") as out:
            digest, _ = io.write_hashed(out, cancellation.checked(io.read_chunks(content)))
        sync_file(draft)
        self.path(digest).parent.mkdir(parents=True, exist_ok=True)
        return digest, draft

    def _renew(self, digest: Digest, size: int) -> bool:
        """Touches an existing blob and returns true. A file of another size is damaged and will be replaced."""
        target = self.path(digest)
        try:
            os.utime(target)
            is_whole = target.stat().st_size == size
        except FileNotFoundError:
            return False
        sync_folder(target.parent)  # another writer may have renamed it without having synced the folder yet
        return is_whole

    def _sync_parents(self, folder: Path) -> None:
        """Once per process: whether they existed before it is unknown."""
        for created in (folder, folder.parent, self.root):
            if created not in self._durable:
                sync_folder(created.parent)
                self._durable.add(created)

    def _open(self, digest: Digest) -> BinaryIO:
        try:
            return self.path(digest).open("rb")
        except FileNotFoundError as error:
            raise io.not_found(digest) from error

    def _get(self, digest: Digest, limit: int) -> bytes:
        with self._open(digest) as source:
            size = os.fstat(source.fileno()).st_size
            io.check_size(digest, size, limit)
            content = source.read(size)
        return io.verify_content(digest, content)

    def _fetch(self, digest: Digest, to: Path, cancellation: ThreadCancellation) -> None:
        with self._open(digest) as source, draft_in(to.parent) as draft:
            with draft.open("wb") as out:
                chunks = iter(lambda: source.read(io.CHUNK_BYTES), b"")
                found, size = io.write_hashed(out, cancellation.checked(chunks))
            io.check_digest(digest, found, size)
            sync_file(draft)
            cancellation.commit()
            rename_into_place(draft, to)

    def _delete(self, digests: Collection[Digest]) -> None:
        # Folders are not synced: that takes 10 ms per blob, and a purge after the next start repeats lost deletions.
        drafts = list((self.root / "tmp").glob("*.draft"))
        for path in [path for digest in digests if (path := self.path(digest)).is_file()]:
            # Drafts first: which blob they belong to can only be determined while that blob exists.
            for draft in drafts:
                if io.starts_with(path, draft):
                    draft.unlink(missing_ok=True)
            path.unlink(missing_ok=True)
        for digest in digests:
            (self.root / io.damaged_key(digest)).unlink(missing_ok=True)

    def _set_aside(self, digest: Digest) -> None:
        target = self.root / io.damaged_key(digest)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            self.path(digest).replace(target)
        except FileNotFoundError:
            return
        sync_folder(target.parent)


def _subfolders(folder: Path) -> list[str]:
    """The names of two characters in a folder: the first or second part of a blob's path."""
    try:
        with os.scandir(folder) as found:
            return [entry.name for entry in found if len(entry.name) == 2]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _list_blobs(folder: Path, subfolder: str) -> list[io.StoredBlob]:
    """The blobs below `<root>/aa`, or only those in one of its folders. Plain strings: there may be 65,536 folders."""
    names = [subfolder] if subfolder else _subfolders(folder)
    found: list[io.StoredBlob] = []
    for name in names:
        found += _list_folder(f"{folder}{os.sep}{name}", prefix=folder.name + name)
    return found


def _list_folder(folder: str, *, prefix: str) -> list[io.StoredBlob]:
    try:
        with os.scandir(folder) as found:
            return [
                io.StoredBlob(Digest(entry.name), size)
                for entry in found
                if entry.name.startswith(prefix) and is_digest(entry.name) and (size := _size_of(entry)) is not None
            ]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _size_of(entry: os.DirEntry[str]) -> int | None:
    """In bytes; none if it is no file, or was deleted since the folder was read."""
    try:
        return entry.stat().st_size if entry.is_file() else None
    except FileNotFoundError:
        return None
