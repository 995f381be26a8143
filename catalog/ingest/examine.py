"""Examines one file: limits, full decode, upright picture, hashes, thumbnail. Runs only inside a child process.

Deterministic: the same bytes give the same files and results.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from catalog.ingest import file_formats, memory
from catalog.ingest.decoder_messages import Examine, ExamineMask, Request
from catalog.ingest.outcomes import FORMATS, Format, Limits, MaskInfo, PictureInfo, Refused, UnusableFile
from contracts.ids import Digest
from contracts.jpeg_cut import take_apart
from contracts.pixels import (
    TRANSPOSES,
    UPRIGHT,
    UnsupportedPixels,
    colour_conversion,
    orientation_of,
    to_upright_srgb,
    upright_size,
    upright_strips,
)
from contracts.wire.system.regular_files import FileChanged, NotRegular, read_regular

_PLUGINS: dict[Format, str] = {
    "JPEG": "JpegImagePlugin",
    "PNG": "PngImagePlugin",
    "WEBP": "WebPImagePlugin",
    "AVIF": "AvifImagePlugin",
    "BMP": "BmpImagePlugin",
    "GIF": "GifImagePlugin",
    "TIFF": "TiffImagePlugin",
}
_THUMBNAIL_SIDE = 256
_STRIP_PIXELS = 4 << 20  # hashed at a time, so that no second copy of a large picture is made
_PICTURE_MODES = ("L", "RGB", "RGBA")
_WEBP_METHODS = {1: 4, 2: 4, 3: 2}  # by the rules
_PNG_LEVEL = 2  # 6 takes three times as long for 0-13 % less [measured]


def examine(request: Request, limits: Limits) -> PictureInfo | MaskInfo | Refused:
    """The picture's properties, with the files written, or a refusal. OSError: a file cannot be read or written."""
    try:
        data = _read(Path(request.source), limits)
        file_format, image = _open(data, limits)
        if isinstance(request, ExamineMask):
            return _examine_mask(request, data, file_format, image, limits)
        if (kept := _kept_jpeg(request, data, file_format, image, limits)) is not None:
            return kept
        _load_upright(image, file_format, len(data), limits)
        return _normalize_and_measure(request, data, file_format, image)
    except UnusableFile as unusable:
        return unusable.refused
    except UnsupportedPixels:
        return Refused(reason="unsupported-pixels", detail="its pixel format has no known brightness range")
    except MemoryError:
        return Refused(reason="too-much-memory", detail="decoding it takes more memory than one picture may have")


def _read(source: Path, limits: Limits) -> bytes:
    try:
        data = read_regular(source, limits.max_bytes, follow_links=False)
    except NotRegular as error:
        raise UnusableFile("not-a-file", error.strerror) from error
    except FileChanged as error:
        raise UnusableFile("changed", error.strerror) from error
    if not data:
        raise UnusableFile("empty", "the file is empty")
    if len(data) > limits.max_bytes:
        raise UnusableFile("too-large", f"the file is larger than {limits.max_bytes:,} bytes")
    return data


