"""Blobs as objects in an object store such as S3, through obstore."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import obstore
from obstore.exceptions import BaseError, NotFoundError

from contracts.errors import NotFound, Unavailable
from contracts.ids import Digest, is_digest
from contracts.thread_cancellation import ThreadCancellation
from contracts.wire.blobs import io
from contracts.wire.system.files import draft_in, rename_into_place, sync_file
from contracts.wire.system.threads import run_cancellable

LISTED_AT_ONCE = 1_000
"""Objects of one part of a listing, which is what object stores return per request."""


class RemoteBlobs:
    """The same keys in an object store, which writes objects atomically. Unavailable when it does not answer."""

    def __init__(self, store: Any) -> None:
        """`store`: one of `obstore.store`, such as `from_url("s3://bucket/prefix")`."""
        self._store = store

    async def put_all(self, contents: Sequence[bytes | Path], cancellation: ThreadCancellation) -> list[Digest]:
        digests = [await self.put(content) for content in contents]
        cancellation.commit()
        return digests

    async def put(self, content: bytes | Path) -> Digest:
        digest, size = await run_cancellable(partial(_hash, content))
        # Written again even if it exists: object stores have no touch, and this renews its time.
        with _translate_errors(digest):
            await obstore.put_async(self._store, io.blob_key(digest), content)
        if await self.size(digest) != size:
            raise io.Damaged(f"blob {digest} was stored with another size than {size} bytes")
        return digest

    async def get(self, digest: Digest, limit: int = io.MAX_BYTES_IN_MEMORY) -> bytes:
        with _translate_errors(digest):
            found = await obstore.get_async(self._store, io.blob_key(digest))
            io.check_size(digest, found.meta["size"], limit)
            content = bytes(await found.bytes_async())
        return await asyncio.to_thread(io.verify_content, digest, content)

    async def fetch(self, digest: Digest, to: Path) -> None:
        with draft_in(to.parent) as draft:
            hashed, size = hashlib.sha256(), 0
            with draft.open("wb") as out:
                async for piece in self.stream(digest):
                    await asyncio.to_thread(io.write_chunk, out, hashed, piece)
                    size += len(piece)
            io.check_digest(digest, hashed.hexdigest(), size)
            await run_cancellable(partial(_rename_unless_cancelled, draft, to))

    async def stream(self, digest: Digest, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes, None]:
        whole = await self.size(digest)
        end = whole if end is None else min(end, whole)
        if start >= end:  # object stores reject an empty range
            return
        with _translate_errors(digest):
            found = await obstore.get_async(self._store, io.blob_key(digest), options={"range": (start, end)})
            async for piece in found.stream(min_chunk_size=io.CHUNK_BYTES):
                yield bytes(piece)

    def path(self, digest: Digest) -> None:
        io.blob_key(digest)

    async def size(self, digest: Digest) -> int:
        with _translate_errors(digest):
            return int((await obstore.head_async(self._store, io.blob_key(digest)))["size"])

    async def exists(self, digest: Digest) -> bool:
        try:
            await self.size(digest)
        except NotFound:
            return False
        return True

    async def remove_abandoned_drafts(self) -> int:
        return 0  # the store writes objects whole

    async def listing(self, prefix: str = "") -> AsyncIterator[Sequence[io.StoredBlob]]:
        folder = "/".join(part for part in (prefix[:2], prefix[2:]) if part)
        with _translate_errors(prefix):
            async for objects in obstore.list(self._store, folder or None, chunk_size=LISTED_AT_ONCE):
                yield [blob for found in objects if (blob := _stored_blob(found["path"], found["size"])) is not None]

    async def set_aside(self, digest: Digest) -> None:
        try:
            with _translate_errors(digest):
                await obstore.rename_async(self._store, io.blob_key(digest), io.damaged_key(digest))
        except NotFound:
            return

    async def delete(self, digests: Collection[Digest]) -> None:
        # One at a time: stores differ in whether a missing object fails a bulk request.
        for key in [key for digest in digests for key in (io.blob_key(digest), io.damaged_key(digest))]:
            with suppress(NotFound), _translate_errors(key):
                await obstore.delete_async(self._store, key)


def _stored_blob(key: str, size: int) -> io.StoredBlob | None:
    """None: it is another object."""
    digest = key.rpartition("/")[2]
    return io.StoredBlob(Digest(digest), size) if is_digest(digest) and key == io.blob_key(digest) else None


def _hash(content: bytes | Path, cancellation: ThreadCancellation) -> tuple[Digest, int]:
    return io.hash_chunks(cancellation.checked(io.read_chunks(content)))


def _rename_unless_cancelled(draft: Path, to: Path, cancellation: ThreadCancellation) -> None:
    sync_file(draft)
    cancellation.commit()
    rename_into_place(draft, to)


@contextmanager
def _translate_errors(digest: str) -> Iterator[None]:
    """Translates errors of the store into ours."""
    try:
        yield
    except (FileNotFoundError, NotFoundError) as error:
        raise io.not_found(digest) from error
    except BaseError as error:
        raise Unavailable(f"the blob store does not answer: {error}") from error
