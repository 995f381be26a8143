"""Bytes by their sha256: the port, and how to come by one of its two shores.

A blob is whole or not there. No event may be appended before `put` returned: then the bytes survive a power cut.
Blobs are deleted by the collector, for which every `put` of bytes already there renews their time, and by an erasure.
"""

from collections.abc import AsyncIterator, Collection
from pathlib import Path
from typing import Protocol, runtime_checkable

from obstore.exceptions import BaseError
from obstore.store import from_url

from contracts.errors import SetupError
from contracts.ids import Digest
from contracts.wire.blob_bytes import MOST_IN_MEMORY, Damaged
from contracts.wire.blobs_local import LocalBlobs
from contracts.wire.blobs_remote import RemoteBlobs

__all__ = ["MOST_IN_MEMORY", "Blobs", "Damaged", "LocalBlobs", "RemoteBlobs", "blobs_at"]


@runtime_checkable
class Blobs(Protocol):
    """All raise NotFound for a blob that is not there, Invalid for what is no digest."""

    async def put(self, content: bytes | Path) -> Digest:
        """Stores bytes or a file that nobody writes to meanwhile; returns when they are safe on disk."""
        ...

    async def get(self, digest: Digest, limit: int = MOST_IN_MEMORY) -> bytes:
        """The whole blob, checked; TooLarge beyond `limit` bytes, Damaged when it is not what was put."""
        ...

    async def fetch(self, digest: Digest, to: Path) -> None:
        """The whole blob, checked, as a file; `to` is replaced whole or not at all."""
        ...

    def stream(self, digest: Digest, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """Bytes `start` up to but not including `end`, in pieces; not checked against the digest."""
        ...

    def path(self, digest: Digest) -> Path | None:
        """Where it lies as a file that may be read but never written, or nothing where blobs are no files."""
        ...

    async def size(self, digest: Digest) -> int:
        """Bytes."""
        ...

    async def exists(self, digest: Digest) -> bool: ...

    async def delete(self, digests: Collection[Digest]) -> None:
        """They are gone for good when this returns, with what a killed writer left of them; absent ones are no error.

        OSError or Unavailable: some may still be there.
        """
        ...


def blobs_at(place: str) -> Blobs:
    """Blobs in a folder (a path), or in an object store (`s3://bucket/prefix`, `gs://`, `az://`, `memory://`)."""
    if "://" not in place:
        return LocalBlobs(Path(place).expanduser())
    try:
        return RemoteBlobs(from_url(place))
    except (BaseError, ValueError) as error:
        raise SetupError(f"{place!r} is no place for blobs: {error}") from error
