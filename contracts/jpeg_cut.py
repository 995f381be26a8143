"""Takes a JPEG apart without decoding it: what shows the picture, and what else was in the file, so that both give the
file again.

Kept: tables, frame, scans, a JFIF header without thumbnail, Adobe's APP14 (they say what the numbers mean as colours),
and of all metadata one number: the orientation, as the smallest EXIF segment. Cut: every other APPn segment (EXIF, XMP,
IPTC, profiles, previews), comments, padding, and whatever follows the end of the picture.

Markers and segments: ITU-T T.81 annex B, JFIF 1.02, EXIF 2.32. Pure: bytes in, bytes out.
"""

import re
from collections.abc import Iterator
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta

MAX_SEGMENTS = 4096
"""A file with more is not taken apart: photographs have below 100, most of them scans or parts of a profile."""
MAX_SOURCE_BYTES = 1 << 26

_SOI, _EOI = b"\xff\xd8", 0xD9
_SCAN, _COMMENT, _JFIF, _ADOBE = 0xDA, 0xFE, 0xE0, 0xEE
_FRAMES = {0xC0, 0xC1, 0xC2, 0xC9, 0xCA}  # baseline, extended, progressive; the last two are arithmetic
_TABLES = {0xC4, 0xCC, 0xDB, 0xDC, 0xDD}  # Huffman, arithmetic conditioning, quantisation, lines, restart interval
_APPLICATIONS = range(0xE0, 0xF0)
_JFIF_BYTES, _ADOBE_BYTES = 16, 14  # lengths of the segments without thumbnail, and without anything private
_PADDING = re.compile(rb"\xff+")
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # within a scan FF00 is data and FFD0-FFD7 restart it
UPRIGHT, _MAX_ORIENTATION = 1, 8

Count = Annotated[int, Meta(ge=0, le=MAX_SOURCE_BYTES)]


class NotRebuildable(ValueError):
    """The cut does not belong to this picture, or is damaged."""


class TakenApart(NamedTuple):
    """`picture`: a JPEG that shows the same pixels. `cut`: the rest, for `rebuild`; none if `picture` is the source."""

    picture: bytes
    cut: bytes | None


class _Piece(msgspec.Struct, frozen=True, array_like=True):
    """Of the source: `keep` bytes as in the picture, then `insert`, where the picture has `skip` other bytes."""

    keep: Count
    skip: Count
    insert: bytes


class _Cut(msgspec.Struct, frozen=True, array_like=True):
    size: Count
    pieces: Annotated[tuple[_Piece, ...], Meta(max_length=3 * MAX_SEGMENTS)]


class Span(NamedTuple):
    """The bytes from `start` to `end` of a picture, or of what was cut from it."""

    of: Literal["picture", "cut"]
    start: int
    end: int


class _Edit(NamedTuple):
    """In the picture, `replacement` stands for the source's bytes from `start` to `end`."""

    start: int
    end: int
    replacement: bytes = b""


class _Segment(NamedTuple):
    """`padding`: where its padding starts; `start`: its marker's FF; of a scan, `end` is that of its data."""

    marker: int
    padding: int
    start: int
    end: int


class _Unusual(Exception):
    """Nothing that can safely be taken apart."""


def take_apart(source: bytes, orientation: int) -> TakenApart | None:
    """None: it is no JPEG of the usual kinds, is cut off, or has bytes that belong to no segment.

    `orientation`: 1 to 8 as in EXIF, to be kept unless it is 1.
    """
    try:
        edits = list(_edits(source, _minimal_exif(orientation)))
    except _Unusual:
        return None
    if not edits:
        return TakenApart(source, None)
    picture, pieces, at = bytearray(), [], 0
    for start, end, replacement in edits:
        picture += source[at:start] + replacement
        pieces.append(_Piece(start - at, len(replacement), source[start:end]))
        at = end
    picture += source[at:]
    pieces.append(_Piece(len(source) - at, 0, b""))
    return TakenApart(bytes(picture), msgspec.msgpack.encode(_Cut(len(source), tuple(pieces))))


def kept_orientation(head: bytes) -> int:
    """1 to 8, of a picture that was taken apart, by its first 64 bytes or more; 1 for any other file."""
    for at in (len(_SOI), len(_SOI) + 2 + _JFIF_BYTES):
        for orientation in range(UPRIGHT + 1, _MAX_ORIENTATION + 1):
            if head.startswith(_SOI) and head.startswith(_minimal_exif(orientation), at):
                return orientation
    return UPRIGHT