def _open(data: bytes, limits: Limits) -> tuple[Format, Image.Image]:
    """The format and the first frame, of which only the header was read."""
    file_format = file_formats.sniff(data)
    if file_format is None:
        raise UnusableFile("unknown-format", f"this is not a picture in a format we read ({', '.join(FORMATS)})")
    max_pixels = memory.max_pixels_of(file_format, limits)
    # Pillow refuses above twice this figure (and warns above it, which the child ignores).
    Image.MAX_IMAGE_PIXELS = -(-max_pixels // 2)
    with _untrusted_bytes(max_pixels, file_format):
        import_module(f"PIL.{_PLUGINS[file_format]}")  # otherwise Pillow loads all its 43 plugins to find this one
        image = Image.open(BytesIO(data), formats=(file_format,))
    _check_size(*image.size, limits)
    return file_format, image


def _load(image: Image.Image, file_format: Format, file_bytes: int, limits: Limits) -> None:
    """Decode all pixels. UnusableFile if that takes too much memory."""
    memory.check_decoding(image, file_format, file_bytes, limits)
    with _untrusted_bytes(limits.max_pixels, file_format):
        image.load()
        if image.mode in ("P", "PA") and image.palette is None:
            raise SyntaxError("it has no palette")  # Pillow loads it, and fails on it later


def _load_upright(image: Image.Image, file_format: Format, file_bytes: int, limits: Limits) -> None:
    """The same, of an image that `to_upright_srgb` makes copies of."""
    _load(image, file_format, file_bytes, limits)
    memory.check_upright(image, file_format, file_bytes, limits)


@contextmanager
def _untrusted_bytes(max_pixels: int, file_format: Format) -> Iterator[None]:
    """Turn whatever Pillow raises on a file's bytes into a refusal of the file."""
    try:
        yield
    except MemoryError:
        raise
    except Image.DecompressionBombError as error:
        raise _too_many_pixels(max_pixels, file_format if file_format in ("WEBP", "AVIF") else "picture") from error
    except Exception as error:
        # OSError, SyntaxError, struct.error, …: hostile bytes raise almost anything. WebP's and AVIF's decoders raise
        # the same when memory runs out, which the default limits prevent.
        raise UnusableFile("broken", "the picture is damaged, cut off or against the rules of its format") from error


def _check_size(width: int, height: int, limits: Limits) -> None:
    if width * height > limits.max_pixels:
        raise _too_many_pixels(limits.max_pixels)
    if max(width, height) > limits.max_side:
        raise UnusableFile("too-long-side", f"it is {width} x {height}; a side may have {limits.max_side:,} pixels")
    if max(width, height) > limits.max_aspect * min(width, height):
        raise UnusableFile(
            "too-narrow",
            f"it is {width} x {height}; the longer side may be at most {limits.max_aspect} times the shorter",
        )


def _too_many_pixels(max_pixels: int, file_format: str = "picture") -> UnusableFile:
    detail = f"it has more than {max_pixels:,} pixels, the most that a {file_format} may have"
    return UnusableFile("too-many-pixels", detail)


def _kept_jpeg(
    request: Examine, data: bytes, file_format: Format, image: Image.Image, limits: Limits
) -> PictureInfo | None:
    """The properties of a JPEG whose pixels need not change, of which picture and cut are written; None: of another."""
    if request.rules == 1 or file_format != "JPEG" or image.mode not in ("L", "RGB"):
        return None
    colour = colour_conversion(image)
    orientation = orientation_of(image)
    apart = take_apart(data, orientation) if colour != "converted" else None
    if apart is None:
        return None
    _, kept = _open(apart.picture, limits)
    if (kept.mode, kept.size, orientation_of(kept)) != (image.mode, image.size, orientation):
        return None  # Pillow found the orientation, or the size, in a place of its own
    _load(kept, file_format, 2 * len(data), limits)
    thumbnail = _thumbnail(kept)
    if orientation != UPRIGHT:
        thumbnail = thumbnail.transpose(TRANSPOSES[orientation])
    if apart.cut is not None:
        Path(request.picture).write_bytes(apart.picture)
        Path(request.cut).write_bytes(apart.cut)
    size = upright_size(kept)
    return _save_thumbnail(
        request,
        thumbnail,
        format=file_format,
        width=size[0],
        height=size[1],
        bytes=len(data),
        sha256=_sha256(data),
        picture_bytes=len(apart.picture),
        picture_sha256=_sha256(apart.picture),
        pixels_sha256=pixels_digest(kept, orientation),
        animated=False,
        colour=colour,
        source_is_picture=apart.cut is None,
        cut_sha256=None if apart.cut is None else _sha256(apart.cut),
    )


def _examine_mask(
    request: ExamineMask, data: bytes, file_format: Format, image: Image.Image, limits: Limits
) -> MaskInfo:
    """Colours count by their brightness, and transparency not at all, as in OneTrainer."""
    if (size := upright_size(image)) != (request.width, request.height):
        detail = f"it is {size[0]} x {size[1]}, and the picture {request.width} x {request.height}"
        raise UnusableFile("other-size", detail)
    _load_upright(image, file_format, len(data), limits)
    upright, _ = to_upright_srgb(image)
    written, digest = _save(upright.convert("L"), request.mask, "PNG", compress_level=_PNG_LEVEL)
    return MaskInfo(bytes=written, sha256=digest)


def _normalize_and_measure(request: Examine, data: bytes, file_format: Format, image: Image.Image) -> PictureInfo:
    # Only animated formats have the attribute. A JPEG with more pictures in it (MPO) holds previews, not frames.
    animated = file_format != "JPEG" and bool(getattr(image, "is_animated", False))
    as_stored = image.mode in _PICTURE_MODES and "transparency" not in image.info
    picture_image, colour = to_upright_srgb(image)
    source_is_picture = as_stored and file_formats.is_bare(data, file_format)
    picture = (len(data), source := _sha256(data))
    if not source_is_picture:
        picture = _save(picture_image, request.picture, "PNG", compress_level=_PNG_LEVEL)
    return _save_thumbnail(
        request,
        _thumbnail(picture_image),
        format=file_format,
        width=picture_image.width,
        height=picture_image.height,
        bytes=len(data),
        sha256=source,
        picture_bytes=picture[0],
        picture_sha256=picture[1],
        pixels_sha256=pixels_digest(picture_image),
        animated=animated,
        colour=colour,
        source_is_picture=source_is_picture,
    )


def _save_thumbnail(request: Examine, thumbnail: Image.Image, **properties: Any) -> PictureInfo:
    size, digest = _save(thumbnail, request.thumbnail, "WEBP", quality=80, method=_WEBP_METHODS[request.rules])
    return PictureInfo(dhash=dhash(thumbnail), thumbnail_bytes=size, thumbnail_sha256=digest, **properties)


def _sha256(content: bytes) -> Digest:
    return Digest(hashlib.sha256(content).hexdigest())


def pixels_digest(image: Image.Image, orientation: int = UPRIGHT) -> Digest:
    """sha256 of `b"RGB 640x480\\n"` and the rows from the top, 8 bits each of R, G, B and, in RGBA, of A, of the image
    as turned by `orientation`.

    Grey counts as RGB, so that the same pixels have the same digest in every file format.
    """
    mode = "RGBA" if image.mode == "RGBA" else "RGB"
    width, height = upright_size(image, orientation)
    digest = hashlib.sha256(f"{mode} {width}x{height}\n".encode())
    for strip in upright_strips(image, orientation, rows=max(1, _STRIP_PIXELS // width)):
        digest.update((strip if strip.mode == mode else strip.convert(mode)).tobytes())
    return Digest(digest.hexdigest())


def dhash(thumbnail_image: Image.Image) -> str:
    """Difference hash: whether each of 8 x 8 cells is darker than its right neighbour, row by row, as hex.

    The first cell is the highest bit. After N. Krawetz, "Kind of like that" (2013), with the bit order of the
    `imagehash` package.
    """
    if thumbnail_image.mode == "RGBA":
        thumbnail_image = Image.alpha_composite(Image.new("RGBA", thumbnail_image.size, "white"), thumbnail_image)
    cells = thumbnail_image.convert("L").resize((9, 8), Image.Resampling.LANCZOS).tobytes()
    bits = 0
    for row in range(8):
        for column in range(8):
            bits = bits << 1 | (cells[row * 9 + column] < cells[row * 9 + column + 1])
    return f"{bits:016x}"


def _thumbnail(image: Image.Image) -> Image.Image:
    scale = min(1.0, _THUMBNAIL_SIDE / max(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)


def _save(image: Image.Image, path: str, file_format: Format, **options: int) -> tuple[int, Digest]:
    """Write the file; its size in bytes and sha256."""
    with Path(path).open("w+b") as file:
        image.save(file, file_format, **options)
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return file.tell(), Digest(digest)
