"""Lists a zip file, whose members are read as a stream: nothing is unpacked.

Names and sizes come from whoever made the file. Each member is bounded by itself and all together, and what could lead
out of the archive or cannot be read is named.
"""

import io
import os
import re
import stat
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, cast
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipExtFile, ZipFile, ZipInfo

from contracts.errors import SetupError
from contracts.wire.system.regular_files import SteadyReader, open_regular
from loratory.folders.files import MAX_FOLDER_FILES, File, Listing

MAX_MEMBER_BYTES = 64 << 20
MAX_TOTAL_BYTES = 256 << 30
"""Maximum size of all members, unpacked: they are read one after another, so this bounds time, not memory."""
MAX_RATIO = 200
"""Maximum ratio of a member's size to its compressed size, above `RATIO_FREE_BYTES`. Deflate reaches 1032."""
RATIO_FREE_BYTES = 1 << 20
MAX_DIRECTORY_BYTES = 32 << 20
MIN_HEADER_BYTES = 30
"""Of a member, in front of its name."""

_ENTRY = b"PK\x01\x02"
"""What each entry of a directory begins with."""
_ENCRYPTED, _UTF8 = 0x1, 0x800
_SUPPORTED = {ZIP_STORED, ZIP_DEFLATED}


class DamagedMember(OSError):
    """A member cannot be unpacked: `strerror` says why."""

    strerror: str


class _BoundedFile:
    """The zip file. `zipfile` reads a directory at once and keeps all of it, so its size is checked before."""

    def __init__(self, file: SteadyReader) -> None:
        self._file = file
        self.seek, self.tell, self.seekable, self.close = file.seek, file.tell, file.seekable, file.close

    def read(self, size: int = -1) -> bytes:
        length = self._file.size - self._file.tell() if size < 0 else size
        if length > MAX_DIRECTORY_BYTES:
            raise BadZipFile(f"its directory is larger than {MAX_DIRECTORY_BYTES >> 20} MiB")
        content = self._file.read(length)
        if content.count(_ENTRY) > MAX_FOLDER_FILES:
            raise BadZipFile(f"it contains more than {MAX_FOLDER_FILES} files; import it in parts")
        return content


@dataclass(frozen=True)
class Member:
    """A file in an archive that stays open."""

    archive: ZipFile
    info: ZipInfo
    label: str

    @property
    def size(self) -> int:
        return self.info.file_size

    def open(self) -> "MemberReader":
        return MemberReader(self)


