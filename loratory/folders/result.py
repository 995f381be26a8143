"""What is in a folder: its pictures, each with all that belongs to it, and every other file with a reason."""

from dataclasses import dataclass, field
from pathlib import Path

from loratory.folders.files import Source
from loratory.folders.texts import NO_TEXTS, Texts

LINK_OUTSIDE = "it is a link out of the folder"


@dataclass(frozen=True)
class ImageFile:
    """A picture. `repeats`: none where nothing says so.

    `name`: its path inside the root, as a form preserves it; in an export of ours, the name that its image had.

    `digest`: its sha256 in hexadecimal, where that was needed.
    """

    source: Source
    name: str
    texts: Texts = NO_TEXTS
    repeats: int | None = None
    mask: Source | None = None
    digest: str | None = None

    @property
    def size(self) -> int:
        return self.source.size

    @property
    def path(self) -> Path:
        """Of a file on this machine; of a member, its name in the zip file."""
        return Path(self.source.label)

    @property
    def is_gone(self) -> bool:
        """A file of this machine that is not there any more."""
        return self.path.is_absolute() and not self.path.exists()

    @property
    def text(self) -> str | None:
        """That of a file, of which it is not known whether it is tags or a caption."""
        return self.texts.text


@dataclass
class ScanResult:
    """The files of a folder. `unreadable`: name and reason, of images and texts left out.

    `unmatched`: text files that belong to no image; `links`: images that are links out of the folder; `others`: files
    that are no images and no texts, with the reason. `notes`: sentences about what folders and files were taken for.
    """

    images: list[ImageFile] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    unmatched: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    others: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def other_files(self) -> int:
        return len(self.others)

    @property
    def outside_links(self) -> int:
        return len(self.links)
