"""What both shores of the blob store share: keys, hashing, checking, and files that are whole or not there."""

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from contracts.errors import Invalid, LoratoryError, NotFound, TooLarge
from contracts.ids import Digest, is_digest

CHUNK = 1 << 20
"""Bytes read or written at once."""

MOST_IN_MEMORY = 256 << 20
"""Bytes `get` returns at most; what is larger is fetched to a file or streamed."""


class Damaged(LoratoryError):
    """The stored bytes are not those that were put there."""

    code = "blob-damaged"


def key_of(digest: str) -> str:
    if not is_digest(digest):
        raise Invalid(f"{digest[:80]!r} is no digest of a blob")
    return f"{digest[:2]}/{digest[2:4]}/{digest}"


def missing(digest: str) -> NotFound:
    return NotFound(f"blob {digest} is not here")


def measured(content: bytes | Path) -> tuple[Digest, int]:
    hashed, size = hashlib.sha256(), 0
    for piece in pieces(content):
        hashed.update(piece)
        size += len(piece)
    return Digest(hashed.hexdigest()), size


def pieces(content: bytes | Path) -> Iterator[bytes]:
    if isinstance(content, bytes):
        yield content
        return
    with content.open("rb") as source:
        while piece := source.read(CHUNK):
            yield piece


def begins(whole: Path, part: Path) -> bool:
    """Does `whole` begin with all the bytes of `part`, of which there are some? No, where one of them is gone."""
    try:
        with whole.open("rb") as one, part.open("rb") as other:
            size = os.fstat(other.fileno()).st_size
            if not 0 < size <= os.fstat(one.fileno()).st_size:
                return False
            while piece := other.read(CHUNK):
                if one.read(len(piece)) != piece:
                    return False
    except FileNotFoundError:
        return False
    return True


def written(out: BinaryIO, pieces: Iterator[bytes]) -> tuple[Digest, int]:
    hashed, size = hashlib.sha256(), 0
    for piece in pieces:
        add(out, hashed, piece)
        size += len(piece)
    return Digest(hashed.hexdigest()), size


def add(out: BinaryIO, hashed: Any, piece: bytes) -> None:
    hashed.update(piece)
    out.write(piece)


def checked(digest: str, content: bytes) -> bytes:
    refuse_damaged(digest, hashlib.sha256(content).hexdigest(), len(content))
    return content


def refuse_damaged(digest: str, found: str, size: int) -> None:
    if found != digest:
        raise Damaged(f"blob {digest} is damaged: its {size} bytes hash to {found}")


def refuse_large(digest: str, size: int, limit: int) -> None:
    if size > limit:
        raise TooLarge(f"blob {digest} has {size} bytes, more than the {limit} that fit here")


@contextmanager
def draft_in(folder: Path) -> Iterator[Path]:
    """A name for an unfinished file in this folder; what is still there at the end is removed."""
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f".{secrets.token_hex(8)}.draft"
    try:
        yield draft
    finally:
        draft.unlink(missing_ok=True)


def sync_file(out: BinaryIO) -> None:
    out.flush()
    os.fsync(out.fileno())


def sync_folder(folder: Path) -> None:
    """A renamed file is only there after a power cut when its folder was synced. Windows has no such call."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
