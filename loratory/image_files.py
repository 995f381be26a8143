"""Selecting the images of a folder, and the text files beside them, for an import."""

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from contracts.commands.datasets import MAX_FILES_PER_IMPORT
from contracts.errors import Rejected, SetupError
from contracts.texts.decoding import MAX_TEXT_BYTES, decode_text
from contracts.wire.system.regular_files import check_regular, read_regular

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".heif")
"""Extensions of image files; whether the content is a supported image is decided by the server."""
TEXT_SUFFIXES = (".txt", ".caption")
"""Extensions, in any case, of text files that belong to the image with their stem; the first existing one is used."""

MAX_NAME_CHARACTERS = 1000
MAX_FOLDER_FILES = 100_000
MAX_IMAGE_BYTES = 64 << 20
"""Maximum size of one image; the server refuses larger ones."""
MAX_BATCH_BYTES = 256 << 20


@dataclass(frozen=True)
class ImageFile:
    path: Path
    name: str
    size: int
    text: str | None = None


@dataclass
class ScanResult:
    """The files of a folder. `unreadable`: name and reason, of images and texts left out.

    `unmatched`: text files that belong to no image.
    """

    images: list[ImageFile] = field(default_factory=list)
    other_files: int = 0
    outside_links: int = 0
    unmatched: list[str] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)


def scan_folder(folder: Path, encoding: str | None = None) -> ScanResult:
    """All images under a folder, sorted by name; hidden folders and symbolic links to folders are skipped.

    `encoding` of the texts beside them; none: it is found (`contracts.texts.decoding`). SetupError if the folder does
    not exist, is not a folder, or contains no images.
    """
    if not folder.is_dir():
        raise SetupError(f"{folder} is not a folder" if folder.exists() else f"there is no folder {folder}")
    root = folder.resolve()
    found = _classify(((path, path.relative_to(root).as_posix()) for path in _walk(root)), root, encoding)
    if not found.images:
        problem = "is empty" if not any(folder.iterdir()) else "contains no images"
        reasons = "; ".join(f"{name}: {reason}" for name, reason in found.unreadable[:3])
        raise SetupError(f"the folder {folder} {problem}" + (f" that can be imported ({reasons})" if reasons else ""))
    return found


def scan_files(files: Sequence[Path], encoding: str | None = None) -> ScanResult:
    """These files, named by file name, or by path if two share one. SetupError if one is missing.

    A text is read if it is beside its image, whether it is named or not.
    """
    for file in files:
        if file.is_dir() or not (file.exists() or file.is_symlink()):
            raise SetupError(f"there is no file {file}")
    names = [file.name for file in files]
    unique = len(set(names)) == len(names)
    named = ((file, file.name if unique else file.as_posix()) for file in files)
    return _classify(named, None, encoding)


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


def _classify(files: Iterable[tuple[Path, str]], root: Path | None, encoding: str | None) -> ScanResult:
    found, texts, images = ScanResult(), list[tuple[Path, str]](), list[tuple[Path, str]]()
    for path, name in files:
        if path.suffix.lower() in TEXT_SUFFIXES:
            texts.append((path, name))
        elif path.suffix.lower() not in IMAGE_SUFFIXES or path.name.startswith("."):
            found.other_files += 1
        elif _links_outside(path, root):
            found.outside_links += 1
        else:
            images.append((path, name))
    beside = _TextFiles(root, encoding)
    for path, name in images:
        _add_image(found, path, name, beside)
    stems = {path.with_suffix("") for path, _ in images}
    found.unmatched += [name for path, name in texts if path.with_suffix("") not in stems]
    return found


def _links_outside(path: Path, root: Path | None) -> bool:
    """Is it a symbolic link to a file outside the folder? Allowed for files that were named explicitly (no root)."""
    if root is None or not path.is_symlink():
        return False
    try:
        return not path.resolve().is_relative_to(root)
    except (OSError, RuntimeError):  # a link that leads to itself (Python 3.11 raises RuntimeError); it is named later
        return False


def _add_image(found: ScanResult, path: Path, name: str, texts: "_TextFiles") -> None:
    try:
        size = check_regular(path).st_size
    except OSError as error:
        found.unreadable.append((name, error.strerror or "it cannot be read"))
        return
    if size > MAX_IMAGE_BYTES:
        found.unreadable.append((name, f"it is larger than {MAX_IMAGE_BYTES >> 20} MiB"))
        return
    found.images.append(ImageFile(path, _form_name(name), size, texts.read(path, found)))


def _form_name(name: str) -> str:
    """The name as a multipart form preserves it, since texts are matched by it: no quotes, no control characters."""
    readable = name.encode("utf-8", "replace").decode()
    return re.sub(r'[\x00-\x1f\x7f"\\]', "_", readable)[-MAX_NAME_CHARACTERS:]


class _TextFiles:
    """Finds and reads the text beside an image; a folder is listed once."""

    def __init__(self, root: Path | None, encoding: str | None) -> None:
        self._root, self._encoding = root, encoding
        self._folders: dict[Path, dict[str, list[Path]]] = {}

    def read(self, image: Path, found: ScanResult) -> str | None:
        """None if there is none, or if it cannot be read, which is noted."""
        try:
            files = self._beside(image)
        except OSError as error:
            found.unreadable.append((image.name, f"its folder cannot be listed for a text ({error.strerror})"))
            return None
        if not files:
            return None
        first, *others = files
        found.unreadable += [(file.name, f"{first.name} is the text of {image.name}") for file in others]
        try:
            return decode_text(read_regular(first, MAX_TEXT_BYTES), self._encoding).text.strip()
        except (OSError, Rejected) as error:
            reason = error.detail if isinstance(error, Rejected) else error.strerror or "it cannot be read"
            found.unreadable.append((first.name, f"{reason}, so {image.name} has no text"))
        return None

    def _beside(self, image: Path) -> list[Path]:
        """The text files with the stem of an image, the one that counts first."""
        if image.parent not in self._folders:
            by_stem: defaultdict[str, list[Path]] = defaultdict(list)
            for file in sorted(image.parent.iterdir()):
                if file.suffix.lower() in TEXT_SUFFIXES and not _links_outside(file, self._root):
                    by_stem[file.stem].append(file)
            self._folders[image.parent] = by_stem
        return sorted(self._folders[image.parent].get(image.stem, ()), key=lambda file: _rank(file.suffix))


def _rank(suffix: str) -> int:
    return TEXT_SUFFIXES.index(suffix.lower())
