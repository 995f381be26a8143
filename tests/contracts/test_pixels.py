"""The pixels that every reader sees equal Pillow's own `exif_transpose` and conversion to sRGB, and are the same ones
in thumbnails, tagging and training."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps

from contracts.pixels import UnsupportedPixels, is_srgb_profile, on_white, to_upright_srgb, upright_size, upright_strips
from tagger.wd.preprocess import read_square
from trainer.engine.data import load_pixels, read_size
from trainer.messages import Example

ORIENTATIONS = range(1, 9)
KINDS: dict[str, dict[str, object]] = {
    "JPEG": {"quality": 95},
    "PNG": {},
    "WEBP": {"quality": 90},
    "AVIF": {"quality": 90},
    "TIFF": {},
}


def draw_picture(mode: str = "RGB", width: int = 96, height: int = 64) -> Image.Image:
    """A picture without symmetry, so that every orientation differs."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    return Image.fromarray(np.stack([x * 2, y * 3, (x + y) % 256], axis=-1).astype(np.uint8)).convert(mode)


def with_orientation(value: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif.tobytes()


def display_p3(gamma: float = 2.2) -> bytes:
    """An RGB profile with Display P3's primaries, as ImageMagick and others write it: a matrix and three curves."""
    return matrix_profile(((0.5151, 0.2412, -0.0011), (0.2919, 0.6922, 0.0419), (0.1572, 0.0666, 0.7841)), gamma)


def matrix_profile(columns: tuple[tuple[float, float, float], ...], gamma: float) -> bytes:
    def fixed(value: float) -> bytes:
        return round(value * 65536).to_bytes(4, "big", signed=True)

    white = (0.9642, 1.0, 0.8249)
    xyz = [b"XYZ \0\0\0\0" + b"".join(map(fixed, one)) for one in (white, *columns)]
    curve = b"curv\0\0\0\0" + (1).to_bytes(4, "big") + round(gamma * 256).to_bytes(2, "big") + bytes(2)
    names = (b"wtpt", b"rXYZ", b"gXYZ", b"bXYZ", b"rTRC", b"gTRC", b"bTRC")
    blocks = [*xyz, curve, curve, curve]
    table, body, at = b"", b"", 128 + 4 + 12 * len(names)
    for name, block in zip(names, blocks, strict=True):
        table += name + (at + len(body)).to_bytes(4, "big") + len(block).to_bytes(4, "big")
        body += block
    head = bytes(4) + bytes(4) + b"\x02\x40\0\0" + b"mntrRGB XYZ " + bytes(12) + b"acsp" + bytes(28)
    head += b"".join(map(fixed, white))
    whole = head.ljust(128, b"\0") + len(names).to_bytes(4, "big") + table + body
    return len(whole).to_bytes(4, "big") + whole[4:]


def srgb_profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def pixels_by_pillow(path: Path) -> Image.Image:
    """Pillow's own steps in RGB."""
    with Image.open(path) as image:
        upright = ImageOps.exif_transpose(image)
        profile = image.info.get("icc_profile")
        if profile:
            converted = ImageCms.profileToProfile(
                upright,
                ImageCms.ImageCmsProfile(BytesIO(profile)),
                ImageCms.createProfile("sRGB"),
                renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
                outputMode="RGB",
                flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
            )
            assert converted is not None
            return converted
        return upright.convert("RGB")


def array(image: Image.Image) -> NDArray[np.int16]:
    return np.asarray(image, dtype=np.int16)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("profile", [b"", display_p3()], ids=["srgb", "p3"])
def test_every_reader_sees_pillows_upright_srgb_pixels(
    tmp_path: Path, orientation: int, kind: str, profile: bytes
) -> None:
    path = tmp_path / "picture"
    colour: dict[str, object] = {"icc_profile": profile} if profile else {}
    draw_picture().save(path, kind, exif=with_orientation(orientation), **KINDS[kind], **colour)
    expected = pixels_by_pillow(path)
    assert expected.size == ((64, 96) if orientation >= 5 else (96, 64))

    with Image.open(path) as image:
        assert upright_size(image) == expected.size
        upright, how = to_upright_srgb(image)
        assert (how, upright.info) == ("converted" if profile else "srgb", {})
        assert np.array_equal(array(upright), array(expected))
    example = Example(ordinal=1, path=str(path), digest="0" * 64, caption="")
    assert read_size(example) == expected.size
    trained = (load_pixels(example, expected.size).permute(1, 2, 0).numpy() + 1) * 127.5
    assert np.array_equal(np.rint(trained), array(expected))
    square = Image.new("RGB", (96, 96), "white")
    square.paste(expected, ((96 - expected.width) // 2, (96 - expected.height) // 2))
    assert np.array_equal(array(read_square(path, 96)), array(square))


def test_profiles_are_srgb_by_their_colours_not_by_their_names() -> None:
    srgb = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.7141))
    assert is_srgb_profile(srgb_profile())
    assert not is_srgb_profile(matrix_profile(srgb, 1.8))
    assert not is_srgb_profile(display_p3())
    assert not is_srgb_profile(b"this is no ICC profile" * 10)


def test_a_picture_that_needs_nothing_exists_only_once() -> None:
    image = draw_picture()
    image.info["icc_profile"] = srgb_profile()
    upright, how = to_upright_srgb(image)
    assert (upright is image, how, image.info) == (True, "srgb", {})


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("rows", [1, 7, 64, 96, 500])
def test_strips_are_the_rows_of_the_turned_picture(orientation: int, rows: int) -> None:
    buffer = BytesIO()
    draw_picture().save(buffer, "PNG", exif=with_orientation(orientation))
    with Image.open(buffer) as image:
        whole, _ = to_upright_srgb(image)
    strips = list(upright_strips(draw_picture(), orientation, rows))
    assert {strip.height for strip in strips[:-1]} <= {rows}
    assert b"".join(strip.tobytes() for strip in strips) == whole.tobytes()


@pytest.mark.parametrize("orientation", [0, 9, 77])
def test_unknown_orientations_are_upright(orientation: int) -> None:
    buffer = BytesIO()
    draw_picture().save(buffer, "PNG", exif=with_orientation(orientation))
    with Image.open(buffer) as image:
        assert upright_size(image) == (96, 64)
        assert np.array_equal(array(to_upright_srgb(image)[0]), array(draw_picture()))


def test_transparent_pixels_become_white() -> None:
    assert on_white(Image.new("RGBA", (2, 2), (255, 0, 0, 0))).getcolors() == [(4, (255, 255, 255))]


def test_pixels_without_a_known_range_are_refused() -> None:
    with pytest.raises(UnsupportedPixels, match="mode F"):
        to_upright_srgb(Image.new("F", (4, 4)))
