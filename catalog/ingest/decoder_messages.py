"""The protocol between the pool and its children: msgpack bodies, each prefixed with its length in four bytes."""

from typing import BinaryIO

import msgspec

from catalog.ingest.outcomes import PictureInfo, Refused

MAX_FRAME_BYTES = 1 << 16
LENGTH_BYTES = 4


class DecoderReady(msgspec.Struct, frozen=True, tag="ready"):
    """The child is ready: Pillow is loaded, its limits are set."""


class Examine(msgspec.Struct, frozen=True, kw_only=True, tag="examine"):
    """Examine the file `source`; write `thumbnail`, and `picture` unless the source can be used as it is."""

    source: str
    picture: str
    thumbnail: str


class DecodingFailed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """The file at `path` could not be read or written: an error of the machine (errno), not of the picture."""

    errno: int
    message: str
    path: str


Result = PictureInfo | Refused | DecodingFailed


def encode_frame(message: DecoderReady | Examine | Result) -> bytes:
    body = msgspec.msgpack.encode(message)
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


def body_length(header: bytes) -> int:
    """The length in a frame's header; ValueError if it exceeds MAX_FRAME_BYTES."""
    length = int.from_bytes(header, "big")
    if length > MAX_FRAME_BYTES:
        raise ValueError(f"a frame of {length} bytes")
    return length


def read_body(stream: BinaryIO) -> bytes | None:
    """The next body from a blocking pipe, or None at its end."""
    header = stream.read(LENGTH_BYTES)
    return stream.read(body_length(header)) if len(header) == LENGTH_BYTES else None
