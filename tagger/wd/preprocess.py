"""WD preprocessing: composite transparency over white, pad to a square, resize (bicubic).

The steps and their order follow the reference implementation exactly: resize-then-pad, another filter or a JPEG decoded
at a smaller scale (`draft`) change pixels enough to flip tags near a threshold. `PREPROCESSING` is the version of these
steps in provenance; any change to them needs a new version.
"""

from pathlib import Path

from PIL import Image

from contracts.errors import Rejected
from contracts.pixels import UnsupportedPixels, on_white, to_upright_srgb

PREPROCESSING = "wd-1"

FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "BMP", "GIF", "TIFF")
MAX_PIXELS = 89_478_485  # Pillow's own limit against decompression bombs
GUARD_PIXELS = 64_000_000
GUARD_ASPECT = 16


def read_square(path: Path, size: int) -> Image.Image:
    """Read the first frame of a picture, upright, as an RGB square of `size` pixels. Pillow's errors pass through."""
    with Image.open(path, formats=FORMATS) as image:
        if image.width * image.height > MAX_PIXELS:
            raise Rejected(f"{image.width} x {image.height} pixels are more than the limit of {MAX_PIXELS}")
        return to_square(image, size)


def to_square(image: Image.Image, size: int) -> Image.Image:
    """Convert any picture to RGB of `size` x `size`, upright. Rejected: its pixels have no agreed white level."""
    try:
        upright, _ = to_upright_srgb(image)
    except UnsupportedPixels as error:
        raise Rejected(str(error)) from error
    rgb = _shrink_if_huge(upright if upright.mode == "RGB" else on_white(upright), size)
    side = max(rgb.size)
    canvas = rgb
    if rgb.width != rgb.height:
        canvas = Image.new("RGB", (side, side), (255, 255, 255))
        canvas.paste(rgb, ((side - rgb.width) // 2, (side - rgb.height) // 2))
    return canvas if side == size else canvas.resize((size, size), Image.Resampling.BICUBIC)


def _shrink_if_huge(rgb: Image.Image, size: int) -> Image.Image:
    """Shrink a huge or very thin picture to four times `size` first, so that its square fits in memory.

    Not part of the reference implementation.
    """
    side, limit = max(rgb.size), 4 * size
    if side <= limit or (side * side <= GUARD_PIXELS and side <= GUARD_ASPECT * min(rgb.size)):
        return rgb
    width, height = (max(1, round(length * limit / side)) for length in rgb.size)
    return rgb.resize((width, height), Image.Resampling.BICUBIC)
