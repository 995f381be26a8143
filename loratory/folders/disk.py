"""Lists a folder on this machine, or chosen files and what is beside them."""

import os
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from contracts.errors import SetupError
from contracts.wire.system.regular_files import FileChanged, SteadyReader, check_regular, open_regular
from loratory.folders.files import MAX_FOLDER_FILES, File, Listing


@dataclass(frozen=True)
class DiskFile:
    """A regular file, with the size that it had when it was listed."""

    path: Path
    size: int

    @property
    def label(self) -> str:
        return str(self.path)

    def open(self) -> SteadyReader:
        reader = open_regular(self.path)
        if reader.size != self.size:
            reader.close()
            raise FileChanged(0, "it changed while it was read", self.label)
        return reader


def list_folder(folder: Path) -> Listing:
    """All files under a folder; hidden folders and links to folders are not entered. SetupError: too many files."""
    root = folder.resolve()
    listing = Listing(root=root.name)
    for number, path in enumerate(_walk(root, listing)):
        if number >= MAX_FOLDER_FILES:
            raise SetupError(f"{root} contains more than {MAX_FOLDER_FILES} files; import it in parts")
        name = path.relative_to(root).as_posix()
        if _links_outside(path, root):
            listing.links.append(name)
        else:
            _add(listing, path, PurePosixPath(name), name)
    return listing


def list_files(files: Sequence[Path]) -> Listing:
    """These files, named by file name, or by path inside the folder of all if two share one; and those beside them.

    SetupError: one is missing.
    """
    for file in files:
        if file.is_dir() or not (file.exists() or file.is_symlink()):
            raise SetupError(f"there is no file {file}")
    names = _names(files)
    listing, chosen = Listing(), {file.as_posix() for file in files}
    for file, name in zip(files, names, strict=True):
        _add(listing, file, _place(file), name)
    for folder in dict.fromkeys(file.parent for file in files):
        try:
            beside = sorted(path for path in folder.iterdir() if path.as_posix() not in chosen)
        except OSError as error:
            named = next(file.name for file in files if file.parent == folder)
            listing.bad.append((named, f"its folder cannot be listed for a text ({error.strerror})"))
            continue
        for path in beside:
            _add(listing, path, _place(path), path.name, is_named=False)
    return listing


def _names(files: Sequence[Path]) -> list[str]:
    """Without the place of their folder on this machine."""
    names = [file.name for file in files]
    if len(set(names)) == len(names):
        return names
    places = [posixpath.normpath(_place(file)) for file in files]
    folder = posixpath.commonpath([posixpath.dirname(place) for place in places])
    return [posixpath.relpath(place, folder) for place in places]


def _place(path: Path) -> PurePosixPath:
    """Absolute, so that no folder is at the top of anything."""
    return PurePosixPath(path.absolute().as_posix())


def _walk(root: Path, listing: Listing) -> Iterator[Path]:
    def note(error: OSError) -> None:
        place = Path(os.fsdecode(error.filename)).relative_to(root).as_posix()
        listing.bad.append((f"{place}/", error.strerror or "it cannot be listed"))

    for parent, folders, files in os.walk(root, followlinks=False, onerror=note):
        here = Path(parent)
        for name in sorted(folders):
            place = f"{(here / name).relative_to(root).as_posix()}/"
            if name.startswith("."):
                listing.others.append((place, "it is hidden"))
            elif (here / name).is_symlink():
                listing.others.append((place, "it is a link to a folder, which is not followed"))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (here / name for name in sorted(files))


def _add(listing: Listing, path: Path, place: PurePosixPath, name: str, *, is_named: bool = True) -> None:
    try:
        size = check_regular(path).st_size
    except OSError as error:
        if is_named:
            listing.bad.append((name, error.strerror or "it cannot be read"))
        return
    listing.files.append(File(place, DiskFile(path, size), name, is_named))


def _links_outside(path: Path, root: Path) -> bool:
    """Is it a symbolic link to a file outside the folder?"""
    if not path.is_symlink():
        return False
    try:
        return not path.resolve().is_relative_to(root)
    except (OSError, RuntimeError):  # a link that leads to itself (Python 3.11 raises RuntimeError); it is named later
        return False
