"""Hostile and odd files, the same in each run: small bytes that lie, loop, ask for much, or are merely unusual.

Each has a name and what must become of it: `taken`, `refused`, or `any` where both would be right.
"""

import struct
import zlib
from collections.abc import Iterator
from io import BytesIO
from itertools import count
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image

from tests.contracts.test_pixels import display_p3

Expected = Literal["taken", "refused", "any"]
KINDS = ("JPEG", "PNG", "WEBP", "AVIF", "BMP", "GIF", "TIFF")
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
HUGE = 0x7FFFFFFF


class HostileFile(NamedTuple):
    name: str
    content: bytes
    expected: Expected


def hostile_files() -> Iterator[HostileFile]:
    """All of them, with distinct names."""
    groups = (_no_pictures, _cut_off, _huge, _polyglots, _pngs, _jpegs, _exifs, _gifs, _tiffs, _webps, _bmps, _profiles)
    for group in groups:
        for name, content, expected in group():
            yield HostileFile(f"{group.__name__.strip('_')}: {name}", content, expected)


Entries = Iterator[tuple[str, bytes, Expected]]


def draw(mode: str = "RGB", size: tuple[int, int] = (64, 48)) -> Image.Image:
    width, height = size
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    return Image.fromarray(np.stack([x * 3, y * 4, (x * y) % 256], axis=-1).astype(np.uint8)).convert(mode)


def encode(kind: str, mode: str = "RGB", size: tuple[int, int] = (64, 48), **options: Any) -> bytes:
    content = BytesIO()
    draw(mode, size).save(content, kind, **options)
    return content.getvalue()


def chunk(kind: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def header(width: int, height: int, depth: int = 8, colour: int = 2, interlace: int = 0) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace))


def rows(width: int = 8, height: int = 8, bytes_per_pixel: int = 3) -> bytes:
    return zlib.compress(b"".join(b"\0" + bytes(width * bytes_per_pixel) for _ in range(height)))


def png(*chunks: bytes, start: bytes = b"", data: bytes | None = None) -> bytes:
    content = chunk(b"IDAT", rows() if data is None else data)
    return PNG_MAGIC + (start or header(8, 8)) + b"".join(chunks) + content + chunk(b"IEND")


def segment(marker: int, body: bytes) -> bytes:
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(body) + 2) + body


def in_jpeg(*segments: bytes, source: bytes = b"") -> bytes:
    source = source or encode("JPEG")
    return source[:2] + b"".join(segments) + source[2:]


def replaced(content: bytes, old: bytes, new: bytes) -> bytes:
    assert old in content
    return content.replace(old, new, 1)


def _no_pictures() -> Entries:
    yield "empty", b"", "refused"
    magic = {
        "jpeg": b"\xff\xd8\xff",
        "png": PNG_MAGIC,
        "gif": b"GIF89a",
        "bmp": b"BM",
        "tiff": b"II*\0",
        "tiff, big": b"II+\0",
        "webp": b"RIFF\x10\0\0\0WEBP",
        "avif": b"\0\0\0\x1cftypavif\0\0\0\0avif",
        "heic": b"\0\0\0\x18ftypheic\0\0\0\0heic",
        "jxl": b"\xff\x0a",
        "jxl box": b"\0\0\0\x0cJXL \r\n\x87\n",
        "psd": b"8BPS\0\1",
        "ico": b"\0\0\1\0\1\0",
        "pdf": b"%PDF-1.7\n",
        "zip": b"PK\3\4",
        "gzip": b"\x1f\x8b\x08\0",
        "elf": b"\x7fELF\2\1\1",
        "mp4": b"\0\0\0\x18ftypmp42",
        "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "html": b"<!doctype html><script>alert(1)</script>",
        "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "xbm": b"#define a_width 9\n",
        "ppm": b"P6 99999 99999 255\n",
        "text": "写真".encode(),
        "wmf": b"\xd7\xcd\xc6\x9a",
        "fits": b"SIMPLE  =",
        "tga": b"\0\0\2",
    }
    for name, start in magic.items():
        yield f"only the start of {name}", start, "refused"
        yield f"{name} and zeros", start + bytes(4096), "refused"
    yield "zeros", bytes(1000), "refused"
    yield "ones", b"\xff" * 1000, "refused"