class MemberReader(io.RawIOBase):
    """Reads a member from its beginning, and again after `seek(0)`. DamagedMember, also where its checksum is wrong."""

    def __init__(self, member: Member) -> None:
        self.size = member.size
        self._member = member
        self._at = 0
        self._opened: ZipExtFile | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Only to the beginning, and to the end to learn the size."""
        self._close_member()
        self._at = self.size if whence == os.SEEK_END else offset
        return self._at

    def read(self, size: int = -1) -> bytes:
        if self._at >= self.size:
            return b""
        try:
            if self._opened is None:
                if self._at:
                    raise io.UnsupportedOperation("a member of a zip file is read from its beginning")
                self._opened = cast(ZipExtFile, self._member.archive.open(self._member.info))
            content = self._opened.read(self.size - self._at if size < 0 else min(size, self.size - self._at))
        except (BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
            raise self._damaged(str(error)) from error
        if not content:
            raise self._damaged("it ends too early")
        self._at += len(content)
        return content

    def close(self) -> None:
        self._close_member()
        super().close()

    def _close_member(self) -> None:
        if self._opened is not None:
            self._opened.close()
        self._opened = None

    def _damaged(self, why: str) -> DamagedMember:
        return DamagedMember(0, f"it is damaged in the archive ({why})", self._member.label)


def list_archive(path: Path, encoding: str | None = None) -> Listing:
    """The members of a zip file. SetupError: it is none, or is not what it says. It stays open as long as its members.

    `encoding`: of names that are not said to be UTF-8, as older programs write them.
    """
    try:
        archive = ZipFile(cast(IO[bytes], _BoundedFile(open_regular(path))))
    except OSError as error:
        raise SetupError(f"{path} cannot be read: {error.strerror}") from error
    except (BadZipFile, NotImplementedError, ValueError) as error:
        raise SetupError(f"{path} is not a zip file that can be read: {error}") from error
    members = [info for info in archive.infolist() if not info.orig_filename.endswith("/")]
    _check_bounds(path, members)
    listing, found = Listing(root=path.stem), dict[str, ZipInfo]()
    for info in members:
        name = _name(info, encoding)
        reason = "another file of the archive has its name" if name in found else _objection(info, name)
        if reason is not None:
            listing.bad.append((name, reason))
        elif any(part.startswith(".") for part in name.split("/")) or name.startswith("__MACOSX/"):
            listing.others.append((name, "it is hidden"))
        else:
            found[name] = info
    top = _only_folder(found)
    if top:
        listing.root = top.rstrip("/")
    for name in sorted(found):
        inside = name.removeprefix(top)
        listing.files.append(File(PurePosixPath(inside), Member(archive, found[name], name), inside))
    return listing


def _check_bounds(path: Path, members: list[ZipInfo]) -> None:
    if sum(info.file_size for info in members) > MAX_TOTAL_BYTES:
        raise SetupError(f"{path} unpacks to more than {MAX_TOTAL_BYTES >> 30} GiB; import it in parts")
    if any(_overlaps(members)):
        raise SetupError(f"{path} is not read: files in it overlap, as in a zip bomb")


def _overlaps(members: list[ZipInfo]) -> Iterator[bool]:
    """Python checks this from 3.11.8 on."""
    end = 0
    for info in sorted(members, key=lambda one: one.header_offset):
        yield info.header_offset < end
        end = info.header_offset + MIN_HEADER_BYTES + info.compress_size


def _name(info: ZipInfo, encoding: str | None) -> str:
    """With slashes. Without the flag for UTF-8 a name is read as UTF-8 if it is valid, else in the named encoding."""
    name = info.orig_filename
    if not info.flag_bits & _UTF8:
        content = name.encode("cp437")
        for candidate in ("utf-8", encoding):
            try:
                name = content.decode(candidate) if candidate else name
                break
            except UnicodeDecodeError:
                continue
    return name.partition("\0")[0].replace("\\", "/")


def _objection(info: ZipInfo, name: str) -> str | None:
    """Why a member is not read."""
    if not name or name.startswith("/") or re.match(r"[A-Za-z]:", name) or ".." in name.split("/"):
        return "its path leads out of the archive"
    if stat.S_IFMT(mode := info.external_attr >> 16) not in {0, stat.S_IFREG}:
        return "it is a link" if stat.S_ISLNK(mode) else "it is no regular file"
    if info.flag_bits & _ENCRYPTED:
        return "it is encrypted"
    if info.compress_type not in _SUPPORTED:
        return f"it is compressed by method {info.compress_type}, which is not read; use deflate"
    return _size_objection(info)


def _size_objection(info: ZipInfo) -> str | None:
    if info.file_size > MAX_MEMBER_BYTES:
        return f"it is larger than {MAX_MEMBER_BYTES >> 20} MiB"
    if info.file_size > max(RATIO_FREE_BYTES, MAX_RATIO * info.compress_size):
        return f"it unpacks to more than {MAX_RATIO} times its size, as a zip bomb does"
    return None


def _only_folder(names: dict[str, ZipInfo]) -> str:
    """The folder, with a slash, in which everything is; empty: there is none."""
    tops = {name.partition("/")[0] + "/" for name in names}
    top = next(iter(tops), "")
    return top if len(tops) == 1 and all(name.startswith(top) for name in names) else ""
