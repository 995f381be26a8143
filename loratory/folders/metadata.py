"""Files with the texts of many pictures: metadata of imagefolders and of kohya's trainers."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from loratory.folders import imagefolder, kohya_metadata
from loratory.folders.files import File, read_lines
from loratory.folders.places import Pictures
from loratory.folders.reading import Reading, reason_of
from loratory.folders.texts import Texts

MAX_NAMED_ROWS = 20
_RANK = {"meta_lat.json": 0, "meta_cap.json": 2}
"""Kohya writes the tags that it has cleaned last into the first; other names stand between them."""


@dataclass
class Metadata:
    """The texts of pictures, by place, each with the name of the file that has them; of several the first counts."""

    reading: Reading
    pictures: Pictures
    encoding: str | None
    texts: dict[PurePosixPath, tuple[str, Texts]] = field(default_factory=dict)

    def read(self, stems: Collection[PurePosixPath], first: Collection[str]) -> None:
        """`stems`: of pictures, whose JSON files are their own; `first`: names of kohya's files that come first."""
        candidates = [file for file in self.reading.unused() if file.is_named]
        for file in candidates:
            if file.place.name.lower() in imagefolder.FILE_NAMES:
                self.reading.used.add(file.place)
                self._add(file, self._rows(file))

        def rank(file: File) -> tuple[bool, int, str]:
            return file.place.name not in first, _RANK.get(file.place.name, 1), file.name

        for file in sorted(candidates, key=rank):
            if file.suffix == ".json" and file.stem not in stems:
                self._read_kohya(file)

    def _read_kohya(self, file: File) -> None:
        entries = self.reading.parse(file, kohya_metadata.MAX_METADATA_BYTES, kohya_metadata.parse_metadata)
        if entries is None:
            return
        self.reading.used.add(file.place)
        notes: list[str] = []
        self._add(file, kohya_metadata.match_entries(entries, self.pictures, file.place.parent, notes))
        self.reading.found.notes += [f"{file.name}: {note}" for note in notes]

    def _add(self, file: File, texts: Iterable[tuple[PurePosixPath, Texts]]) -> None:
        """What is wrong with single texts is named; other texts for pictures that have one are counted."""
        different = 0
        for place, one in texts:
            self.reading.found.unreadable += [(f"{file.name} ({place})", problem) for problem in one.problems]
            known = self.texts.setdefault(place, (file.name, one))[1]
            different += known != one
        if different:
            self.reading.found.notes.append(
                f"{file.name}: {different} of its texts differ from other ones for the same image, which count"
            )

    def _rows(self, file: File) -> Iterator[tuple[PurePosixPath, Texts]]:
        lines = read_lines(file, imagefolder.MAX_LINE_BYTES)
        is_csv = file.suffix == ".csv"
        rows = imagefolder.read_csv(lines, self.encoding) if is_csv else imagefolder.read_jsonl(lines)
        problems: list[tuple[str, str]] = []
        try:
            for row in rows:
                place = None if row.problem else self.pictures.exactly(row.file_name, file.place.parent)
                if place is not None:
                    yield place, row.texts
                else:
                    problem = row.problem or f"{row.file_name!r} is no image here"
                    problems.append((f"{file.name}, line {row.line}", problem))
        except OSError as error:
            problems.append((file.name, reason_of(error)))
        if len(problems) > MAX_NAMED_ROWS:
            more = len(problems) - MAX_NAMED_ROWS
            problems[MAX_NAMED_ROWS:] = [(file.name, f"and {more} more of its lines are not used")]
        self.reading.found.unreadable += problems
