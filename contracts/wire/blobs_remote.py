"""Blobs as objects in a store such as S3, through obstore."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import obstore
from obstore.exceptions import BaseError, NotFoundError

from contracts.errors import NotFound, Unavailable
from contracts.ids import Digest
from contracts.wire.blob_bytes import (
    CHUNK,
    MOST_IN_MEMORY,
    Damaged,
    add,
    checked,
    draft_in,
    key_of,
    measured,
    missing,
    refuse_damaged,
    refuse_large,
    sync_file,
    sync_folder,
)


class RemoteBlobs:
    """The same keys in an object store. Unavailable when it does not answer; it stores whole or not at all."""

    def __init__(self, store: Any) -> None:
        """`store`: one of `obstore.store`, such as `from_url("s3://bucket/prefix")`."""
        self._store = store

    async def put(self, content: bytes | Path) -> Digest:
        digest, size = await asyncio.to_thread(measured, content)
        # Written again even when it is there: stores have no touch, and this renews its time.
        with _told(digest):
            await obstore.put_async(self._store, key_of(digest), content)
        if await self.size(digest) != size:
            raise Damaged(f"blob {digest} was stored with another size than {size} bytes")
        return digest

    async def get(self, digest: Digest, limit: int = MOST_IN_MEMORY) -> bytes:
        with _told(digest):
            found = await obstore.get_async(self._store, key_of(digest))
            refuse_large(digest, found.meta["size"], limit)
            content = bytes(await found.bytes_async())
        return await asyncio.to_thread(checked, digest, content)

    async def fetch(self, digest: Digest, to: Path) -> None:
        with draft_in(to.parent) as draft:
            hashed, size = hashlib.sha256(), 0
            with draft.open("wb") as out:
                async for piece in self.stream(digest):
                    await asyncio.to_thread(add, out, hashed, piece)
                    size += len(piece)
                await asyncio.to_thread(sync_file, out)
            refuse_damaged(digest, hashed.hexdigest(), size)
            draft.replace(to)
        await asyncio.to_thread(sync_folder, to.parent)

    async def stream(self, digest: Digest, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        whole = await self.size(digest)
        end = whole if end is None else min(end, whole)
        if start >= end:  # a store refuses an empty range
            return
        with _told(digest):
            found = await obstore.get_async(self._store, key_of(digest), options={"range": (start, end)})
            async for piece in found.stream(min_chunk_size=CHUNK):
                yield bytes(piece)

    def path(self, digest: Digest) -> None:
        key_of(digest)

    async def size(self, digest: Digest) -> int:
        with _told(digest):
            return int((await obstore.head_async(self._store, key_of(digest)))["size"])

    async def exists(self, digest: Digest) -> bool:
        try:
            await self.size(digest)
        except NotFound:
            return False
        return True

    async def delete(self, digests: Collection[Digest]) -> None:
        # One after the other: stores differ in whether an object that is not there fails a bulk request.
        for digest in digests:
            try:
                with _told(digest):
                    await obstore.delete_async(self._store, key_of(digest))
            except NotFound:
                continue


@contextmanager
def _told(digest: str) -> Iterator[None]:
    """The store's errors in our words."""
    try:
        yield
    except (FileNotFoundError, NotFoundError) as error:
        raise missing(digest) from error
    except BaseError as error:
        raise Unavailable(f"the blob store does not answer: {error}") from error
