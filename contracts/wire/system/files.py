"""Files that are complete or absent, also after a power cut: temporary file, fsync, rename, fsync of the folder."""

import errno
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
"""Error numbers of a full disk and of a used-up quota."""
DRAFT_MAX_AGE_SECONDS = 24 * 3600
"""Age after which an unfinished file certainly has no writer any more."""


def write_atomically(target: Path, content: bytes, *, mode: int = 0o666) -> None:
    """Replaces a file that has one writer; `mode` as for `os.open`."""
    with open_atomically(target, mode=mode) as out:
        out.write(content)


@contextmanager
def open_atomically(target: Path, *, mode: int = 0o666) -> Iterator[BinaryIO]:
    """A stream whose content replaces the file when the block ends; after an error the old file remains."""
    with draft_beside(target) as draft:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as out:
            yield out
        move_into_place(draft, target)


@contextmanager
def draft_beside(target: Path) -> Iterator[Path]:
    """The temporary file of a target that has one writer; removed at the end unless it was renamed.

    Its name is always the same, so the next write removes what a killed writer left.
    """
    draft = target.with_name(f".{target.name}.draft")
    draft.unlink(missing_ok=True)
    with _removed_at_end(draft):
        yield draft


@contextmanager
def draft_in(folder: Path) -> Iterator[Path]:
    """A temporary file of its own, for targets that have several writers; removed at the end unless it was renamed."""
    folder.mkdir(parents=True, exist_ok=True)
    with _removed_at_end(folder / f".{secrets.token_hex(8)}.draft") as draft:
        yield draft


def move_into_place(draft: Path, target: Path) -> None:
    """Makes a finished file durable and gives it its name."""
    sync_file(draft)
    rename_into_place(draft, target)


def rename_into_place(draft: Path, target: Path) -> None:
    """Gives a file that was synced its name."""
    draft.replace(target)
    sync_folder(target.parent)


def sync_file(file: Path) -> None:
    with file.open("rb+") as written:  # Windows syncs only what is open for writing
        os.fsync(written.fileno())


def sync_folder(folder: Path) -> None:
    """A renamed file survives a power cut only if its folder was synced. Windows has no such call."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_abandoned_drafts(folder: Path) -> int:
    """Removes the temporary files of `draft_in` that killed writers left more than a day ago; returns their number."""
    removed = 0
    for draft in folder.glob(".*.draft"):
        with suppress(FileNotFoundError):  # its writer has just renamed it
            if time.time() - draft.stat().st_mtime > DRAFT_MAX_AGE_SECONDS:
                draft.unlink()
                removed += 1
    return removed


@contextmanager
def _removed_at_end(draft: Path) -> Iterator[Path]:
    try:
        yield draft
    finally:
        draft.unlink(missing_ok=True)
