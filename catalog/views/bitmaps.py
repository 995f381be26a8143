"""Roaring bitmaps as numpy arrays, and as bytes that depend on nothing but what they contain."""

from array import array

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

CONTAINER, LARGEST_ARRAY = 1 << 16, 4096
"""Of the Roaring format: a container has the values with the same upper bits; an array has no more than these."""


def from_array(ordinals: NDArray[np.uint32]) -> BitMap:
    """Each number is taken from memory; from an array of numpy they would be objects first, which takes ten times."""
    return BitMap(array("I", ordinals.tobytes()))


def to_array(images: BitMap) -> NDArray[np.uint32]:
    return np.frombuffer(images.to_array(), dtype=np.uint32)


def serialize(images: BitMap) -> bytes:
    """Equal sets give equal bytes: which containers a set has depends on how it was made, until it is optimized.

    Where an array and runs take the same number of bytes, optimizing leaves either; a new set has the array.
    """
    if images.run_optimize() and _may_have_arrays(images):
        images = BitMap(array("I", images.to_array()))
        images.run_optimize()
    return bytes(images.serialize())


def _may_have_arrays(images: BitMap) -> bool:
    """Whether a container is small enough: larger ones are bitmaps, which never take as many bytes as runs."""
    starts = range(0, images.max() + 1, CONTAINER)
    return any(0 < images.range_cardinality(start, start + CONTAINER) <= LARGEST_ARRAY for start in starts)
