"""Selecting the images of a folder, a zip file or a list of files, with all that belongs to them, for an import."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from contracts.commands.datasets import MAX_FILES_PER_IMPORT
from contracts.errors import SetupError
from loratory.folders.archive import list_archive
from loratory.folders.disk import list_files, list_folder
from loratory.folders.files import MAX_FOLDER_FILES
from loratory.folders.names import IMAGE_SUFFIXES, TEXT_SUFFIXES
from loratory.folders.result import ImageFile, ScanResult
from loratory.folders.scan import MAX_IMAGE_BYTES, scan

__all__ = [
    "IMAGE_SUFFIXES",
    "MAX_BATCH_BYTES",
    "MAX_FOLDER_FILES",
    "MAX_IMAGE_BYTES",
    "TEXT_SUFFIXES",
    "ImageFile",
    "ScanResult",
    "batches",
    "is_archive",
    "scan_archive",
    "scan_files",
    "scan_folder",
]

MAX_BATCH_BYTES = 256 << 20


def is_archive(path: Path) -> bool:
    """Is it a zip file, by its name?"""
    return path.suffix.lower() in {".zip", ".cbz"} and not path.is_dir()


def scan_folder(folder: Path, encoding: str | None = None) -> ScanResult:
    """All images under a folder, sorted by name; hidden folders and symbolic links to folders are skipped.

    `encoding` of the texts beside them; none: it is found (`contracts.texts.decoding`). SetupError if the folder does
    not exist, is not a folder, or contains no images.
    """
    if not folder.is_dir():
        raise SetupError(f"{folder} is not a folder" if folder.exists() else f"there is no folder {folder}")
    return _not_empty(scan(list_folder(folder), encoding), f"the folder {folder}")


def scan_archive(file: Path, encoding: str | None = None) -> ScanResult:
    """All images in a zip file, as in a folder of the same content. SetupError if it is none, or has no images."""
    if not file.is_file():
        raise SetupError(f"there is no file {file}")
    return _not_empty(scan(list_archive(file, encoding), encoding), f"the zip file {file}")


def scan_files(files: Sequence[Path], encoding: str | None = None) -> ScanResult:
    """These files, named by file name, or by path if two share one. SetupError: one is missing.

    A text or a mask is read if it is beside its image, whether it is named or not.
    """
    return scan(list_files(files), encoding)


def batches(images: Iterable[ImageFile]) -> Iterator[list[ImageFile]]:
    """Split into requests of at most MAX_FILES_PER_IMPORT files and MAX_BATCH_BYTES bytes, masks included.

    In none is a name twice: texts and masks are matched by it.
    """
    batch: list[ImageFile] = []
    names: set[str] = set()
    files = size = 0
    for image in images:
        sizes = [image.size, *([image.mask.size] if image.mask else [])]
        is_full = files + len(sizes) > MAX_FILES_PER_IMPORT or size + sum(sizes) > MAX_BATCH_BYTES
        if batch and (is_full or image.name in names):
            yield batch
            batch, names, files, size = [], set(), 0, 0
        batch.append(image)
        names.add(image.name)
        files, size = files + len(sizes), size + sum(sizes)
    if batch:
        yield batch


def _not_empty(found: ScanResult, what: str) -> ScanResult:
    if found.images:
        return found
    is_empty = not (found.unreadable or found.unmatched or found.links or found.others)
    reasons = "; ".join(f"{name}: {reason}" for name, reason in found.unreadable[:3])
    problem = "is empty" if is_empty else "contains no images"
    raise SetupError(f"{what} {problem}" + (f" that can be imported ({reasons})" if reasons else ""))
