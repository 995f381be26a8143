"""Shared by both blob backends: keys, hashing and verification."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from contracts.errors import Invalid, LoratoryError, NotFound, TooLarge
from contracts.ids import Digest, is_digest

CHUNK_BYTES = 1 << 20
"""Bytes read or written per call."""
MAX_BYTES_IN_MEMORY = 256 << 20
"""Default maximum bytes `get` returns; larger blobs are fetched to a file or streamed."""

DAMAGED = "damaged"
"""Where damaged bytes are moved, so that nothing is served from them and the same blob can be put again."""


class StoredBlob(NamedTuple):
    """One stored blob: its digest, and its size in bytes."""

    digest: Digest
    size: int


class Damaged(LoratoryError, code="blob-damaged"):
    """The stored bytes are not the ones that were put."""


def blob_key(digest: str) -> str:
    if not is_digest(digest):
        raise Invalid(f"{digest[:80]!r} is not the digest of a blob")
    return f"{digest[:2]}/{digest[2:4]}/{digest}"


def damaged_key(digest: str) -> str:
    return f"{DAMAGED}/{digest}"


def not_found(digest: str) -> NotFound:
    return NotFound(f"blob {digest} does not exist")


def hash_content(content: bytes | Path) -> tuple[Digest, int]:
    return hash_chunks(read_chunks(content))


def hash_chunks(chunks: Iterable[bytes]) -> tuple[Digest, int]:
    hashed, size = hashlib.sha256(), 0
    for piece in chunks:
        hashed.update(piece)
        size += len(piece)
    return Digest(hashed.hexdigest()), size


def read_chunks(content: bytes | Path) -> Iterator[bytes]:
    if isinstance(content, bytes):
        yield content
        return
    with content.open("rb") as source:
        while piece := source.read(CHUNK_BYTES):
            yield piece


def starts_with(whole: Path, part: Path) -> bool:
    """Whether `whole` starts with the bytes of `part`; false if `part` is empty or either file is missing."""
    try:
        with whole.open("rb") as one, part.open("rb") as other:
            size = os.fstat(other.fileno()).st_size
            if not 0 < size <= os.fstat(one.fileno()).st_size:
                return False
            while piece := other.read(CHUNK_BYTES):
                if one.read(len(piece)) != piece:
                    return False
    except FileNotFoundError:
        return False
    return True


def write_hashed(out: BinaryIO, chunks: Iterable[bytes]) -> tuple[Digest, int]:
    hashed, size = hashlib.sha256(), 0
    for piece in chunks:
        write_chunk(out, hashed, piece)
        size += len(piece)
    return Digest(hashed.hexdigest()), size


def write_chunk(out: BinaryIO, hashed: Any, piece: bytes) -> None:
    hashed.update(piece)
    out.write(piece)


def verify_content(digest: str, content: bytes) -> bytes:
    check_digest(digest, hashlib.sha256(content).hexdigest(), len(content))
    return content


def check_digest(digest: str, found: str, size: int) -> None:
    if found != digest:
        raise Damaged(f"blob {digest} is damaged: its {size} bytes hash to {found}")


def check_size(digest: str, size: int, limit: int) -> None:
    if size > limit:
        raise TooLarge(f"blob {digest} has {size} bytes, more than the {limit} allowed here")
