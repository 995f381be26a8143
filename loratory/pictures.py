"""Which files of a folder go into a data set, with the captions that lie beside them."""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from contracts.commands import FILES_AT_ONCE
from contracts.errors import SetupError

SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".heif"))
"""Taken for a picture; whether it is one, and in a format that is read, the server says."""
SIDECARS = (".txt", ".caption")
"""Beside a picture, with its stem: its caption. The first that is there counts."""

LONGEST_NAME = 1000
MOST_FILES = 100_000
MOST_BYTES = 64 << 20
"""One picture; the server takes no larger one."""
BATCH_BYTES = 256 << 20
CAPTION_CHARACTERS = 20_000


@dataclass(frozen=True)
class Picture:
    path: Path
    name: str
    size: int
    caption: str | None = None


@dataclass
class Found:
    """What a folder holds. `unread`: name and reason, of pictures left out and of captions left off."""

    pictures: list[Picture] = field(default_factory=list)
    others: int = 0
    outside: int = 0
    unread: list[tuple[str, str]] = field(default_factory=list)


def found_in(folder: Path) -> Found:
    """All pictures under a folder, in the order of their names; hidden folders and links to folders are passed over.

    SetupError in one sentence where the folder is missing, is none, or holds no picture.
    """
    if not folder.is_dir():
        raise SetupError(f"{folder} is no folder" if folder.exists() else f"there is no folder {folder}")
    root = folder.resolve()
    found = _sorted_out(((path, path.relative_to(root).as_posix()) for path in _walked(root)), root)
    if not found.pictures:
        what = "is empty" if not any(folder.iterdir()) else "holds no pictures"
        reasons = "; ".join(f"{name}: {reason}" for name, reason in found.unread[:3])
        raise SetupError(f"the folder {folder} {what}" + (f" that can be sent ({reasons})" if reasons else ""))
    return found


def found_among(files: Sequence[Path]) -> Found:
    """These files, each under its bare name, or under its path where two have the same. SetupError: one is missing."""
    for file in files:
        if not file.is_file():
            raise SetupError(f"there is no file {file}")
    names = [file.name for file in files]
    unique = len(set(names)) == len(names)
    return _sorted_out((file, file.name if unique else file.as_posix()) for file in files)


def batches(pictures: Iterable[Picture]) -> Iterator[list[Picture]]:
    """As the server wants them: at most FILES_AT_ONCE files and BATCH_BYTES bytes in a request."""
    batch: list[Picture] = []
    for picture in pictures:
        if batch and (len(batch) == FILES_AT_ONCE or sum(one.size for one in batch) + picture.size > BATCH_BYTES):
            yield batch
            batch = []
        batch.append(picture)
    if batch:
        yield batch


def _walked(root: Path) -> Iterator[Path]:
    count = 0
    for place, folders, files in os.walk(root, followlinks=False):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            count += 1
            if count > MOST_FILES:
                raise SetupError(f"{root} holds more than {MOST_FILES} files; import it in parts")
            yield Path(place) / name


def _sorted_out(files: Iterable[tuple[Path, str]], root: Path | None = None) -> Found:
    found, sidecars = Found(), []
    for path, name in files:
        if path.suffix.lower() in SIDECARS:
            sidecars.append(path)
        elif path.suffix.lower() not in SUFFIXES or path.name.startswith("."):
            found.others += 1
        elif _leads_out(path, root):
            found.outside += 1
        else:
            _take(found, path, name, root)
    stems = {picture.path.with_suffix("") for picture in found.pictures}
    found.others += sum(sidecar.with_suffix("") not in stems for sidecar in sidecars)
    return found


def _leads_out(path: Path, root: Path | None) -> bool:
    """A link to somewhere else? A file that somebody named by itself may be one."""
    return root is not None and path.is_symlink() and not path.resolve().is_relative_to(root)


def _take(found: Found, path: Path, name: str, root: Path | None) -> None:
    try:
        size = path.stat().st_size
    except OSError as error:
        found.unread.append((name, error.strerror or "it cannot be read"))
        return
    if size > MOST_BYTES:
        found.unread.append((name, f"it has more than {MOST_BYTES >> 20} MiB"))
        return
    found.pictures.append(Picture(path, _label(name), size, _caption(found, path, root)))


def _label(name: str) -> str:
    """The name as a form can carry it, for captions are found by it: Unicode, without quotes and control characters."""
    readable = name.encode("utf-8", "replace").decode()
    return re.sub(r'[\x00-\x1f\x7f"\\]', "_", readable)[-LONGEST_NAME:]


def _caption(found: Found, picture: Path, root: Path | None) -> str | None:
    beside = (picture.with_suffix(suffix) for suffix in SIDECARS)
    sidecar = next((file for file in beside if file.is_file() and not _leads_out(file, root)), None)
    if sidecar is None:
        return None
    text, reason = "", f"it has more than {CAPTION_CHARACTERS} characters"
    try:
        if sidecar.stat().st_size <= 4 * CAPTION_CHARACTERS:  # UTF-8 takes up to four bytes for one
            text = sidecar.read_bytes().decode("utf-8-sig").strip()
            reason = reason if len(text) > CAPTION_CHARACTERS else ""
    except (OSError, UnicodeDecodeError):
        reason = "it is no UTF-8 text"
    if reason:
        found.unread.append((sidecar.name, f"{reason}, so {picture.name} has no caption"))
    return None if reason else text or None
