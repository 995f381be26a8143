"""An export of ours: what the texts of its pictures were, before they became files. Pure.

Lines are those of a manifest, or in the `export.json` of a zip file. A line is of the picture at its `file`, or without
one, of those with its sha256. Where the text beside a picture is still the one that was exported, its tags and its
caption are those of the line; a text that was changed since counts as it is.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import msgspec

from contracts.ids import Digest
from loratory.folders.kohya_folders import Subset, parse_name
from loratory.folders.texts import Texts

MAX_LINE_BYTES = 1 << 20


class Line(msgspec.Struct, frozen=True):
    """As `gateway.exports.layout.ImageLine` writes it. `name`: that of the image, a path; empty if it is unknown."""

    picture: Digest
    source: Digest | None
    tags: tuple[str, ...]
    caption: str | None
    training_text: str
    erased: bool = False
    repeats: int = 1
    file: str = ""
    name: str = ""


@dataclass
class Manifest:
    """Its lines, by file and by the digests of their pictures."""

    by_file: dict[PurePosixPath, Line] = field(default_factory=dict)
    by_digest: dict[Digest, Line] = field(default_factory=dict)

    def add(self, line: Line) -> None:
        if line.file:
            self.by_file[PurePosixPath(line.file)] = line
        else:
            self.by_digest |= {digest: line for digest in (line.picture, line.source) if digest is not None}

    def find(self, place: PurePosixPath, digest: Digest | None) -> Line | None:
        """That of the picture at this place, or with this sha256."""
        return self.by_file.get(place) or (self.by_digest.get(digest) if digest is not None else None)


def exported_texts(line: Line, beside: Texts | None) -> Texts | None:
    """None if another text is beside the picture now."""
    if beside is not None and not _is_unchanged(line, beside):
        return None
    return Texts(caption=line.caption, tags=line.tags)


def exported_repeats(line: Line, subset: Subset | None) -> int | None:
    """Those of the image, where its folder still has the number that it was exported with."""
    exported = parse_name(PurePosixPath(line.file).parent.name)
    if subset is None or (isinstance(exported, Subset) and exported.repeats == subset.repeats):
        return line.repeats if subset is not None or line.repeats > 1 else None
    return subset.repeats


def _is_unchanged(line: Line, beside: Texts) -> bool:
    if beside.tags and beside.tags != line.tags:
        return False
    text = beside.text or beside.caption
    return bool(beside.tags) if text is None else text.strip() == line.training_text.strip()


def read_manifest(lines: Iterable[tuple[int, bytes | None]]) -> Manifest | None:
    """None: it is another file of JSON lines."""
    manifest, decode = Manifest(), msgspec.json.Decoder(Line).decode
    for _, content in lines:
        if content is None:
            return None
        if not content.strip():
            continue
        try:
            line = decode(content)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        if not line.erased:
            manifest.add(line)
    return manifest


class Summary(msgspec.Struct, frozen=True):
    """An `export.json`; one that was written by an older version has no `files`."""

    origin: dict[str, object]
    trigger: str = ""
    files: list[Line] = []


def read_summary(content: bytes) -> tuple[str, Manifest] | None:
    """The trigger of the texts, and the lines. None: it is another JSON file. ValueError: it is no JSON."""
    try:
        summary = msgspec.json.decode(content, type=Summary)
    except msgspec.ValidationError:
        return None
    manifest = Manifest()
    for line in summary.files:
        manifest.add(line)
    return summary.trigger, manifest
