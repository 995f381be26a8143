"""The files of a folder or of a zip file, as the layouts see them."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from types import TracebackType
from typing import Protocol, Self

CHUNK_BYTES = 1 << 18
MAX_FOLDER_FILES = 100_000
"""Maximum number of files of one folder or zip file."""


class Reader(Protocol):
    """An open file of `size` bytes. A file that changes or is damaged raises OSError with `filename` = its label."""

    size: int

    def read(self, size: int = -1, /) -> bytes: ...
    def seek(self, offset: int, whence: int = 0, /) -> int: ...
    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


class Source(Protocol):
    """Where the bytes of a file are. `label` tells it from others in errors; `size` in bytes."""

    @property
    def label(self) -> str: ...
    @property
    def size(self) -> int: ...
    def open(self) -> Reader:
        """OSError: it is gone, has changed since it was listed, or cannot be read."""


@dataclass(frozen=True)
class File:
    """`place`: its path, with slashes, by which files belong together; `name`: the one that is shown and sent.

    `is_named` is false for what nobody asked for, and is only read where it belongs to a picture.
    """

    place: PurePosixPath
    source: Source
    name: str
    is_named: bool = True

    @property
    def suffix(self) -> str:
        return self.place.suffix.lower()

    @property
    def stem(self) -> PurePosixPath:
        """Its path without extension."""
        return self.place.with_suffix("")


@dataclass
class Listing:
    """All files below one root, sorted by name.

    `root`: the name of the folder. `bad`: files that cannot be read, with the reason; `links`: those out of the folder.
    `others`: what is no file, or hidden, with the reason.
    """

    root: str = ""
    files: list[File] = field(default_factory=list)
    bad: list[tuple[str, str]] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    others: list[tuple[str, str]] = field(default_factory=list)


def read_all(file: File, max_bytes: int) -> bytes:
    """Its content, or the first `max_bytes` + 1 bytes of it. OSError."""
    with file.source.open() as reader:
        content = bytearray()
        while len(content) <= max_bytes and (chunk := reader.read(min(CHUNK_BYTES, max_bytes + 1 - len(content)))):
            content += chunk
    return bytes(content)


def read_lines(file: File, max_line_bytes: int) -> Iterator[tuple[int, bytes | None]]:
    """Number and content of each line, without its end; none for a line that is too long. OSError."""
    number, line, is_long = 1, bytearray(), False
    with file.source.open() as reader:
        while chunk := reader.read(CHUNK_BYTES):
            *ended, rest = chunk.split(b"\n")
            for part in ended:
                is_long = is_long or len(line) + len(part) > max_line_bytes
                yield number, None if is_long else bytes(line + part)
                number, line, is_long = number + 1, bytearray(), False
            is_long = is_long or len(line) + len(rest) > max_line_bytes
            line = bytearray() if is_long else line + rest
    if line or is_long:
        yield number, None if is_long else bytes(line)
