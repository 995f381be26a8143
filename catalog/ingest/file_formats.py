"""Inspects a file's container without decoding pixels: which format is it, and does it hold more than its pixels?"""

from catalog.ingest.outcomes import Format
from contracts.jpeg_cut import UPRIGHT, take_apart

_MAGIC: dict[bytes, Format] = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",  # BigTIFF, with 64-bit offsets
    b"MM\0+": "TIFF",
}

# What a bare file may contain. Colour chunks without names or dates (sRGB, gAMA, cHRM, pHYs) do no harm and most
# encoders write them; everything else (text, EXIF, XMP, ICC, animation, private chunks) makes it not bare.
_PNG_PIXELS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"sRGB", b"gAMA", b"cHRM", b"pHYs"}
_WEBP_PIXELS = {b"VP8 ", b"VP8L", b"VP8X", b"ALPH"}


def sniff(data: bytes) -> Format | None:
    """The format by the file's first bytes; its name is ignored."""
    for magic, file_format in _MAGIC.items():
        if data.startswith(magic):
            return file_format
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP"
    return "AVIF" if _is_avif(data) else None


def _is_avif(data: bytes) -> bool:
    if data[4:8] != b"ftyp":
        return False
    brands = data[8 : min(int.from_bytes(data[:4], "big"), 256)]  # major, version, then the compatible ones
    return any(brands[at : at + 4] in (b"avif", b"avis") for at in range(0, len(brands), 4) if at != 4)


def is_bare(data: bytes, file_format: Format) -> bool:
    """Whether it holds one picture of at most 8 bits and nothing else: no metadata, no frames, nothing after its end.

    If in doubt, False: then the picture is encoded again, which is always correct.
    """
    match file_format:
        case "PNG":
            return _is_bare_png(data)
        case "JPEG":
            return _is_bare_jpeg(data)
        case "WEBP":
            return _is_bare_webp(data)
    return False


def _is_bare_png(data: bytes) -> bool:
    depth, at, kind = data[24:25], 8, b""
    while kind != b"IEND" and at + 12 <= len(data):
        kind = data[at + 4 : at + 8]
        if kind not in _PNG_PIXELS:
            return False
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    return kind == b"IEND" and at == len(data) and depth <= b"\x08"


def _is_bare_webp(data: bytes) -> bool:
    at = 12
    while at + 8 <= len(data):
        if data[at : at + 4] not in _WEBP_PIXELS:
            return False
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        at += 8 + length + length % 2
    return at == len(data) == 8 + int.from_bytes(data[4:8], "little")


def _is_bare_jpeg(data: bytes) -> bool:
    apart = take_apart(data, UPRIGHT)
    return apart is not None and apart.cut is None
