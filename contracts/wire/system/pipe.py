"""Messages in frames through the pipe between a parent and its child: a length in four bytes, then a msgpack body."""

import os
import sys
from typing import IO, Any, BinaryIO, Generic, TypeVar

import msgspec

T = TypeVar("T")

PREFIX_BYTES = 4
"""Size of the length before every body, big-endian."""


class PipeError(Exception):
    """The other process closed the pipe or broke the protocol."""


class PipeClosed(PipeError):
    """The other process closed the pipe, perhaps in the middle of a frame."""


class InvalidFrame(PipeError):
    """A frame is truncated, too long, or not a message of this pipe."""


class Frames(Generic[T]):
    """The messages that go one way through a pipe: their type, and the maximum size of one."""

    def __init__(self, message_type: Any, max_bytes: int) -> None:
        self._decoder: msgspec.msgpack.Decoder[T] = msgspec.msgpack.Decoder(message_type)
        self._max_bytes = max_bytes

    def encode(self, message: T) -> bytes:
        """The message as a frame; InvalidFrame if it is larger than the limit."""
        body = msgspec.msgpack.encode(message)
        self._check(len(body))
        return len(body).to_bytes(PREFIX_BYTES, "big") + body

    def body_length(self, prefix: bytes) -> int:
        """The length of a body, from the prefix before it; InvalidFrame if it exceeds the limit."""
        size = int.from_bytes(prefix, "big")
        self._check(size)
        return size

    def decode(self, body: bytes) -> T:
        try:
            return self._decoder.decode(body)
        except msgspec.DecodeError as error:
            raise InvalidFrame(f"the other process sent an invalid message: {error}") from error

    def read(self, pipe: IO[bytes]) -> T | None:
        """Blocks until the next message; None if the pipe was closed between two frames."""
        prefix = pipe.read(PREFIX_BYTES)
        if not prefix:
            return None
        return self.decode(pipe.read(self.body_length(prefix)) if len(prefix) == PREFIX_BYTES else b"")

    def write(self, pipe: IO[bytes], message: T) -> None:
        pipe.write(self.encode(message))
        pipe.flush()

    def _check(self, size: int) -> None:
        if size > self._max_bytes:
            raise InvalidFrame(f"a message of {size} bytes exceeds the limit of {self._max_bytes}")


def claim_pipes() -> tuple[BinaryIO, BinaryIO]:
    """In a child: the requests on its stdin and the pipe of results on its stdout, which nothing else can use then.

    The descriptors lead to null, so that native libraries cannot write to them. Python's tracebacks reach the log.
    """
    requests, results = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb", buffering=0)
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.close(null)
    return requests, results
