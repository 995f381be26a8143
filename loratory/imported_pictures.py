"""What a folder's pictures were when they were imported, kept so that a restart sends nothing twice.

And so that an image which was removed from the data set does not come back, as long as its file does not change.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import msgspec

from contracts.wire.system.files import write_atomically
from loratory.image_files import ImageFile
from loratory.snapshot import Signature, Snapshot

State = tuple[Signature | None, str | None]
"""Of a picture: its signature, and the sha256 of its text, or of all that came with it.

Texts are private, and this file is not encrypted.
"""


class _Content(msgspec.Struct, frozen=True):
    log: str
    pictures: dict[str, State]


class ImportedPictures:
    """By path. `file` none: only as long as this process runs.

    A file of another log, as after a restore, or one that cannot be read counts as none: all is imported again.
    """

    def __init__(self, file: Path | None = None, log: str = "") -> None:
        self._file, self._log = file, log
        self._pictures = self._read()

    def __len__(self) -> int:
        return len(self._pictures)

    def are_new(self, images: Iterable[ImageFile], now: Snapshot) -> list[ImageFile]:
        """Those that were not imported as they are now."""
        return [image for image in images if self._pictures.get(str(image.path)) != _state(image, now)]

    def add(self, images: Iterable[ImageFile], now: Snapshot) -> None:
        self._change({str(image.path): _state(image, now) for image in images})

    def set_texts(self, texts: Iterable[tuple[Path, str]]) -> None:
        """What stands beside these pictures now, and was received already."""
        self._change(
            {
                str(path): (self._pictures[str(path)][0], _digest(text))
                for path, text in texts
                if str(path) in self._pictures
            }
        )

    def _change(self, states: dict[str, State]) -> None:
        self._pictures |= states
        if states and self._file is not None:
            self._file.parent.mkdir(exist_ok=True)
            write_atomically(self._file, msgspec.json.encode(_Content(self._log, self._pictures)))

    def _read(self) -> dict[str, State]:
        try:
            content = msgspec.json.decode(self._file.read_bytes() if self._file else b"", type=_Content)
        except (FileNotFoundError, msgspec.DecodeError):
            return {}
        return content.pictures if content.log == self._log else {}


def _state(image: ImageFile, now: Snapshot) -> State:
    texts, mask = image.texts, None if image.mask is None else now.get(image.mask.label)
    if image.repeats is None and mask is None and not (texts.caption or texts.tags):
        return now.get(str(image.path)), None if image.text is None else _digest(image.text)
    return now.get(str(image.path)), _digest(repr((texts, image.repeats, mask)))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