def source_spans(picture_bytes: int, cut: bytes) -> list[Span]:
    """Of which bytes the source is made, in order: ascending in the picture, of `picture_bytes`, and in the cut.

    NotRebuildable; whether it is the right source, only its digest says.
    """
    try:
        plan = msgspec.msgpack.decode(cut, type=_Cut)
    except msgspec.DecodeError as error:
        raise NotRebuildable("what was cut from the picture is damaged") from error
    spans: list[Span] = []
    at = in_cut = size = 0
    for piece in plan.pieces:
        found = cut.find(piece.insert, in_cut)  # wherever it is found first, the bytes are these
        in_cut = found + len(piece.insert)
        spans += Span("picture", at, at + piece.keep), Span("cut", found, in_cut)
        at += piece.keep + piece.skip
        size += piece.keep + len(piece.insert)
    if at != picture_bytes or size != plan.size:
        raise NotRebuildable("what was cut does not belong to this picture")
    return [span for span in spans if span.end > span.start]


def rebuild(picture: bytes, cut: bytes) -> bytes:
    """The source. NotRebuildable."""
    contents = {"picture": memoryview(picture), "cut": memoryview(cut)}
    return b"".join(contents[span.of][span.start : span.end] for span in source_spans(len(picture), cut))


def _edits(source: bytes, exif: bytes) -> Iterator[_Edit]:
    end = len(_SOI)
    frames = scans = 0
    for segment in _segments(source):
        if segment.start > segment.padding:
            yield _Edit(segment.padding, segment.start)
        content = source[segment.start : segment.end] if segment.marker in _APPLICATIONS else b""
        is_jfif = segment.marker == _JFIF and content[4:9] == b"JFIF\0"
        if exif and not (is_jfif and segment.padding == len(_SOI)):  # behind the first JFIF header, as readers expect
            if content != exif:
                yield _Edit(segment.start, segment.start, exif)
            exif, content = b"", b"" if content == exif else content
            if segment.marker in _APPLICATIONS and not content:
                end = segment.end
                continue
        yield from _edit(segment, content, is_jfif=is_jfif)
        frames += segment.marker in _FRAMES
        scans += segment.marker == _SCAN
        end = segment.end
    if frames != 1 or not scans:
        raise _Unusual
    if end < len(source):
        yield _Edit(end, len(source))


def _edit(segment: _Segment, content: bytes, *, is_jfif: bool) -> Iterator[_Edit]:
    """What becomes of one segment; nothing where it stays."""
    _, _, start, end = segment
    length = end - start - 2
    if is_jfif:
        if length < _JFIF_BYTES:
            raise _Unusual
        if length > _JFIF_BYTES or content[-2:] != b"\0\0":
            plain = b"\xff\xe0" + _JFIF_BYTES.to_bytes(2, "big") + content[4:16] + b"\0\0"
            yield _Edit(start, end, plain)
    elif segment.marker == _ADOBE and content[4:9] == b"Adobe":
        if length != _ADOBE_BYTES:
            raise _Unusual
    elif segment.marker in _APPLICATIONS or segment.marker == _COMMENT:
        yield _Edit(start, end)


def _segments(source: bytes) -> Iterator[_Segment]:
    """The segments from the first after SOI to EOI."""
    if not source.startswith(_SOI) or len(source) > MAX_SOURCE_BYTES:
        raise _Unusual
    at = len(_SOI)
    for _ in range(MAX_SEGMENTS):
        padding = _PADDING.match(source, at)
        if padding is None or padding.end() >= len(source):
            raise _Unusual
        start, marker = padding.end() - 1, source[padding.end()]
        end = padding.end() + 1
        if marker != _EOI:
            end = _end_of(source, marker, end)
        yield _Segment(marker, at, start, end)
        if marker == _EOI:
            return
        at = end
    raise _Unusual


def _end_of(source: bytes, marker: int, at: int) -> int:
    if marker not in _FRAMES | _TABLES | {_SCAN, _COMMENT} and marker not in _APPLICATIONS:
        raise _Unusual
    length = int.from_bytes(source[at : at + 2], "big")
    if length < 2 or at + length > len(source):
        raise _Unusual
    if marker != _SCAN:
        return at + length
    found = _NEXT_MARKER.search(source, at + length)
    if found is None:
        raise _Unusual
    return found.start()


def _minimal_exif(orientation: int) -> bytes:
    """An APP1 segment with this tag alone (0x0112, SHORT, big-endian); empty for 1, which is what readers assume."""
    if not UPRIGHT < orientation <= _MAX_ORIENTATION:
        return b""
    tag = b"\x01\x12\0\x03\0\0\0\x01" + orientation.to_bytes(2, "big") + b"\0\0"
    body = b"Exif\0\0MM\0*\0\0\0\x08\0\x01" + tag + bytes(4)
    return b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body
