"""Squares as the input of a model."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from tagger.wd.decoder_messages import Square
from tagger.wd.manifest import Manifest

Pixels = NDArray[np.float32]


def to_array(square: Square, manifest: Manifest) -> Pixels:
    """The model's input in the manifest's layout: float32, (size, size, 3) or (3, size, size)."""
    levels = np.frombuffer(square.rgb, np.uint8).reshape(square.size, square.size, 3)
    if manifest.colours == "BGR":
        levels = levels[:, :, ::-1]
    is_nhwc = manifest.layout == "NHWC"
    pixels = np.empty(levels.shape if is_nhwc else (3, square.size, square.size), np.float32)
    if manifest.mean == (0.0, 0.0, 0.0) and manifest.std == (1.0, 1.0, 1.0):
        pixels[...] = levels if is_nhwc else levels.transpose(2, 0, 1)
        return pixels
    for channel, scaled in enumerate(_scaled_levels(manifest.mean, manifest.std)):
        target = pixels[:, :, channel] if is_nhwc else pixels[channel]
        target[...] = scaled[levels[:, :, channel]]
    return pixels


@lru_cache(maxsize=2)
def _scaled_levels(mean: tuple[float, ...], std: tuple[float, ...]) -> NDArray[np.float32]:
    """`(level - mean) / std` of each channel's 256 levels."""
    levels = np.arange(256, dtype=np.float32)
    scaled: NDArray[np.float32] = (levels - np.array(mean, np.float32)[:, None]) / np.array(std, np.float32)[:, None]
    return scaled
