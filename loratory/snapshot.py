"""What a folder contains, as far as it can be seen without reading a file."""

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from contracts.errors import SetupError
from loratory.image_files import MAX_FOLDER_FILES

Signature = tuple[int, int]
"""Size in bytes and time of change in nanoseconds."""
Snapshot = Mapping[str, Signature]
"""By path. Hidden files and folders are left out, and links are not followed, as in imports."""


def take_snapshot(folder: Path) -> Snapshot:
    """Of a folder and those in it. SetupError: it is gone, or has more files than an import takes."""
    found: dict[str, Signature] = {}
    for entry in _files(str(folder)):
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:  # deleted meanwhile
            continue
        found[entry.path] = (status.st_size, status.st_mtime_ns)
        if len(found) > MAX_FOLDER_FILES:
            raise SetupError(f"{folder} contains more than {MAX_FOLDER_FILES} files")
    return found


def _files(folder: str) -> Iterator[os.DirEntry[str]]:
    """Of folders in it that cannot be read, as imports do, none."""
    pending = [folder]
    while pending:
        current = pending.pop()
        try:
            with os.scandir(current) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
                    else:
                        yield entry
        except OSError as error:
            if current == folder:
                reason = "there is no folder" if isinstance(error, FileNotFoundError) else f"{error.strerror}:"
                raise SetupError(f"{reason} {folder}") from error


def unsettled(now: Snapshot, before: Snapshot, seconds: float) -> set[str]:
    """The files that may still be written: changed since the snapshot before, and less than so many seconds ago."""
    recent = time.time_ns() - int(seconds * 1e9)
    return {path for path, signature in now.items() if before.get(path) != signature and signature[1] > recent}
