"""Pixels as WD taggers were trained to see them: white below transparency, padded to a square, bicubic.

This follows the reference step by step and in its order: resize-then-pad, another filter or a JPEG decoded at a smaller
scale (`draft`) change pixels enough to flip tags near a threshold. `PREPROCESSING` names these steps in provenance; a
change of any of them is a new name.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from contracts.errors import Rejected
from tagger.wd.manifest import Manifest

PREPROCESSING = "wd-1"

FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "BMP", "GIF", "TIFF")
MAX_PIXELS = 89_478_485  # Pillow's own line between a picture and a bomb
GUARD_PIXELS = 64_000_000
GUARD_ASPECT = 16

Pixels = NDArray[np.float32]


def read(path: Path, size: int) -> Image.Image:
    """The picture in a file as a square of `size` pixels (RGB): first frame, upright. Raises what Pillow raises."""
    with Image.open(path, formats=FORMATS) as image:
        if image.width * image.height > MAX_PIXELS:
            raise Rejected(f"{image.width} x {image.height} pixels are more than {MAX_PIXELS}")
        return squared(ImageOps.exif_transpose(image), size)


def squared(image: Image.Image, size: int) -> Image.Image:
    """Any picture as RGB of `size` x `size`."""
    rgb = _guarded(_on_white(image), size)
    side = max(rgb.size)
    canvas = Image.new("RGB", (side, side), (255, 255, 255))
    canvas.paste(rgb, ((side - rgb.width) // 2, (side - rgb.height) // 2))
    return canvas if side == size else canvas.resize((size, size), Image.Resampling.BICUBIC)


def to_array(square: Image.Image, manifest: Manifest) -> Pixels:
    """float32, (size, size, 3) or (3, size, size), in the order of colours and the range that the model wants."""
    pixels = np.asarray(square, dtype=np.float32)
    if manifest.colours == "BGR":
        pixels = pixels[:, :, ::-1]
    mean, std = (np.array(triple, dtype=np.float32) for triple in (manifest.mean, manifest.std))
    scaled: Pixels = (pixels - mean) / std
    return np.ascontiguousarray(scaled if manifest.layout == "NHWC" else scaled.transpose(2, 0, 1))


def _on_white(image: Image.Image) -> Image.Image:
    image = _eight_bits(image)
    if not image.has_transparency_data:
        return image.convert("RGB")
    canvas = Image.new("RGBA", image.size, (255, 255, 255, 255))
    canvas.alpha_composite(image.convert("RGBA"))
    return canvas.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey scaled, where Pillow would clamp it to white; wider numbers have no agreed white at all."""
    if image.mode in ("I", "F"):
        raise Rejected(f"pixels in mode {image.mode} have no agreed white")
    if not image.mode.startswith("I;16"):
        return image
    grey = np.asarray(image, dtype=np.float32) / 257
    return Image.fromarray(np.rint(grey).astype(np.uint8))


def _guarded(rgb: Image.Image, size: int) -> Image.Image:
    """Ours: a picture so large or thin that its square would fill the memory is first shrunk to four times `size`."""
    side, limit = max(rgb.size), 4 * size
    if side <= limit or (side * side <= GUARD_PIXELS and side <= GUARD_ASPECT * min(rgb.size)):
        return rgb
    width, height = (max(1, round(length * limit / side)) for length in rgb.size)
    return rgb.resize((width, height), Image.Resampling.BICUBIC)
