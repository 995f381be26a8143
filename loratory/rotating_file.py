"""A log file of bounded size."""

from pathlib import Path

MAX_FILE_BYTES = 4 << 20
MAX_OLD_FILES = 3


class RotatingFile:
    """Appends bytes to `path`. Beyond `limit` bytes it becomes `path.1`, which becomes `path.2`, up to `old` of them.

    Bytes that cannot be written (disk full) are dropped and counted, never raised: logging must not stop the service.
    """

    def __init__(self, path: Path, *, limit: int = MAX_FILE_BYTES, old: int = MAX_OLD_FILES) -> None:
        self.path = path
        self._limit = limit
        self._old = old
        self._dropped = 0

    def write(self, content: bytes) -> None:
        note = f"({self._dropped} bytes could not be written here)\n".encode() if self._dropped else b""
        try:
            if self._size() + len(content) > self._limit:
                self._rotate()
            with self.path.open("ab") as out:
                out.write(note + content)
        except OSError:
            self._dropped += len(content)
        else:
            self._dropped = 0

    def _size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def _rotate(self) -> None:
        for number in range(self._old, 0, -1):
            newer = self.path if number == 1 else self._numbered(number - 1)
            if newer.exists():
                newer.replace(self._numbered(number))

    def _numbered(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")
