"""Selecting the images of a folder, and their caption files, for an import."""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from contracts.commands.datasets import MAX_FILES_PER_IMPORT
from contracts.errors import SetupError
from contracts.wire.system.regular_files import check_regular

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".heif")
"""Extensions of image files; whether the content is a supported image is decided by the server."""
CAPTION_SUFFIXES = (".txt", ".caption")
"""Extensions of caption files, which have the image's stem; the first existing one is used."""

MAX_NAME_CHARACTERS = 1000
MAX_FOLDER_FILES = 100_000
MAX_IMAGE_BYTES = 64 << 20
"""Maximum size of one image; the server refuses larger ones."""
MAX_BATCH_BYTES = 256 << 20
MAX_CAPTION_CHARACTERS = 20_000


@dataclass(frozen=True)
class ImageFile:
    path: Path
    name: str
    size: int
    caption: str | None = None


@dataclass
class ScanResult:
    """The files of a folder. `unreadable`: name and reason, of images and caption files left out."""

    images: list[ImageFile] = field(default_factory=list)
    other_files: int = 0
    outside_links: int = 0
    unreadable: list[tuple[str, str]] = field(default_factory=list)


def scan_folder(folder: Path) -> ScanResult:
    """All images under a folder, sorted by name; hidden folders and symbolic links to folders are skipped.

    SetupError if the folder does not exist, is not a folder, or contains no images.
    """
    if not folder.is_dir():
        raise SetupError(f"{folder} is not a folder" if folder.exists() else f"there is no folder {folder}")
    root = folder.resolve()
    found = _classify(((path, path.relative_to(root).as_posix()) for path in _walk(root)), root)
    if not found.images:
        problem = "is empty" if not any(folder.iterdir()) else "contains no images"
        reasons = "; ".join(f"{name}: {reason}" for name, reason in found.unreadable[:3])
        raise SetupError(f"the folder {folder} {problem}" + (f" that can be imported ({reasons})" if reasons else ""))
    return found


def scan_files(files: Sequence[Path]) -> ScanResult:
    """These files, named by file name, or by path if two share one. SetupError if one is missing."""
    for file in files:
        if file.is_dir() or not (file.exists() or file.is_symlink()):
            raise SetupError(f"there is no file {file}")
    names = [file.name for file in files]
    unique = len(set(names)) == len(names)
    return _classify((file, file.name if unique else file.as_posix()) for file in files)


def batches(images: Iterable[ImageFile]) -> Iterator[list[ImageFile]]:
    """Split into requests of at most MAX_FILES_PER_IMPORT files and MAX_BATCH_BYTES bytes."""
    batch: list[ImageFile] = []
    for image in images:
        too_large = sum(one.size for one in batch) + image.size > MAX_BATCH_BYTES
        if batch and (len(batch) == MAX_FILES_PER_IMPORT or too_large):
            yield batch
            batch = []
        batch.append(image)
    if batch:
        yield batch


def _walk(root: Path) -> Iterator[Path]:
    count = 0
    for parent, folders, files in os.walk(root, followlinks=False):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            count += 1
            if count > MAX_FOLDER_FILES:
                raise SetupError(f"{root} contains more than {MAX_FOLDER_FILES} files; import it in parts")
            yield Path(parent) / name


def _classify(files: Iterable[tuple[Path, str]], root: Path | None = None) -> ScanResult:
    found, sidecars = ScanResult(), []
    for path, name in files:
        if path.suffix.lower() in CAPTION_SUFFIXES:
            sidecars.append(path)
        elif path.suffix.lower() not in IMAGE_SUFFIXES or path.name.startswith("."):
            found.other_files += 1
        elif _links_outside(path, root):
            found.outside_links += 1
        else:
            _add_image(found, path, name, root)
    stems = {image.path.with_suffix("") for image in found.images}
    found.other_files += sum(sidecar.with_suffix("") not in stems for sidecar in sidecars)
    return found


def _links_outside(path: Path, root: Path | None) -> bool:
    """Is it a symbolic link to a file outside the folder? Allowed for files that were named explicitly (no root)."""
    if root is None or not path.is_symlink():
        return False
    try:
        return not path.resolve().is_relative_to(root)
    except (OSError, RuntimeError):  # a link that leads to itself (Python 3.11 raises RuntimeError); it is named later
        return False


def _add_image(found: ScanResult, path: Path, name: str, root: Path | None) -> None:
    try:
        size = check_regular(path).st_size
    except OSError as error:
        found.unreadable.append((name, error.strerror or "it cannot be read"))
        return
    if size > MAX_IMAGE_BYTES:
        found.unreadable.append((name, f"it is larger than {MAX_IMAGE_BYTES >> 20} MiB"))
        return
    found.images.append(ImageFile(path, _form_name(name), size, _caption(found, path, root)))


def _form_name(name: str) -> str:
    """The name as a multipart form preserves it, since captions are matched by it: no quotes, no control characters."""
    readable = name.encode("utf-8", "replace").decode()
    return re.sub(r'[\x00-\x1f\x7f"\\]', "_", readable)[-MAX_NAME_CHARACTERS:]


def _caption(found: ScanResult, image: Path, root: Path | None) -> str | None:
    candidates = (image.with_suffix(suffix) for suffix in CAPTION_SUFFIXES)
    sidecar = next((file for file in candidates if file.is_file() and not _links_outside(file, root)), None)
    if sidecar is None:
        return None
    text, reason = "", f"it has more than {MAX_CAPTION_CHARACTERS} characters"
    try:
        if sidecar.stat().st_size <= 4 * MAX_CAPTION_CHARACTERS:  # UTF-8 takes up to four bytes per character
            text = sidecar.read_bytes().decode("utf-8-sig").strip()
            reason = reason if len(text) > MAX_CAPTION_CHARACTERS else ""
    except (OSError, UnicodeDecodeError):
        reason = "it is not UTF-8 text"
    if reason:
        found.unreadable.append((sidecar.name, f"{reason}, so {image.name} has no caption"))
    return None if reason else text or None
