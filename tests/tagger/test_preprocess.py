from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from contracts.errors import Rejected
from tagger.wd import arrays
from tagger.wd.decoder_messages import Square
from tagger.wd.manifest import Manifest
from tagger.wd.preprocess import read_square, to_square
from tests.limits import examples

WD = Manifest(size=64)


def to_array(square: Image.Image, manifest: Manifest) -> np.ndarray:
    return arrays.to_array(Square(square.width, square.tobytes()), manifest)


def noise(mode: str, width: int, height: int, seed: int = 0) -> Image.Image:
    depth = len(Image.new(mode, (1, 1)).getbands())
    values = np.random.default_rng(seed).integers(0, 256, (height, width, depth), dtype=np.uint8)
    return Image.fromarray(values.squeeze(2) if depth == 1 else values, mode=None).convert(mode)


def reference_preprocess(image: Image.Image, size: int) -> np.ndarray:
    """The published steps again, independent of Pillow's compositing and pasting: white in the array, then bicubic."""
    rgba = np.asarray(image.convert("RGBA"), dtype=np.float64)
    alpha = rgba[..., 3:] / 255
    rgb = np.rint(alpha * rgba[..., :3] + (1 - alpha) * 255).astype(np.uint8)
    height, width = rgb.shape[:2]
    side = max(height, width)
    canvas = np.full((side, side, 3), 255, np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    canvas[top : top + height, left : left + width] = rgb
    if side != size:
        canvas = np.asarray(Image.fromarray(canvas).resize((size, size), Image.Resampling.BICUBIC))
    return canvas[..., ::-1].astype(np.float32)


@settings(max_examples=examples(40))
@given(st.sampled_from(["RGB", "L", "P", "1"]), st.integers(9, 140), st.integers(9, 140), st.integers(0, 9))
def test_every_pixel_of_an_opaque_picture_equals_the_reference(mode: str, width: int, height: int, seed: int) -> None:
    image = noise("L" if mode in "1P" else mode, width, height, seed).convert(mode)
    assert np.array_equal(to_array(to_square(image, 64), WD), reference_preprocess(image, 64))


@pytest.mark.parametrize("size", [(64, 64), (63, 64), (65, 40), (200, 131), (31, 17)])
def test_transparency_is_composited_over_white_within_rounding(size: tuple[int, int]) -> None:
    image = noise("RGBA", *size)
    ours, reference = to_array(to_square(image, 64), WD), reference_preprocess(image, 64)
    assert np.abs(ours - reference).max() <= 2


def test_colour_under_full_transparency_becomes_white() -> None:
    hidden = Image.new("RGBA", (20, 20), (255, 0, 0, 0))
    assert (np.asarray(to_square(hidden, 64)) == 255).all()


def test_a_palette_with_a_transparent_entry_shows_white_there(tmp_path: Path) -> None:
    image = Image.new("P", (64, 64), 0)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.paste(1, (0, 0, 32, 64))
    image.save(tmp_path / "p.png", transparency=0)
    pixels = np.asarray(read_square(tmp_path / "p.png", 64))
    assert (pixels[:, :32] == (0, 0, 255)).all()
    assert (pixels[:, 32:] == 255).all()


def test_sixteen_bit_grey_is_scaled_not_clamped(tmp_path: Path) -> None:
    Image.fromarray(np.full((64, 64), 40_000, np.uint16)).save(tmp_path / "grey.png")
    assert (np.asarray(read_square(tmp_path / "grey.png", 64)) == round(40_000 / 257)).all()


def test_modes_without_an_agreed_white_level_are_refused() -> None:
    with pytest.raises(Rejected, match="no known brightness range"):
        to_square(Image.new("F", (8, 8)), 64)


def test_a_picture_is_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    image = Image.new("RGB", (64, 64), "white")
    image.paste("black", (0, 0, 64, 32))
    image.save(tmp_path / "turned.png", exif=exif)
    pixels = np.asarray(read_square(tmp_path / "turned.png", 64))
    assert (pixels[:32] == 255).all()
    assert (pixels[32:] == 0).all()


@pytest.mark.parametrize("size", [(1, 30_000), (30_000, 1), (40, 2000)])
def test_a_very_thin_picture_is_shrunk_before_it_becomes_a_square(size: tuple[int, int]) -> None:
    pixels = np.asarray(to_square(Image.new("RGB", size, "black"), 64))
    assert pixels.shape == (64, 64, 3)
    assert pixels.min() < 250


def test_the_order_of_steps_is_unchanged_below_the_limit() -> None:
    thin = noise("RGB", 20, 320)  # aspect 16 exactly, longer than four times the size
    assert np.array_equal(to_array(to_square(thin, 64), WD), reference_preprocess(thin, 64))


def test_a_huge_picture_is_shrunk_first_and_a_larger_one_is_refused(tmp_path: Path) -> None:
    assert to_square(Image.new("RGB", (8100, 600), "red"), 64).getpixel((32, 32)) == (255, 0, 0)
    Image.new("1", (9500, 9500)).save(tmp_path / "huge.png")
    with pytest.raises((Rejected, Image.DecompressionBombWarning)):
        read_square(tmp_path / "huge.png", 64)


def test_only_allowed_formats_are_opened(tmp_path: Path) -> None:
    data = BytesIO()
    Image.new("RGB", (8, 8)).save(data, "PPM")
    (tmp_path / "fake.png").write_bytes(data.getvalue())
    with pytest.raises(OSError, match="cannot identify"):
        read_square(tmp_path / "fake.png", 64)


def test_the_manifest_sets_channel_order_range_and_layout() -> None:
    square = Image.new("RGB", (64, 64), (255, 0, 51))
    wd = to_array(square, WD)
    other = to_array(square, Manifest(size=64, layout="NCHW", colours="RGB", mean=(127.5,) * 3, std=(127.5,) * 3))
    assert wd.dtype == other.dtype == np.dtype(np.float32)
    assert wd.shape == (64, 64, 3)
    assert wd[0, 0].tolist() == [51, 0, 255]
    assert other.shape == (3, 64, 64)
    assert other[:, 0, 0] == pytest.approx([1, -1, -0.6])


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("colours", ["BGR", "RGB"])
def test_levels_are_scaled_exactly_in_single_precision(
    layout: Literal["NHWC", "NCHW"], colours: Literal["BGR", "RGB"]
) -> None:
    square, mean, std = noise("RGB", 64, 64), (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    pixels = np.asarray(square, dtype=np.float32)[:, :, :: -1 if colours == "BGR" else 1]
    expected = (pixels - np.array(mean, np.float32)) / np.array(std, np.float32)
    manifest = Manifest(size=64, layout=layout, colours=colours, mean=mean, std=std)
    assert np.array_equal(to_array(square, manifest), expected if layout == "NHWC" else expected.transpose(2, 0, 1))
