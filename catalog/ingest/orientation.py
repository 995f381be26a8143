"""Normalises a decoded picture: 8 bits, sRGB, upright, in one of three modes (L, RGB, RGBA).

Colour under transparent pixels is kept with its alpha. Code that needs RGB must composite, never drop the alpha.
"""

from functools import cache
from io import BytesIO
from typing import cast

from PIL import ExifTags, Image, ImageCms

from catalog.ingest.outcomes import ColourConversion, UnusableFile

_Transpose = Image.Transpose

# EXIF 2.32, tag 0x0112: how to transpose the stored rows and columns.
_TRANSPOSES: dict[int, _Transpose] = {
    2: _Transpose.FLIP_LEFT_RIGHT,
    3: _Transpose.ROTATE_180,
    4: _Transpose.FLIP_TOP_BOTTOM,
    5: _Transpose.TRANSPOSE,
    6: _Transpose.ROTATE_270,
    7: _Transpose.TRANSVERSE,
    8: _Transpose.ROTATE_90,
}
_TARGET_MODES = {"L": "L", "1": "L", "RGB": "RGB", "RGBX": "RGB", "YCbCr": "RGB", "LAB": "RGB", "CMYK": "CMYK"}
_ALPHA_MODES = {"LA", "PA", "RGBA", "RGBa"}
_SIXTEEN_BIT_MODES = {"I;16", "I;16L", "I;16B", "I;16N"}


def to_upright_srgb(image: Image.Image) -> tuple[Image.Image, ColourConversion]:
    """The image as it should be displayed, without metadata. UnusableFile: its pixels have no known range."""
    transpose = _transpose_for(image)
    result, colour = _to_srgb(_flatten(_to_eight_bits(image)))
    if result.mode == "RGBA" and _is_opaque(result):
        result = result.convert("RGB")
    if transpose is not None:
        result = result.transpose(transpose)
    result.info = {}  # Pillow would write profile and transparency from here into the files we save
    return result, colour


def _transpose_for(image: Image.Image) -> _Transpose | None:
    try:
        return _TRANSPOSES.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001  a broken EXIF block may raise anything, and viewers ignore it
        return None


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey by v / 257, rounded: Pillow's own conversion clamps at 255. (16-bit colour comes as high bytes.)"""
    if image.mode not in _SIXTEEN_BIT_MODES:
        return image
    integers = image.convert("I")
    grey = integers.point(_divide_by_257_table(), "L")
    grey.info = {name: value for name, value in image.info.items() if name != "transparency"}
    transparent_value = image.info.get("transparency")
    if transparent_value is None:
        return grey
    alpha = integers.point([0 if value == transparent_value else 255 for value in range(1 << 16)], "L")
    grey = grey.convert("RGB")
    grey.putalpha(alpha)
    return grey


@cache
def _divide_by_257_table() -> list[float]:
    return [round(value / 257) for value in range(1 << 16)]


def _flatten(image: Image.Image) -> Image.Image:
    """Expand palettes, packed bits and colour keys: L, RGB or CMYK, or RGBA where anything is transparent."""
    if image.mode in _ALPHA_MODES or "transparency" in image.info:
        return image.convert("RGBA")
    if image.mode == "P":
        return image.convert("RGBA" if image.has_transparency_data else "RGB")
    if image.mode not in _TARGET_MODES:
        raise UnusableFile("unsupported-pixels", "its pixel format has no known brightness range")
    return image.convert(_TARGET_MODES[image.mode])


def _to_srgb(image: Image.Image) -> tuple[Image.Image, ColourConversion]:
    profile = cast("bytes | None", image.info.get("icc_profile"))
    if profile:
        try:
            return _convert_by_profile(image, profile), "converted"
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            # unreadable, or made for another kind of pixels: viewers ignore such a profile as well
            return (image.convert("RGB") if image.mode == "CMYK" else image), "assumed"
    return (image.convert("RGB"), "assumed") if image.mode == "CMYK" else (image, "srgb")


def _convert_by_profile(image: Image.Image, profile: bytes) -> Image.Image:
    converted = ImageCms.profileToProfile(
        image,
        ImageCms.ImageCmsProfile(BytesIO(profile)),
        ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        outputMode="RGBA" if image.mode == "RGBA" else "RGB",
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    return cast("Image.Image", converted)  # it is None only with inPlace


def _is_opaque(image: Image.Image) -> bool:
    return image.getchannel("A").getextrema() == (255, 255)
