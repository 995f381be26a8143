"""Reading files that others own: only regular files, never waiting for a writer, and only while they do not change."""

import io
import os
import stat
from pathlib import Path

_KINDS = {
    stat.S_IFIFO: "it is a named pipe, not a file",
    stat.S_IFSOCK: "it is a socket, not a file",
    stat.S_IFCHR: "it is a device, not a file",
    stat.S_IFBLK: "it is a device, not a file",
    stat.S_IFDIR: "it is a folder, not a file",
    stat.S_IFLNK: "it is a link",
}
# On a named pipe, without O_NONBLOCK, `open` waits for a writer. Windows has neither flag.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_CHUNK_BYTES = 1 << 20


class NotRegular(OSError):
    """The path does not lead to a regular file; `strerror` says to what instead."""

    strerror: str


class FileChanged(OSError):
    """The file grew, shrank or was rewritten while it was read."""

    strerror: str


def check_regular(path: Path, *, follow_links: bool = True) -> os.stat_result:
    """Its stat. NotRegular; OSError if it is missing, or a link that leads to itself."""
    return _checked(path.stat() if follow_links else path.lstat(), path)


def open_regular(path: Path, *, follow_links: bool = True) -> "SteadyReader":
    """Open a file without ever waiting or opening a device. NotRegular, OSError."""
    check_regular(path, follow_links=follow_links)  # already to open a device can have an effect
    descriptor = os.open(path, _FLAGS | (0 if follow_links else getattr(os, "O_NOFOLLOW", 0)))
    try:
        size = _checked(os.fstat(descriptor), path).st_size
    except BaseException:
        os.close(descriptor)
        raise
    return SteadyReader(descriptor, path, size)


def read_regular(path: Path, max_bytes: int, *, follow_links: bool = True) -> bytes:
    """Its content, or the first `max_bytes` + 1 bytes of it. NotRegular, FileChanged, OSError."""
    with open_regular(path, follow_links=follow_links) as file:
        length = min(file.size, max_bytes + 1)
        content = bytearray()
        while len(content) < length:
            content += file.read(min(_CHUNK_BYTES, length - len(content)))
        file.check_unchanged()
    return bytes(content)


class SteadyReader(io.RawIOBase):
    """Reads as many bytes as the file had when it was opened: no more if it grows, and FileChanged if it shrank."""

    def __init__(self, descriptor: int, path: Path, size: int) -> None:
        self.size = size
        self._descriptor, self._path = descriptor, path
        self._opened = os.fstat(descriptor)
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}[whence]
        self._at = os.lseek(self._descriptor, max(0, base + offset), os.SEEK_SET)
        return self._at

    def read(self, size: int = -1) -> bytes:
        left = max(0, self.size - self._at)
        length = left if size < 0 else min(size, left)
        content = os.read(self._descriptor, length) if length else b""
        if length and not content:
            raise self._changed()
        self._at += len(content)
        return content

    def check_unchanged(self) -> None:
        """FileChanged if its size or time of change differs from when it was opened."""
        now = os.fstat(self._descriptor)
        if (now.st_size, now.st_mtime_ns) != (self._opened.st_size, self._opened.st_mtime_ns):
            raise self._changed()

    def close(self) -> None:
        if not self.closed:
            os.close(self._descriptor)
        super().close()

    def _changed(self) -> FileChanged:
        return FileChanged(0, "it changed while it was read", str(self._path))


def _checked(status: os.stat_result, path: Path) -> os.stat_result:
    if not stat.S_ISREG(status.st_mode):
        reason = _KINDS.get(stat.S_IFMT(status.st_mode), "it is not a regular file")
        raise NotRegular(0, reason, str(path))
    return status
