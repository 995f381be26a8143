"""One pass over a listing: what is taken already, and what was said about the rest."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TypeVar

from contracts.errors import Rejected
from loratory.folders.files import File, Listing, read_all
from loratory.folders.places import HERE
from loratory.folders.result import ScanResult

T = TypeVar("T")


@dataclass
class Reading:
    """`used`: the places of files that are taken or named already."""

    listing: Listing
    found: ScanResult = field(default_factory=ScanResult)
    used: set[PurePosixPath] = field(default_factory=set)

    def unused(self) -> list[File]:
        return [file for file in self.listing.files if file.place not in self.used]

    def unused_at_root(self, suffix: str) -> list[File]:
        return [file for file in self.unused() if file.place.parent == HERE and file.suffix == suffix and file.is_named]

    def parse(self, file: File, max_bytes: int, parser: Callable[[bytes], T | None]) -> T | None:
        """None: it is a file of another kind; or it cannot be read, which is noted."""
        try:
            content = read_all(file, max_bytes)
            if len(content) > max_bytes:
                raise ValueError(f"it is larger than {max_bytes >> 20} MiB")
            return parser(content)
        except (OSError, ValueError) as error:
            self.refuse(file, reason_of(error))
        return None

    def refuse(self, file: File, reason: str) -> None:
        self.used.add(file.place)
        self.found.unreadable.append((file.name, reason))


def reason_of(error: Exception) -> str:
    """What to say about a file that cannot be read."""
    match error:
        case Rejected():
            return error.detail
        case OSError():
            return error.strerror or "it cannot be read"
        case _:
            return str(error)
