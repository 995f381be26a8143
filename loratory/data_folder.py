"""The data folder: its parts, its format number and the lock of the one process that uses it."""

import os
import sys
from pathlib import Path
from typing import Self

from filelock import FileLock, Timeout

from contracts.cures import cure
from contracts.errors import SetupError
from contracts.wire.log.migration import FORMAT
from contracts.wire.system.files import write_atomically


class DataFolderInUse(SetupError):
    """Another process holds the data folder."""


class DataFolder:
    """`with DataFolder(path) as folder:` creates it if necessary and locks it; SetupError if that is not possible.

    The lock belongs to the kernel, so it is released however the process ends.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().absolute()
        self._lock = FileLock(self.path / "lock", mode=0o600, thread_local=False)

    @property
    def _address_file(self) -> Path:
        return self.path / "run" / "address"

    def __truediv__(self, part: str) -> Path:
        return self.path / part

    @property
    def supervision_file(self) -> Path:
        """What a running stack waits for before it starts a service again."""
        return self.path / "run" / "supervision.json"

    @property
    def folders_file(self) -> Path:
        """Which folders of pictures are imported into which data sets."""
        return self.path / "folders" / "datasets.json"

    def imported_file(self, dataset: str) -> Path:
        """Which pictures of such a folder were imported, as what."""
        return self.path / "folders" / f"{dataset}.json"

    def health_file(self, service: str) -> Path:
        return self.path / "run" / f"{service}.json"

    def log_file(self, service: str) -> Path:
        return self.path / "logs" / f"{service}.log"

    def __enter__(self) -> Self:
        check_format(self.path)
        try:
            for part in ("", "run", "logs", "blobs", "staging", "loras", "bases", "models"):
                (self.path / part).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SetupError(f"the data folder {self.path} cannot be created: {error.strerror}") from error
        self._acquire_lock()
        if not (self.path / "format").exists():  # otherwise it has this format, and a full disk need not be written to
            write_atomically(self.path / "format", f"{FORMAT}\n".encode())
        return self

    def record_address(self, host: str, port: int) -> None:
        """Remember where the gateway of this folder listens, for `running_port`. Call it while holding the folder."""
        write_atomically(self._address_file, f"{os.getpid()} {host} {port}\n".encode())

    def __exit__(self, *_: object) -> None:
        self._address_file.unlink(missing_ok=True)
        self._lock.release()

    def _acquire_lock(self) -> None:
        if sys.platform == "win32":
            raise SetupError("`loratory up` needs Linux or macOS; on Windows run the containers (compose.yaml)")
        lock = Path(self._lock.lock_file)
        try:
            self._lock.acquire(blocking=False)
        except Timeout as error:
            holder = lock.read_text(errors="replace").strip() or "unknown"
            raise DataFolderInUse(
                f"Loratory is already running on the data folder {self.path} (process {holder})"
            ) from error
        lock.write_text(str(os.getpid()))


def running_port(path: Path) -> int | None:
    """The port of the gateway that a running process serves from this data folder; None if there is none."""
    try:
        pid, _, port = (path / "run" / "address").read_text().split()
        os.kill(int(pid), 0)  # a stale file after SIGKILL: does the process still exist?
    except (OSError, ValueError):
        return None
    return int(port)


def check_format(path: Path) -> None:
    """SetupError for a data folder of another format. One without a format number is new, or has lost it.

    Formats before the first release are not converted, so an older folder is refused as well. A number that cannot be
    read is written again: the migrate step compares the format that the log itself names.
    """
    file = path / "format"
    try:
        text = file.read_text(encoding="utf-8", errors="replace").strip()
    except (FileNotFoundError, NotADirectoryError):
        return
    if not text.isdecimal():
        if (path / "catalog").is_dir() and (path / "nats").is_dir():
            return
        raise SetupError(f"{file} does not contain a format number; is {path} a Loratory data folder?")
    if int(text) > FORMAT:
        raise SetupError(
            f"the data folder {path} has format {text}, but this Loratory reads format {FORMAT}: start the newer "
            f"Loratory that wrote it. If there is none, {file} is damaged; {cure('format', path)}"
        )
    if int(text) < FORMAT:
        raise SetupError(
            f"the data folder {path} has the old format {text}, but this Loratory reads format {FORMAT} only: "
            "start with a new folder (--data), or with the older Loratory that wrote this one"
        )
