"""The results of examining a staged file: the picture's properties, or a refusal with its reason."""

from pathlib import Path
from typing import Annotated, Literal, get_args

import msgspec
from msgspec import Meta

from contracts.ids import Digest
from contracts.pixels import ColourConversion

Format = Literal["JPEG", "PNG", "WEBP", "AVIF", "BMP", "GIF", "TIFF"]
"""The formats we read, by Pillow's names. HEIC and JPEG XL need plugins with native decoders of their own."""

FORMATS: tuple[Format, ...] = get_args(Format)

Reason = Literal[
    "empty",
    "not-a-file",
    "changed",
    "too-large",
    "unknown-format",
    "too-many-pixels",
    "too-long-side",
    "too-narrow",
    "unsupported-pixels",
    "broken",
    "took-too-long",
    "too-much-memory",
    "decoder-crashed",
    "other-size",
]

PositiveInt = Annotated[int, Meta(gt=0)]


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits on one file. Dimensions and memory are checked from the header, before any pixel is decoded.

    `max_bytes`: size of the file. `max_pixels`: width x height; 64 million is a 9248 x 6920 photograph. `max_side`:
    pixels; more than WebP can hold (16,383) is of no use to a bucket. `max_aspect`: longer side over shorter.
    `cpu_seconds`, `cpu_seconds_per_mb`: CPU time of the child for one file, and in addition for each megabyte of it:
    so a small file can cost little, and a busy machine accepts what an idle one does. (A slow machine is given more:
    see `decoder.py`.) `hang_seconds`: wall clock, for a
    child that waits for something. `memory_bytes`: resident memory of one child; what a picture will take is estimated
    (`memory.py`), and the kernel enforces it with some more (`contracts.wire.system.child_limits`). The bounds are
    checked when this is decoded, at the latest by the child.
    """

    max_bytes: PositiveInt = 64 << 20
    max_pixels: PositiveInt = 64_000_000
    max_side: PositiveInt = 16_384
    max_aspect: PositiveInt = 32
    cpu_seconds: Annotated[float, Meta(gt=0)] = 2.0
    cpu_seconds_per_mb: Annotated[float, Meta(ge=0)] = 0.5
    hang_seconds: Annotated[float, Meta(gt=0)] = 300.0
    memory_bytes: Annotated[int, Meta(ge=64 << 20)] = 512 << 20

    def cpu_seconds_of(self, size: int) -> float:
        """CPU time that a file of `size` bytes may take."""
        return self.cpu_seconds + self.cpu_seconds_per_mb * min(size, self.max_bytes) / 1e6


class PictureInfo(msgspec.Struct, frozen=True, kw_only=True, tag="examined"):
    """The properties of an accepted file.

    `width`, `height`: of the upright picture, in pixels. `bytes`, `sha256`: of the source as received.
    `pixels_sha256`: of the picture's pixels whatever the encoding (see `examine.pixels_digest`), to find duplicates.
    `dhash`: 64-bit difference hash, 16 hex digits; near duplicates differ in few bits.
    `animated`: the source has more frames than the first, which is the one used.
    `source_is_picture`: the source itself is sRGB, 8-bit and bare, so the picture's bytes are the source's.
    `cut_sha256`: what was cut from a JPEG (`contracts.jpeg_cut`); its picture with that gives the source again.
    """

    format: Format
    width: int
    height: int
    bytes: int
    sha256: Digest
    picture_bytes: int
    picture_sha256: Digest
    pixels_sha256: Digest
    dhash: str
    thumbnail_bytes: int
    thumbnail_sha256: Digest
    animated: bool
    colour: ColourConversion
    source_is_picture: bool
    cut_sha256: Digest | None = None


class Accepted(PictureInfo, frozen=True, kw_only=True):
    """The properties, and the paths of the picture (possibly the source itself), a WebP thumbnail of ≤ 256 px, and what
    was cut."""

    picture_path: Path
    thumbnail_path: Path
    cut_path: Path | None = None


class MaskInfo(msgspec.Struct, frozen=True, kw_only=True, tag="mask"):
    """The properties of the mask that was made of an accepted file: a PNG of one channel of 8 bits."""

    bytes: int
    sha256: Digest


class AcceptedMask(MaskInfo, frozen=True, kw_only=True):
    """The properties, and the path of the mask."""

    path: Path


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag="refused"):
    """Why a file is refused: a stable code, and a sentence for people (never with text from the file)."""

    reason: Reason
    detail: str


Outcome = Accepted | Refused


class UnusableFile(Exception):
    """Raised inside the child to refuse the file."""

    def __init__(self, reason: Reason, detail: str) -> None:
        self.refused = Refused(reason=reason, detail=detail)
        super().__init__(reason)
