"""The messages between the pool and its children: first that a child is ready, then a result for each request."""

import msgspec

from catalog.ingest.outcomes import MaskInfo, PictureInfo, Refused
from contracts.wire.system.pipe import Frames

MAX_FRAME_BYTES = 1 << 16
RULES = 3
"""Version of the rules by which pictures and thumbnails are made. 2: thumbnails were encoded with more effort, in which
WebP spends 8 ms instead of 3 for 3 % less. 1: as 2, and JPEGs were encoded again like other formats (before
`dataset.image_added` had `cut`)."""


class DecoderReady(msgspec.Struct, frozen=True, tag="ready"):
    """The child is ready: Pillow is loaded, its limits are set."""


class Examine(msgspec.Struct, frozen=True, kw_only=True, tag="examine"):
    """Examine the file `source`; write `thumbnail`, and `picture` unless the source can be used as it is.

    From a JPEG whose pixels need not change, the rest is cut, and written to `cut`. `rules`: 1 to `RULES`.
    """

    source: str
    picture: str
    thumbnail: str
    cut: str
    rules: int


class ExamineMask(msgspec.Struct, frozen=True, kw_only=True, tag="examine-mask"):
    """Examine the file `source`, the mask of a picture of `width` x `height` pixels, and write it to `mask`: upright,
    in grey, as a PNG."""

    source: str
    mask: str
    width: int
    height: int


class DecodingFailed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """The file at `path` could not be read or written: an error of the machine (errno), not of the picture."""

    errno: int
    message: str
    path: str


Request = Examine | ExamineMask
Result = PictureInfo | MaskInfo | Refused | DecodingFailed
REQUESTS: Frames[Request] = Frames(Request, MAX_FRAME_BYTES)
READY: Frames[DecoderReady] = Frames(DecoderReady, MAX_FRAME_BYTES)
RESULTS: Frames[Result] = Frames(Result, MAX_FRAME_BYTES)
