"""What the pool and its children say to each other: msgpack bodies, each after its length in four bytes."""

from typing import BinaryIO

import msgspec

from catalog.ingest.outcomes import Facts, Refused

MAX_FRAME = 1 << 16
LENGTH_BYTES = 4


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The child stands, Pillow is loaded, its limits hold."""


class Examine(msgspec.Struct, frozen=True, kw_only=True, tag="examine"):
    """Look at the file `source`; write `picture` (unless the source is one itself) and `thumbnail`."""

    source: str
    picture: str
    thumbnail: str


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """The file at `path` could not be read or written: the machine's fault (errno), not the picture's."""

    errno: int
    message: str
    path: str


Result = Facts | Refused | Failed


def packed(message: Ready | Examine | Result) -> bytes:
    body = msgspec.msgpack.encode(message)
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


def length_of(header: bytes) -> int:
    """The length that a header announces; ValueError when it is more than a sane peer would send."""
    length = int.from_bytes(header, "big")
    if length > MAX_FRAME:
        raise ValueError(f"a frame of {length} bytes")
    return length


def next_body(stream: BinaryIO) -> bytes | None:
    """The next body from a blocking pipe, or None at its end."""
    header = stream.read(LENGTH_BYTES)
    return stream.read(length_of(header)) if len(header) == LENGTH_BYTES else None
