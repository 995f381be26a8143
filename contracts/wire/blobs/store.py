"""Content-addressed blob storage: the protocol and its factory.

A blob is complete or absent. No event that names it may be appended before `put` returned: then the bytes survive a
power cut. Blobs are deleted by the collector, for which every `put` of existing bytes renews their time, and by
erasure.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Collection, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from obstore.exceptions import BaseError
from obstore.store import from_url

from contracts.errors import SetupError
from contracts.ids import Digest
from contracts.thread_cancellation import ThreadCancellation
from contracts.wire.blobs.io import MAX_BYTES_IN_MEMORY, Damaged, StoredBlob
from contracts.wire.blobs.local import LocalBlobs
from contracts.wire.blobs.remote import RemoteBlobs

__all__ = ["Blobs", "Damaged", "LocalBlobs", "MAX_BYTES_IN_MEMORY", "RemoteBlobs", "StoredBlob", "blobs_at"]


@runtime_checkable
class Blobs(Protocol):
    """All methods raise NotFound for a missing blob and Invalid for a malformed digest."""

    async def put(self, content: bytes | Path) -> Digest:
        """Stores bytes, or a file that must not change meanwhile; returns when they are durable."""
        ...

    async def put_all(self, contents: Sequence[bytes | Path], cancellation: ThreadCancellation) -> list[Digest]:
        """Stores several, then commits. If it is cancelled before that, none of those that are files is stored.

        An object store may have some of them.
        """
        ...

    async def get(self, digest: Digest, limit: int = MAX_BYTES_IN_MEMORY) -> bytes:
        """The verified content; TooLarge beyond `limit` bytes, Damaged if it is not what was put."""
        ...

    async def fetch(self, digest: Digest, to: Path) -> None:
        """Writes the verified content to a file; `to` is replaced atomically."""
        ...

    def stream(self, digest: Digest, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes, None]:
        """Bytes `start` up to but excluding `end`, in chunks; not verified against the digest."""
        ...

    def path(self, digest: Digest) -> Path | None:
        """Its path, as a file that may be read but never written; None where blobs are not files."""
        ...

    async def size(self, digest: Digest) -> int:
        """Size in bytes."""
        ...

    async def exists(self, digest: Digest) -> bool: ...

    def listing(self, prefix: str = "") -> AsyncIterator[Sequence[StoredBlob]]:
        """All blobs, or those whose digests begin with `prefix` (two or four hex digits), in parts, in any order."""
        ...

    async def set_aside(self, digest: Digest) -> None:
        """Moves damaged bytes away: the blob is missing then, and can be put again. A missing one is no error."""
        ...

    async def delete(self, digests: Collection[Digest]) -> None:
        """Deletes blobs for good, also damaged ones and unfinished files of killed writers; missing ones are no error.

        OSError or Unavailable: some may still exist.
        """
        ...

    async def remove_abandoned_drafts(self) -> int:
        """Removes unfinished files that killed writers left more than a day ago; returns their number."""
        ...


def blobs_at(location: str) -> Blobs:
    """Blobs in a folder (a path), or in an object store (`s3://bucket/prefix`, `gs://`, `az://`, `memory://`)."""
    if "://" not in location:
        return LocalBlobs(Path(location).expanduser())
    try:
        return RemoteBlobs(from_url(location))
    except (BaseError, ValueError) as error:
        raise SetupError(f"{location!r} is not a location for blobs: {error}") from error
