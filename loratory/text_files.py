"""The text files beside the pictures of a folder: finding an image's, and writing it only if nobody has changed it.

A text file may be replaced if it says what the server received last for its image. What is written is imported as text
afterwards (`loratory.write_texts`), and is what the server received last from then on. So no list of written files is
needed here, and what somebody changes in such a file arrives with the next import.
"""

import hashlib
import os
import stat
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from contracts.errors import Rejected
from contracts.image_names import image_name, last_part
from contracts.texts.decoding import MAX_TEXT_BYTES, decode_text
from contracts.wire.system.files import open_atomically
from contracts.wire.system.regular_files import check_regular, open_regular, read_regular
from loratory.image_files import TEXT_SUFFIXES, ScanResult

TextSuffix = Literal[".txt", ".caption"]
NEWER = "its text file was changed since it was imported: import the folder first"


class NotWritten(Exception):
    """Why the text of an image is not written: a sentence without the name."""


@dataclass(frozen=True)
class TextFile:
    """`content` as it stands there, with its line ends; `text`: what an import reads. `status`: none if it is new."""

    path: Path
    content: str = ""
    text: str = ""
    status: os.stat_result | None = None

    @property
    def digest(self) -> str | None:
        """None if there is no file yet."""
        return None if self.status is None else hashlib.sha256(self.text.encode()).hexdigest()


class PictureFolder:
    """The pictures of a folder by the names that their images have on the server, and the text files beside them.

    A name is a path; but images that were imported from another folder, or by an older version, which kept the last
    part only, are found by that.
    """

    def __init__(self, folder: Path, scan: ScanResult, encoding: str | None = None) -> None:
        self._root, self._encoding = folder.resolve(), encoding
        self._by_name: defaultdict[str, list[Path]] = defaultdict(list)
        self._by_last_part: defaultdict[str, list[Path]] = defaultdict(list)
        for image in scan.images:
            name = image_name(image.name)
            self._by_name[name].append(image.path)
            self._by_last_part[last_part(name)].append(image.path)
        self._pictures_of = Counter(image.path.with_suffix("") for image in scan.images)
        self._texts_in: dict[Path, dict[str, list[Path]]] = {}

    def candidates(self, name: str) -> Sequence[Path]:
        """The pictures that an image of this name may be; none if it is from elsewhere."""
        return self._by_name.get(name, self._by_last_part.get(last_part(name), []))

    def picture(self, name: str, source: str | None) -> Path:
        """The one with these bytes. NotWritten: there is none, or more than one."""
        same = [path for path in self.candidates(name) if _sha256(path) == source]
        if not same:
            raise NotWritten("the file of this name is another picture, or was changed")
        if len(same) > 1:
            places = ", ".join(path.relative_to(self._root).as_posix() for path in same)
            raise NotWritten(f"the folder has this picture more than once: {places}")
        return same[0]

    def text_file(self, picture: Path, extension: TextSuffix) -> TextFile:
        """The text file of a picture as an import finds it, or a new one. NotWritten: it cannot be read."""
        found = self._texts(picture.parent).get(picture.stem)
        if not found:
            return TextFile(picture.with_suffix(extension))
        path = found[0]
        try:
            status = check_regular(path, follow_links=False)
            content = read_regular(path, MAX_TEXT_BYTES, follow_links=False)
            decoded = decode_text(content, self._encoding)
        except OSError as error:
            raise NotWritten(f"{path.name} cannot be written: {error.strerror}") from error
        except Rejected as error:
            raise NotWritten(f"{path.name} cannot be read: {error.detail}") from error
        return TextFile(path, content.decode(decoded.encoding), decoded.text.strip(), status)

    def write(self, picture: Path, file: TextFile, text: str) -> None:
        """Replaces the file, as a whole, if it is still the one that was read. NotWritten: it is not, or cannot be."""
        if self._pictures_of[picture.with_suffix("")] > 1:
            raise NotWritten(f"{file.path.name} is the text of more than one picture")
        if not file.path.parent.resolve().is_relative_to(self._root):
            raise NotWritten("its folder is a link out of the folder by now")
        mode = 0o666 if file.status is None else stat.S_IMODE(file.status.st_mode)
        try:
            with open_atomically(file.path, mode=mode) as out:
                out.write(_with_line_ends_of(file.content, text).encode())
                _check_unchanged(file)
        except OSError as error:
            raise NotWritten(f"{file.path.name} cannot be written: {error.strerror}") from error
        if file.status is None:
            self._texts(picture.parent).setdefault(picture.stem, []).append(file.path)

    def _texts(self, folder: Path) -> dict[str, list[Path]]:
        """The text files of a folder by stem, the one that counts first."""
        if folder not in self._texts_in:
            by_stem: defaultdict[str, list[Path]] = defaultdict(list)
            for file in sorted(folder.iterdir()):
                if file.suffix.lower() in TEXT_SUFFIXES:
                    by_stem[file.stem].append(file)
            for files in by_stem.values():
                files.sort(key=lambda file: TEXT_SUFFIXES.index(file.suffix.lower()))
            self._texts_in[folder] = by_stem
        return self._texts_in[folder]


def may_replace(file: TextFile, received: str | None) -> bool:
    """Is it new, or does it say what was received last (a digest)?"""
    return file.digest in {None, received}


def _check_unchanged(file: TextFile) -> None:
    try:
        now = file.path.lstat()
    except FileNotFoundError:
        now = None
    if _identity(now) != _identity(file.status):
        raise NotWritten(NEWER)


def _identity(status: os.stat_result | None) -> object:
    return status and (status.st_ino, status.st_size, status.st_mtime_ns)


def _with_line_ends_of(content: str, text: str) -> str:
    """An empty text is an empty line: sd-scripts refuses an empty file."""
    line_end = "\r\n" if "\r\n" in content else "\n"
    ends_with_one = content.endswith(("\r", "\n")) or not text
    return text.replace("\n", line_end) + (line_end if ends_with_one else "")


def _sha256(path: Path) -> str:
    """Empty if it cannot be read."""
    try:
        digest = hashlib.sha256()
        with open_regular(path) as content:
            while chunk := content.read(1 << 20):
                digest.update(chunk)
    except OSError:
        return ""
    return digest.hexdigest()
