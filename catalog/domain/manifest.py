"""A frozen version as bytes: one JSON line an image, its caption sealed. Pure; the same lines are the same bytes."""

from collections.abc import Iterable, Sequence

import msgspec

from contracts.errors import LoratoryError
from contracts.events import Sealed
from contracts.ids import Digest, ImageId
from contracts.tags import render


class ManifestLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a job sees of one image: `width` and `height` of the picture in pixels, `caption` sealed as "caption".

    `written`: somebody wrote the caption, so it is private; else it is joined from tags, which are not.
    """

    ordinal: int
    image: ImageId
    picture: Digest
    caption: Sealed
    width: int
    height: int
    written: bool = False


class BadManifest(LoratoryError):
    """The manifest cannot be read."""

    code = "bad-manifest"


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(ManifestLine)


def encode(lines: Sequence[ManifestLine]) -> bytes:
    """The manifest's bytes, lines in the order of their ordinals; sealed bytes stand as base64."""
    return _encoder.encode_lines(sorted(lines, key=lambda line: line.ordinal))


def decode(content: bytes) -> list[ManifestLine]:
    """The lines again; BadManifest for bytes that are none."""
    try:
        return _decoder.decode_lines(content)
    except msgspec.DecodeError as error:
        raise BadManifest(f"the manifest cannot be read: {error}") from error


def joined(tags: Iterable[str]) -> str:
    """The caption of an image nobody wrote one for: its tags, as captions write them."""
    return ", ".join(render(tag) for tag in tags)
