"""What decoding a picture will take in memory, estimated from its header. Figures: peaks measured with Pillow 13."""

from PIL import Image

from catalog.ingest.outcomes import Format, Limits, UnusableFile
from contracts.pixels import UPRIGHT, orientation_of

BASE_BYTES = 40 << 20
"""Python, Pillow with its libraries, and strips."""

_BYTES_PER_PIXEL: dict[Format, int] = {
    "JPEG": 4,
    "PNG": 4,
    "BMP": 4,
    "GIF": 5,
    "TIFF": 8,  # a strip, which may be the whole picture, and the picture
    "WEBP": 16,  # two canvases, the frame, the picture
    "AVIF": 16,  # planes of up to 12 bits, the frame, the picture
}
_ONE_BYTE_MODES = ("1", "L", "P")
_COPY_BYTES = 4
_SAMPLE_BYTES = 2  # of a progressive JPEG's coefficients, which are kept until its last scan


def max_pixels_of(file_format: Format, limits: Limits) -> int:
    """Width x height up to which a picture of this format may be opened: WebP's decoder allocates its canvases then."""
    if file_format not in ("WEBP", "AVIF"):
        return limits.max_pixels
    return min(limits.max_pixels, max(0, limits.memory_bytes - BASE_BYTES) // _BYTES_PER_PIXEL[file_format])


def check_decoding(image: Image.Image, file_format: Format, file_bytes: int, limits: Limits) -> None:
    """UnusableFile if decoding an opened image of a file of `file_bytes` takes too much memory."""
    per_pixel = _BYTES_PER_PIXEL[file_format]
    if file_format in ("JPEG", "PNG", "BMP", "TIFF") and image.mode in _ONE_BYTE_MODES:
        per_pixel //= _COPY_BYTES
    progressive = _coefficient_bytes(image) if "progressive" in image.info else 0
    _check(file_bytes + image.width * image.height * per_pixel + progressive, limits)


def check_upright(image: Image.Image, file_format: Format, file_bytes: int, limits: Limits) -> None:
    """UnusableFile if the copies that `to_upright_srgb` and the thumbnail make of the decoded image take too much."""
    transparent = image.has_transparency_data  # with alpha, resizing copies it
    converted = image.mode not in ("L", "RGB", "RGBA") or "transparency" in image.info
    copies = transparent + converted + (orientation_of(image) != UPRIGHT)
    decoded = 8 if file_format == "WEBP" else 0  # its canvases live as long as the image
    decoded += 1 if image.mode in _ONE_BYTE_MODES else _COPY_BYTES
    _check(file_bytes + image.width * image.height * (decoded + _COPY_BYTES * copies), limits)


def _check(estimate: int, limits: Limits) -> None:
    estimate += BASE_BYTES
    if estimate > limits.memory_bytes:
        detail = f"it takes about {estimate >> 20} MB of memory to read; a picture may take {limits.memory_bytes >> 20}"
        raise UnusableFile("too-much-memory", detail)


def _coefficient_bytes(image: Image.Image) -> int:
    layers: list[tuple[int, int, int, int]] = getattr(image, "layer", [])  # id, horizontal and vertical sampling, table
    widest, tallest = max((one[1] for one in layers), default=1), max((one[2] for one in layers), default=1)
    shares = sum(one[1] * one[2] for one in layers) / (widest * tallest)
    return int(image.width * image.height * shares * _SAMPLE_BYTES)
