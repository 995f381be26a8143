"""A log file that never grows over its bound."""

from pathlib import Path

BYTES = 4 << 20
OLD = 3


class RotatingFile:
    """Bytes appended to `path`; over `limit` bytes it becomes `path.1`, that `path.2`, up to `old` of them.

    What cannot be written (a full disk) is dropped and counted, never raised: a log must not stop what it tells of.
    """

    def __init__(self, path: Path, *, limit: int = BYTES, old: int = OLD) -> None:
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