def _cut_off() -> Entries:
    for kind in KINDS:
        whole = encode(kind)
        for at in (3, 12, 26, len(whole) // 4, len(whole) // 2, len(whole) - 9):
            yield f"{kind} after {at} bytes", whole[:at], "any" if at == len(whole) - 9 else "refused"
        yield f"{kind} with a hole", whole[:30] + whole[60:], "any"
        yield f"{kind} with zeros in the middle", whole[: len(whole) // 2] + bytes(len(whole) // 2), "any"


def _huge() -> Entries:
    """Sizes in headers of small files."""
    sides = ((65535, 65535), (30000, 30000), (1, 65000), (16385, 10), (0, 0))
    for width, height in sides:
        size = f"{width} x {height}"
        yield f"PNG {size}", png(start=header(width, height)), "refused"
        yield f"JPEG {size}", _jpeg_of(width, height), "refused"
        yield (
            f"GIF {size}",
            replaced(encode("GIF"), struct.pack("<HH", 64, 48), struct.pack("<HH", width, height)),
            "any",
        )
        yield (
            f"BMP {size}",
            replaced(encode("BMP"), struct.pack("<ii", 64, 48), struct.pack("<ii", width, height)),
            "refused",
        )
        yield f"TIFF {size}", _tiff_of(width, height), "refused"
        yield (
            f"AVIF {size}",
            replaced(encode("AVIF"), struct.pack(">II", 64, 48), struct.pack(">II", width, height)),
            "refused",
        )
        yield f"WebP canvas {size}", _extended_webp(max(1, width), max(1, height), encode("WEBP")[12:]), "refused"
    for width, height in ((HUGE, HUGE), (HUGE, 1), (1, HUGE)):
        yield f"PNG {width} x {height}", png(start=header(width, height)), "refused"
        yield (
            f"BMP {width} x {height}",
            replaced(encode("BMP"), struct.pack("<ii", 64, 48), struct.pack("<ii", width, height)),
            "refused",
        )
    yield (
        "BMP of negative sides",
        replaced(encode("BMP"), struct.pack("<ii", 64, 48), struct.pack("<ii", -64, -48)),
        "refused",
    )
    lossy, lossless = encode("WEBP", quality=50), encode("WEBP", lossless=True)
    yield (
        "WebP lossy 16383 x 16383",
        replaced(lossy, struct.pack("<HH", 64, 48), struct.pack("<HH", 16383, 16383)),
        "refused",
    )
    bits = struct.pack("<I", 63 | 47 << 14)
    yield "WebP lossless 16384 x 16384", replaced(lossless, bits[:3], struct.pack("<I", 0x0FFFFFFF)[:3]), "refused"
    yield "PNG 8000 x 8000 of nothing", png(start=header(8000, 8000), data=zlib.compress(b"")), "refused"
    yield "PNG 8000 x 8000 of zeros", png(start=header(8000, 8000, colour=0), data=_zeros(8001 * 8000)), "taken"
    yield "PNG of more rows than it says", png(data=_zeros(64 << 20)), "any"


def _zeros(size: int) -> bytes:
    compressor = zlib.compressobj(9)
    return b"".join(compressor.compress(bytes(1 << 20)) for _ in range(size >> 20)) + compressor.compress(
        bytes(size & 0xFFFFF)
    ) + compressor.flush()  # fmt: skip


def _jpeg_of(width: int, height: int, source: bytes = b"") -> bytes:
    return replaced(source or encode("JPEG"), struct.pack(">HH", 48, 64), struct.pack(">HH", height, width))


def _polyglots() -> Entries:
    tails = {
        "zip": b"PK\3\4" + bytes(30),
        "html": b"<script>alert(1)</script>",
        "jpeg": encode("JPEG"),
        "zeros": bytes(100_000),
    }
    for kind in KINDS:
        for name, tail in tails.items():
            yield f"{kind} and then {name}", encode(kind) + tail, "taken"
        yield f"text before {kind}", b"GIF" + encode(kind), "refused"


def _pngs() -> Entries:
    bomb = _zeros(64 << 20)
    yield "bomb in zTXt", png(chunk(b"zTXt", b"a\0\0" + bomb)), "any"
    yield "bomb in iTXt", png(chunk(b"iTXt", b"a\0\1\0\0\0" + bomb)), "any"
    yield "bomb in iCCP", png(chunk(b"iCCP", b"a\0\0" + bomb)), "any"
    yield "thousands of texts", png(*[chunk(b"tEXt", b"k%d\0v" % number) for number in range(20_000)]), "any"
    yield "20 MB of text", png(chunk(b"tEXt", b"k\0" + b"v" * (20 << 20))), "any"
    data = rows()
    pieces = b"".join(chunk(b"IDAT", data[at : at + 1]) for at in range(len(data)))
    yield "a byte in each IDAT", PNG_MAGIC + header(8, 8) + pieces + chunk(b"IEND"), "taken"
    yield (
        "empty IDATs",
        PNG_MAGIC + header(8, 8) + chunk(b"IDAT") * 50_000 + chunk(b"IDAT", data) + chunk(b"IEND"),
        "any",
    )
    yield "wrong checksums", png()[:-4] + b"\0\0\0\0", "any"
    yield (
        "wrong checksum of the header",
        PNG_MAGIC + header(8, 8)[:-4] + bytes(4) + png()[len(PNG_MAGIC) + 25 :],
        "refused",
    )
    yield "chunk longer than the file", PNG_MAGIC + header(8, 8) + struct.pack(">I", HUGE) + b"tEXt", "refused"
    yield "chunk of negative length", PNG_MAGIC + header(8, 8) + b"\xff\xff\xff\xfftEXt", "refused"
    yield "two headers", png(header(16, 16)), "any"
    yield "no end", png()[:-12], "any"
    yield "data after the end", png() + chunk(b"IDAT", data), "taken"
    yield "no data", PNG_MAGIC + header(8, 8) + chunk(b"IEND"), "refused"
    yield "data that is not zlib", png(data=b"not zlib at all"), "refused"
    yield "filter that does not exist", png(data=zlib.compress(b"\x09" + bytes(24)) * 1), "refused"
    yield "palette is missing", png(start=header(8, 8, colour=3), data=rows(bytes_per_pixel=1)), "refused"
    yield (
        "palette of 300",
        png(chunk(b"PLTE", bytes(900)), start=header(8, 8, colour=3), data=rows(bytes_per_pixel=1)),
        "any",
    )
    for depth, colour in (
        (1, 0),
        (2, 0),
        (4, 0),
        (16, 0),
        (16, 2),
        (8, 4),
        (16, 4),
        (16, 6),
        (3, 0),
        (8, 1),
        (8, 7),
        (0, 0),
    ):
        valid = (depth, colour) not in ((3, 0), (8, 1), (8, 7), (0, 0))
        wide = zlib.compress(b"".join(b"\0" + bytes(8 * 8) for _ in range(8)))
        yield (
            f"depth {depth}, colour {colour}",
            png(start=header(8, 8, depth, colour), data=wide),
            "any" if valid else "refused",
        )
    for gamma in (0, 1, 0xFFFFFFFF):
        yield f"gamma {gamma}", png(chunk(b"gAMA", struct.pack(">I", gamma))), "taken"
    yield "transparency of nothing", png(chunk(b"tRNS", b"")), "any"
    yield "transparency too long", png(chunk(b"tRNS", bytes(999))), "any"
    yield "animation without frames", png(chunk(b"acTL", struct.pack(">II", HUGE, 0))), "any"
    yield "animation of 3000 frames", _animation(3000), "taken"
    yield "interlaced", png(start=header(8, 8, interlace=1)), "any"


def _animation(frames: int) -> bytes:
    numbers, parts = count(), []
    for number in range(frames):
        parts.append(chunk(b"fcTL", struct.pack(">IIIIIHHBB", next(numbers), 8, 8, 0, 0, 1, 10, 0, 0)))
        parts.append(chunk(b"fdAT", struct.pack(">I", next(numbers)) + rows()) if number else chunk(b"IDAT", rows()))
    control = chunk(b"acTL", struct.pack(">II", frames, 0))
    return PNG_MAGIC + header(8, 8) + control + b"".join(parts) + chunk(b"IEND")


def _jpegs() -> Entries:
    progressive = encode("JPEG", "L", (300, 300), progressive=True)
    scan = progressive[progressive.rfind(b"\xff\xda") : -2]
    for scans in (10, 1000):
        yield f"{scans} scans more", progressive[:-2] + scan * scans + progressive[-2:], "any"
    yield "thousands of comments", in_jpeg(*[segment(0xFE, b"c%d" % number) for number in range(20_000)]), "any"
    yield "16 MB of metadata", in_jpeg(*[segment(0xE7, bytes(65_000)) for _ in range(250)]), "taken"
    yield "padding of a megabyte", in_jpeg(b"\xff" * (1 << 20)), "any"
    whole = encode("JPEG")
    frame = whole.index(b"\xff\xc0")
    for marker in (0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCF):
        yield f"frame of kind {marker:x}", whole[:frame] + bytes([0xFF, marker]) + whole[frame + 2 :], "any"
    for bits in (1, 12, 16, 255):
        yield f"{bits} bits", whole[: frame + 4] + bytes([bits]) + whole[frame + 5 :], "refused"
    for components in (0, 2, 4, 255):
        yield f"{components} components", whole[: frame + 9] + bytes([components]) + whole[frame + 10 :], "any"
    yield "sampling 4 x 4", whole[: frame + 11] + b"\x44" + whole[frame + 12 :], "any"
    yield "sampling 0 x 0", whole[: frame + 11] + b"\x00" + whole[frame + 12 :], "refused"
    yield "two frames", whole[:frame] + whole[frame : frame + 19] + whole[frame:], "any"
    yield "no tables", whole[: whole.index(b"\xff\xdb")] + whole[frame:], "any"
    yield "quantisation by zero", _without_quantisation(whole), "any"
    yield "restarts everywhere", in_jpeg(segment(0xDD, b"\0\1"), source=whole), "any"
    yield "second start", whole[:2] + whole, "any"
    yield "no end", whole[:-2], "any"
    yield "a second JPEG in it (MPO)", whole + encode("JPEG", size=(96, 64)), "taken"
    for mode in ("L", "CMYK"):
        yield f"mode {mode}", encode("JPEG", mode), "taken"
    for transform in (0, 1, 2, 9):
        yield f"Adobe transform {transform}", in_jpeg(segment(0xEE, b"Adobe\0\x64\0\0\0\0" + bytes([transform]))), "any"


def _without_quantisation(whole: bytes) -> bytes:
    at = whole.index(b"\xff\xdb") + 5
    return whole[:at] + bytes(64) + whole[at + 64 :]


def _ifd(entries: list[tuple[int, int, int, bytes]], following: int = 0) -> bytes:
    body = b"".join(
        struct.pack("<HHI", tag, kind, number) + value[:4].ljust(4, b"\0") for tag, kind, number, value in entries
    )
    return struct.pack("<H", len(entries)) + body + struct.pack("<I", following)


def _short(value: int) -> bytes:
    return struct.pack("<H", value)


def _exifs() -> Entries:
    start = b"II*\0" + struct.pack("<I", 8)
    broken = {
        "that loops": start + _ifd([(0x0112, 3, 1, _short(6))], following=8),
        "that lies about its size": start + struct.pack("<H", 65535),
        "of a value of 4 GB": start + _ifd([(0x010E, 2, 0xFFFFFFFF, b"\xff\xff\xff\xff")]),
        "of a value outside": start + _ifd([(0x010E, 2, 99, struct.pack("<I", 0x7FFFFFFF))]),
        "of an IFD that holds itself": start
        + _ifd([(0x8769, 4, 1, struct.pack("<I", 8)), (0x8825, 4, 1, struct.pack("<I", 8))]),
        "of an unknown type": start + _ifd([(0x0112, 99, 1, _short(6))]),
        "with a fraction by zero": start + _ifd([(0x011A, 5, 1, struct.pack("<I", 26))]) + bytes(8),
        "of 4000 tags": start + _ifd([(number, 3, 1, _short(1)) for number in range(4000)]),
        "that is empty": b"",
        "that is text": b"this is not EXIF",
    }
    for name, exif in broken.items():
        yield f"JPEG with an EXIF {name}", in_jpeg(segment(0xE1, b"Exif\0\0" + exif[:65_000])), "taken"
        yield f"PNG with an EXIF {name}", png(chunk(b"eXIf", exif)), "taken"
    for orientation in (0, 9, 255, 65535):
        exif = start + _ifd([(0x0112, 3, 1, _short(orientation))])
        yield f"orientation {orientation}", in_jpeg(segment(0xE1, b"Exif\0\0" + exif)), "taken"
    xmp = b"http://ns.adobe.com/xap/1.0/\0"
    entities = b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">' + b"".join(
        b'<!ENTITY %c "%s">' % (98 + number, b"&%c;" % (97 + number) * 10) for number in range(9)
    )
    yield "XMP of a billion laughs", in_jpeg(segment(0xE1, xmp + entities + b"]><x>&j;</x>")), "taken"
    yield "XMP that is not XML", in_jpeg(segment(0xE1, xmp + b"<" * 60_000)), "taken"


def _gifs() -> Entries:
    whole = encode("GIF")
    yield "10,000 frames", _gif(b"".join(_gif_frame() for _ in range(10_000))), "taken"
    yield "a frame outside", _gif(_gif_frame(left=60_000, top=60_000)), "any"
    yield "a frame of 65535 x 65535", _gif(_gif_frame(width=65535, height=65535)), "refused"
    yield "no frame", _gif(b""), "refused"
    yield "data that is no LZW", _gif(_gif_frame(data=b"\x08\xff" + b"\xff" * 255 + b"\0")), "any"
    yield "code size 99", _gif(_gif_frame(data=b"\x63\2\x44\1\0")), "any"
    yield "20,000 comments", _gif(b"\x21\xfe\1a\0" * 20_000 + _gif_frame()), "any"
    yield "a comment without end", _gif(b"\x21\xfe" + (b"\xff" + b"c" * 255) * 2_000), "refused"
    yield "unknown blocks", _gif(b"\x99" * 5000 + _gif_frame()), "any"
    yield "87a", whole.replace(b"GIF89a", b"GIF87a"), "taken"
    yield "no end", whole[:-1], "any"
    yield "disposal 7", _gif(b"\x21\xf9\4\x1c\0\0\0\0" + _gif_frame()), "taken"
    yield "transparent", encode("GIF", "P", transparency=3), "taken"


def _gif(blocks: bytes) -> bytes:
    return b"GIF89a" + struct.pack("<HHBBB", 8, 8, 0x80, 0, 0) + bytes(6) + blocks + b";"


def _gif_frame(left: int = 0, top: int = 0, width: int = 1, height: int = 1, data: bytes = b"\2\2\x44\1\0") -> bytes:
    return b"\x2c" + struct.pack("<HHHHB", left, top, width, height, 0) + data


def _tiff_of(width: int, height: int, *more: tuple[int, int, int, bytes], following: int = 0) -> bytes:
    number = struct.pack("<I", 0)
    entries = [
        (256, 4, 1, struct.pack("<I", width)),
        (257, 4, 1, struct.pack("<I", height)),
        (258, 3, 1, _short(8)),
        (259, 3, 1, _short(1)),
        (262, 3, 1, _short(1)),
        (273, 4, 1, struct.pack("<I", 8)),
        (278, 4, 1, struct.pack("<I", max(1, height))),
        (279, 4, 1, struct.pack("<I", width * height & 0xFFFFFFFF)),
    ]
    merged = {entry[0]: entry for entry in (*entries, *more)}
    pixels = bytes(min(4096, max(1, width * height)))
    at = 8 + len(pixels) + len(pixels) % 2
    table = _ifd([merged[tag] for tag in sorted(merged)], at if following == 1 else following)
    return b"II*\0" + struct.pack("<I", at) + pixels.ljust(at - 8, b"\0") + table + number


def _tiffs() -> Entries:
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I", "I;16", "F"):
        for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"):
            image = (
                draw("L").convert("I").convert(mode)
                if mode == "I;16"
                else draw("RGB").convert("L" if mode in "FI" else "RGB")
            )
            content = BytesIO()
            image = image if mode == "I;16" else _lab(image) if mode == "LAB" else image.convert(mode)
            image.save(content, "TIFF", compression=compression)
            yield f"{mode}, {compression}", content.getvalue(), "any" if mode in ("I", "F", "LAB", "YCbCr") else "taken"
    for compression in ("group3", "group4"):
        yield compression, encode("TIFF", "1", compression=compression), "taken"
    for compression in ("jpeg", "zstd"):
        yield compression, encode("TIFF", compression=compression), "any"
    yield "directory that follows itself", _tiff_of(8, 8, following=1), "taken"
    yield "next directory outside", _tiff_of(8, 8, following=HUGE), "any"
    yield "BigTIFF", encode("TIFF", big_tiff=True), "taken"
    for name, entry in {
        "pixels outside": (273, 4, 1, struct.pack("<I", HUGE)),
        "a billion strips": (273, 4, 1_000_000_000, bytes(4)),
        "no strips": (273, 4, 0, bytes(4)),
        "rows of nothing": (278, 4, 1, bytes(4)),
        "unknown compression": (259, 3, 1, _short(31337)),
        "old JPEG": (259, 3, 1, _short(6)),
        "65535 samples": (277, 3, 1, _short(65535)),
        "64 bits": (258, 3, 1, _short(64)),
        "0 bits": (258, 3, 1, _short(0)),
        "colours of an unknown kind": (262, 3, 1, _short(99)),
        "tiles of nothing": (322, 4, 1, bytes(4)),
        "huge tiles": (322, 4, 1, struct.pack("<I", HUGE)),
        "predictor 99": (317, 3, 1, _short(99)),
        "orientation 99": (274, 3, 1, _short(99)),
        "a page that holds itself": (330, 4, 1, struct.pack("<I", 8)),
    }.items():
        yield name, _tiff_of(8, 8, entry), "any"
    frames = BytesIO()
    draw().save(frames, "TIFF", save_all=True, append_images=[draw(size=(8, 8))] * 300)
    yield "300 pages", frames.getvalue(), "taken"


def _lab(image: Image.Image) -> Image.Image:
    return Image.merge("LAB", image.convert("RGB").split())


def _extended_webp(width: int, height: int, chunks: bytes, flags: int = 0) -> bytes:
    canvas = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes([flags, 0, 0, 0]) + canvas + chunks
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _webps() -> Entries:
    whole = encode("WEBP")
    frames = BytesIO()
    draw().save(frames, "WEBP", save_all=True, append_images=[draw("L").convert("RGB").rotate(n) for n in range(100)])
    yield "100 frames", frames.getvalue(), "taken"
    yield "size of 4 GB", whole[:4] + b"\xff\xff\xff\xff" + whole[8:], "any"
    yield "size of nothing", whole[:4] + bytes(4) + whole[8:], "any"
    yield (
        "an alpha channel of noise",
        _extended_webp(64, 48, b"ALPH" + struct.pack("<I", 20) + b"\xff" * 20 + whole[12:], 0x10),
        "any",
    )
    yield (
        "an animation without frames",
        _extended_webp(64, 48, b"ANIM" + struct.pack("<I", 6) + bytes(6), 0x02),
        "refused",
    )
    yield (
        "chunk longer than the file",
        _extended_webp(64, 48, b"VP8 " + struct.pack("<I", HUGE) + whole[20:]),
        "refused",
    )
    yield "a thousand unknown chunks", _extended_webp(64, 48, b"XXXX\0\0\0\0" * 1000 + whole[12:]), "any"
    yield "canvas of another size", _extended_webp(65, 48, whole[12:]), "any"
    avif = encode("AVIF")
    for name in (b"ispe", b"iloc", b"av1C", b"pitm", b"mdat", b"meta", b"iinf", b"ipma"):
        yield f"AVIF without {name.decode()}", replaced(avif, name, b"free"), "any"
        at = avif.index(name) - 4
        for size in (0, 1, HUGE):
            yield f"AVIF, {name.decode()} of {size} bytes", avif[:at] + struct.pack(">I", size) + avif[at + 4 :], "any"


def _bmps() -> Entries:
    whole = encode("BMP")
    for offset, name in (
        (14, "header"),
        (10, "pixels at"),
        (46, "colours"),
        (30, "compression"),
        (34, "size of pixels"),
    ):
        for value in (0, 5, 0x7FFFFFFF, 0xFFFFFFFF):
            yield f"{name} {value}", whole[:offset] + struct.pack("<I", value) + whole[offset + 4 :], "any"
    for bits in (0, 1, 2, 4, 8, 16, 32, 64, 255):
        yield f"{bits} bits", whole[:28] + _short(bits) + whole[30:], "any"
    yield "top down", replaced(whole, struct.pack("<ii", 64, 48), struct.pack("<ii", 64, -48)), "taken"
    for width in (800, 8000):
        yield f"run lengths, {width} x 4000", _run_lengths(width, 4000), "any"


def _run_lengths(width: int, height: int) -> bytes:
    """A BMP of 8 bits in which every row is one run after the other."""
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, 0, 0, 0, 256, 0)
    data = (b"\xff\1" * (width // 255 + 1) + b"\0\0") * height + b"\0\1"
    at = 14 + len(info) + 1024
    return b"BM" + struct.pack("<IHHI", at + len(data), 0, 0, at) + info + bytes(1024) + data


def _profiles() -> Entries:
    """ICC: of the wrong kind, broken, enormous."""
    good = display_p3()
    broken = {
        "of text": b"no profile",
        "cut off": good[:200],
        "of 4 GB": b"\xff\xff\xff\xff" + good[4:],
        "of a million tags": good[:128] + struct.pack(">I", 1_000_000) + good[132:],
        "of no tags": good[:128] + bytes(4) + good[132:],
        "of inks": good[:16] + b"CMYK" + good[20:],
        "of 10 MB": struct.pack(">I", 10 << 20) + good[4:] + bytes((10 << 20) - len(good)),
        "with curves outside": good[:136] + b"\x7f\xff\xff\xff" + good[140:],
    }
    for name, profile in {"that is fine": good, **broken}.items():
        for kind in ("JPEG", "PNG", "WEBP", "TIFF"):
            # Pillow expands no more than a megabyte of a PNG's profile, and then refuses the file.
            expected: Expected = "any" if (kind, name) == ("PNG", "of 10 MB") else "taken"
            yield f"{kind} with a profile {name}", encode(kind, icc_profile=profile), expected
    for sequence in ((0, 0), (1, 255), (255, 1), (2, 1)):
        part = segment(0xE2, b"ICC_PROFILE\0" + bytes(sequence) + good[:60_000])
        yield f"JPEG with part {sequence[0]} of {sequence[1]} of a profile", in_jpeg(part), "taken"
