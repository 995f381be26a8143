"""The text file beside a picture: the one with its stem, of which the first extension counts."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import PurePosixPath

from contracts.errors import Rejected
from contracts.texts.decoding import MAX_TEXT_BYTES, decode_text
from loratory.folders import ai_toolkit
from loratory.folders.files import File, read_all
from loratory.folders.names import TEXT_SUFFIXES
from loratory.folders.reading import reason_of
from loratory.folders.texts import Texts


class Sidecars:
    """Of all pictures. What is not used of them is added to `unreadable`, with the reason."""

    def __init__(
        self, files: Iterable[File], extensions: Iterable[str], encoding: str | None, unreadable: list[tuple[str, str]]
    ) -> None:
        """`extensions`: of texts, besides the usual ones."""
        self._encoding, self._unreadable = encoding, unreadable
        self._suffixes = (*dict.fromkeys((*TEXT_SUFFIXES, *extensions)), ".json")
        self._by_stem: defaultdict[PurePosixPath, list[File]] = defaultdict(list)
        for file in files:
            if file.suffix in self._suffixes:
                self._by_stem[file.stem].append(file)

    def of(self, picture: File, extension: str | None = None) -> list[File]:
        """The files beside a picture, the one that counts first; `extension`: that is preferred."""

        def rank(file: File) -> tuple[bool, int]:
            return file.suffix != extension, self._suffixes.index(file.suffix)

        return sorted(self._by_stem.get(picture.stem, ()), key=rank)

    def is_text(self, file: File) -> bool:
        """Has it an extension that only texts have?"""
        return file.suffix in self._suffixes[:-1]

    def read(self, picture: File, files: list[File]) -> Texts | None:
        """None if there is none, or if it cannot be read, which is noted."""
        if not files:
            return None
        first, *others = files
        self._unreadable += [(file.name, f"{first.name} is the text of {picture.name}") for file in others]
        try:
            return self._parse(first)
        except (OSError, ValueError, Rejected) as error:
            self._unreadable.append((first.name, f"{reason_of(error)}, so {picture.name} has no text"))
        return None

    def _parse(self, file: File) -> Texts | None:
        if file.suffix != ".json":
            return Texts(text=decode_text(read_all(file, MAX_TEXT_BYTES), self._encoding).text.strip())
        content = read_all(file, ai_toolkit.MAX_JSON_BYTES)
        if len(content) > ai_toolkit.MAX_JSON_BYTES:
            raise ValueError(f"it is larger than {ai_toolkit.MAX_JSON_BYTES >> 20} MiB")
        texts = ai_toolkit.parse_json(content)
        if texts is None:
            raise ValueError("it has no caption, text or tags")
        self._unreadable += [(file.name, problem) for problem in texts.problems]
        return texts
