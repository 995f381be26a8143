"""The messages between the tagger and the child processes that read pictures for it."""

import msgspec

from contracts.wire.system.pipe import Frames

MAX_SIDE = 4096
"""Of a square, in pixels: the largest input that a manifest may give its model."""


class Read(msgspec.Struct, frozen=True, tag="read"):
    """Read the picture in the file `path` as a square with sides of `size` pixels."""

    path: str
    size: int


class Square(msgspec.Struct, frozen=True, tag="square"):
    """`rgb`: `size` x `size` pixels of three bytes, rows from the top."""

    size: int
    rgb: bytes


class Unreadable(msgspec.Struct, frozen=True, tag="unreadable"):
    """A picture that could not be read; `reason` is a sentence that does not contain its path."""

    reason: str


REQUESTS: Frames[Read] = Frames(Read, 1 << 16)
RESULTS: Frames[Square | Unreadable] = Frames(Square | Unreadable, 3 * MAX_SIDE * MAX_SIDE + 64)
