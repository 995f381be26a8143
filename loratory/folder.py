"""The data folder: its parts, its format number, and the one process that may use it at a time."""

import os
import sys
from pathlib import Path
from typing import Self

from contracts.errors import SetupError

if sys.platform != "win32":
    import fcntl

FORMAT = 1
"""What this version reads and writes. A newer number means a newer Loratory wrote it."""


class FolderInUse(SetupError):
    """Another process holds the data folder."""


class DataFolder:
    """`with DataFolder(path) as folder:` makes it if need be and holds it; SetupError in one sentence if it cannot.

    The lock is the kernel's: it is gone with the process that held it, however that ended.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().absolute()
        self._lock: int | None = None

    def __truediv__(self, part: str) -> Path:
        return self.path / part

    def health(self, service: str) -> Path:
        return self.path / "run" / f"{service}.json"

    def log(self, service: str) -> Path:
        return self.path / "logs" / f"{service}.log"

    def __enter__(self) -> Self:
        try:
            for part in ("", "run", "logs", "blobs", "staging", "loras", "bases"):
                (self.path / part).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SetupError(f"the data folder {self.path} cannot be made: {error.strerror}") from error
        check_format(self.path)
        self._lock = self._locked()
        (self.path / "format").write_text(f"{FORMAT}\n")
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _locked(self) -> int:
        if sys.platform == "win32":
            raise SetupError("`loratory up` needs Linux or macOS; on Windows run the containers (compose.yaml)")
        lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(lock, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(lock)
            raise FolderInUse(f"Loratory already runs on the data folder {self.path} (process {holder})") from error
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)
        return lock


def check_format(path: Path) -> None:
    """SetupError for a folder that a newer Loratory wrote, or whose format number is none."""
    try:
        text = (path / "format").read_text(encoding="utf-8", errors="replace").strip()
    except FileNotFoundError:
        return
    if not text.isdecimal():
        raise SetupError(f"{path / 'format'} holds no format number; is {path} a data folder of Loratory?")
    if int(text) > FORMAT:
        raise SetupError(
            f"the data folder {path} has format {text}, this Loratory knows up to {FORMAT}: "
            "start the newer Loratory that wrote it"
        )
