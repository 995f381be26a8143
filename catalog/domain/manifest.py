"""A frozen version as bytes: one JSON line per image, its caption sealed. Pure; equal lines give equal bytes."""

from collections.abc import Iterable, Sequence

import msgspec

from contracts.errors import LoratoryError
from contracts.events.base import Sealed
from contracts.ids import Digest, ImageId
from contracts.tags import render


class ManifestLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One image of a version: `width` and `height` of the picture in pixels, `caption` sealed as "caption".

    `written`: the caption was written by a person, so it is private; otherwise it was joined from tags, which are not.
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
    """The manifest's bytes, lines in the order of their ordinals; sealed bytes are base64."""
    return _encoder.encode_lines(sorted(lines, key=lambda line: line.ordinal))


def decode(content: bytes) -> list[ManifestLine]:
    """Inverse of `encode`; BadManifest for invalid bytes."""
    try:
        return _decoder.decode_lines(content)
    except msgspec.DecodeError as error:
        raise BadManifest(f"the manifest cannot be read: {error}") from error


def caption_from_tags(tags: Iterable[str]) -> str:
    """The caption of an image without a written one: its tags, rendered as in captions."""
    return ", ".join(render(tag) for tag in tags)
