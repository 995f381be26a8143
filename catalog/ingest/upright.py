"""From what a file holds to what one sees: 8 bits, sRGB, upright, in one of three modes (L, RGB, RGBA).

Colour that is hidden under transparency stays with its alpha; whoever needs RGB composites, and never drops alpha.
"""

from functools import cache
from io import BytesIO
from typing import cast

from PIL import ExifTags, Image, ImageCms

from catalog.ingest.outcomes import Colour, Unfit

_Turn = Image.Transpose

# EXIF 2.32, tag 0x0112: how the stored rows and columns are to be turned.
_TURNS: dict[int, _Turn] = {
    2: _Turn.FLIP_LEFT_RIGHT,
    3: _Turn.ROTATE_180,
    4: _Turn.FLIP_TOP_BOTTOM,
    5: _Turn.TRANSPOSE,
    6: _Turn.ROTATE_270,
    7: _Turn.TRANSVERSE,
    8: _Turn.ROTATE_90,
}
_PLAIN = {"L": "L", "1": "L", "RGB": "RGB", "RGBX": "RGB", "YCbCr": "RGB", "LAB": "RGB", "CMYK": "CMYK"}
_WITH_ALPHA = {"LA", "PA", "RGBA", "RGBa"}
_WIDE = {"I;16", "I;16L", "I;16B", "I;16N"}


def upright(image: Image.Image) -> tuple[Image.Image, Colour]:
    """A decoded image as it should be seen, without metadata. Unfit when its pixels have no known range."""
    turn = _turn_of(image)
    seen, colour = _in_srgb(_flattened(_in_eight_bits(image)))
    if seen.mode == "RGBA" and _is_opaque(seen):
        seen = seen.convert("RGB")
    if turn is not None:
        seen = seen.transpose(turn)
    seen.info = {}  # Pillow would write profile and transparency from here into the files we save
    return seen, colour


def _turn_of(image: Image.Image) -> _Turn | None:
    try:
        return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001  a mangled EXIF block may raise anything, and viewers ignore it: so do we
        return None


def _in_eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey by v / 257, rounded: Pillow's own conversion clamps at 255. (16-bit colour comes as high bytes.)"""
    if image.mode not in _WIDE:
        return image
    wide = image.convert("I")
    grey = wide.point(_per_257(), "L")
    grey.info = {name: value for name, value in image.info.items() if name != "transparency"}
    see_through = image.info.get("transparency")
    if see_through is None:
        return grey
    alpha = wide.point([0 if value == see_through else 255 for value in range(1 << 16)], "L")
    grey = grey.convert("RGB")
    grey.putalpha(alpha)
    return grey


@cache
def _per_257() -> list[float]:
    return [round(value / 257) for value in range(1 << 16)]


def _flattened(image: Image.Image) -> Image.Image:
    """Palettes, packed bits and colour keys spelt out: L, RGB or CMYK, or RGBA where anything can be seen through."""
    if image.mode in _WITH_ALPHA or "transparency" in image.info:
        return image.convert("RGBA")
    if image.mode == "P":
        return image.convert("RGBA" if image.has_transparency_data else "RGB")
    if image.mode not in _PLAIN:
        raise Unfit("unsupported-pixels", "its pixels are of a kind without a known range of brightness")
    return image.convert(_PLAIN[image.mode])


def _in_srgb(image: Image.Image) -> tuple[Image.Image, Colour]:
    profile = cast("bytes | None", image.info.get("icc_profile"))
    if profile:
        try:
            return _by_profile(image, profile), "converted"
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            # unreadable, or made for another kind of pixels: viewers ignore such a profile as well
            return (image.convert("RGB") if image.mode == "CMYK" else image), "assumed"
    return (image.convert("RGB"), "assumed") if image.mode == "CMYK" else (image, "srgb")


def _by_profile(image: Image.Image, profile: bytes) -> Image.Image:
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
