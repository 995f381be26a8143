"""A manifest of an export of ours: what the texts of its pictures were, before they became files. Pure.

A picture is found by its sha256. Where the text beside it is still the one that was exported, its tags and its caption
are those of the manifest; a text that was changed since counts as it is.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from contracts.ids import Digest
from loratory.folders.texts import Texts

MAX_LINE_BYTES = 1 << 20


class Line(msgspec.Struct, frozen=True):
    """As `gateway.exports.layout.ImageLine` writes it."""

    picture: Digest
    source: Digest | None
    tags: tuple[str, ...]
    caption: str | None
    training_text: str
    erased: bool = False


@dataclass
class Manifest:
    """The lines by the digests of their pictures."""

    lines: dict[Digest, Line] = field(default_factory=dict)

    def texts(self, digest: Digest, beside: Texts | None) -> Texts | None:
        """Of the picture with this sha256; none if it is not in it, or if another text is beside it."""
        line = self.lines.get(digest)
        if line is None or (beside is not None and not _is_unchanged(line, beside)):
            return None
        return Texts(caption=line.caption, tags=line.tags)


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
            manifest.lines |= {digest: line for digest in (line.picture, line.source) if digest is not None}
    return manifest
