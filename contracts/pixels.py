"""The pixels of a picture as they are to be seen: upright, sRGB, 8 bits, in one of three modes (L, RGB, RGBA).

The one way from a file to pixels: for thumbnails and digests (catalog), tagging, buckets and training. Needs Pillow,
which only the services that read pictures install.

Colour under transparent pixels is kept with its alpha. Code that needs RGB must composite (`on_white`), never drop the
alpha.
"""

from collections.abc import Iterator
from functools import cache, lru_cache
from io import BytesIO
from itertools import product
from typing import Literal, cast

from PIL import ExifTags, Image, ImageCms

ColourConversion = Literal["srgb", "converted", "assumed"]
"""How the picture became sRGB: it was declared sRGB or nothing; it was converted by its ICC profile; or a colour space
was assumed, because it is CMYK without a profile or its profile is unreadable."""

_Transpose = Image.Transpose

# EXIF 2.32, tag 0x0112: how to transpose the stored rows and columns.
TRANSPOSES: dict[int, _Transpose] = {
    2: _Transpose.FLIP_LEFT_RIGHT,
    3: _Transpose.ROTATE_180,
    4: _Transpose.FLIP_TOP_BOTTOM,
    5: _Transpose.TRANSPOSE,
    6: _Transpose.ROTATE_270,
    7: _Transpose.TRANSVERSE,
    8: _Transpose.ROTATE_90,
}
UPRIGHT = 1
FIRST_SIDEWAYS = 5  # from this orientation on, width and height change places
_TARGET_MODES = {"L": "L", "1": "L", "RGB": "RGB", "RGBX": "RGB", "YCbCr": "RGB", "LAB": "RGB", "CMYK": "CMYK"}
_ALPHA_MODES = {"LA", "PA", "RGBA", "RGBa"}
_SIXTEEN_BIT_MODES = {"I;16", "I;16L", "I;16B", "I;16N"}
_PROBE_LEVELS = (0, 16, 48, 96, 144, 192, 224, 255)
_SRGB_TOLERANCE = 2  # levels of 255: how far the tables of cameras' and editors' sRGB profiles are from the formula


class UnsupportedPixels(ValueError):
    """The picture's pixel format has no known brightness range."""


def to_upright_srgb(image: Image.Image) -> tuple[Image.Image, ColourConversion]:
    """The picture as it should be displayed, without metadata. UnsupportedPixels, or Pillow's errors of decoding.

    `image` is used up: where possible the result is `image` itself, so that a large picture exists only once.
    """
    image.load()  # Pillow turns a TIFF here, so its orientation is read afterwards
    transpose = TRANSPOSES.get(orientation_of(image))
    result, colour = _to_srgb(_flatten(_to_eight_bits(image)))
    if result.mode == "RGBA" and _is_opaque(result):
        result = result.convert("RGB")
    if transpose is not None:
        result = result.transpose(transpose)
    result.info = {}  # Pillow would write profile and transparency from here into the files we save
    return result, colour


def upright_strips(image: Image.Image, orientation: int, rows: int) -> Iterator[Image.Image]:
    """The rows of the decoded image as turned by `orientation`, from the top, at most `rows` in each strip: so a large
    picture is never copied as a whole."""
    width, height = image.size
    for top in range(0, width if orientation >= FIRST_SIDEWAYS else height, rows):
        match orientation:
            case 3 | 4:
                box = 0, max(0, height - top - rows), width, height - top
            case 5 | 6:
                box = top, 0, min(width, top + rows), height
            case 7 | 8:
                box = max(0, width - top - rows), 0, width - top, height
            case _:
                box = 0, top, width, min(height, top + rows)
        strip = image if box == (0, 0, width, height) else image.crop(box)
        yield strip.transpose(TRANSPOSES[orientation]) if orientation in TRANSPOSES else strip


def orientation_of(image: Image.Image) -> int:
    """EXIF's (or XMP's) orientation, 1 to 8; 1 if there is none, it is unknown, or the block is broken."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, UPRIGHT)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001  a broken EXIF block may raise anything, and viewers ignore it
        return UPRIGHT
    return value if isinstance(value, int) and value in TRANSPOSES else UPRIGHT


def upright_size(image: Image.Image, orientation: int | None = None) -> tuple[int, int]:
    """Width and height as displayed, without decoding a JPEG or WebP; by its own orientation if none is given."""
    width, height = image.size
    if orientation is None:
        # Of a TIFF, Pillow gives the upright size, and turns the pixels when it loads them.
        orientation = UPRIGHT if image.format == "TIFF" else orientation_of(image)
    return (height, width) if orientation >= FIRST_SIDEWAYS else (width, height)


def on_white(image: Image.Image) -> Image.Image:
    """RGB on white; a plain conversion would show the arbitrary colour of transparent pixels."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    background = Image.new("RGBA", image.size, "white")
    background.alpha_composite(image.convert("RGBA"))
    return background.convert("RGB")


@lru_cache(maxsize=8)
def is_srgb_profile(profile: bytes) -> bool:
    """Whether an ICC profile of RGB pixels describes sRGB, whatever its name: tried on colours of the whole range."""
    colours = Image.frombytes("RGB", (len(_PROBE_LEVELS) ** 3, 1), bytes(sum(product(_PROBE_LEVELS, repeat=3), ())))
    try:
        converted = _convert_by_profile(colours.copy(), profile).tobytes()
    except _UNREADABLE_PROFILE:
        return False
    return all(abs(one - other) <= _SRGB_TOLERANCE for one, other in zip(colours.tobytes(), converted, strict=True))


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
    if "transparency" in image.info:
        return image.convert("RGBA")
    if image.mode in _ALPHA_MODES:
        return _in_mode(image, "RGBA")
    if image.mode == "P":
        return image.convert("RGBA" if image.has_transparency_data else "RGB")
    if image.mode not in _TARGET_MODES:
        raise UnsupportedPixels(f"pixels in mode {image.mode} have no known brightness range")
    return _in_mode(image, _TARGET_MODES[image.mode])


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    return image if image.mode == mode else image.convert(mode)  # Pillow would copy


_UNREADABLE_PROFILE = (ImageCms.PyCMSError, OSError, ValueError, TypeError)
"""It is unreadable, or made for another kind of pixels: viewers ignore such a profile as well."""


def colour_conversion(image: Image.Image) -> ColourConversion:
    """How an image of mode L, RGB, RGBA or CMYK becomes sRGB, without decoding it."""
    profile = _profile_of(image)
    if not profile or (image.mode in ("RGB", "RGBA") and is_srgb_profile(profile)):
        return "assumed" if image.mode == "CMYK" else "srgb"
    try:
        _convert_by_profile(Image.new(image.mode, (1, 1)), profile)
    except _UNREADABLE_PROFILE:
        return "assumed"
    return "converted"


def _to_srgb(image: Image.Image) -> tuple[Image.Image, ColourConversion]:
    colour, profile = colour_conversion(image), _profile_of(image)
    if colour == "converted" and profile:
        return _convert_by_profile(image, profile), colour
    return (image.convert("RGB") if image.mode == "CMYK" else image), colour


def _profile_of(image: Image.Image) -> bytes | None:
    return cast("bytes | None", image.info.get("icc_profile"))


def _convert_by_profile(image: Image.Image, profile: bytes) -> Image.Image:
    """The converted image, which is `image` itself if its mode stays the same."""
    converted = ImageCms.profileToProfile(
        image,
        ImageCms.ImageCmsProfile(BytesIO(profile)),
        ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        outputMode="RGBA" if image.mode == "RGBA" else "RGB",
        inPlace=image.mode in ("RGB", "RGBA"),
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    return image if converted is None else converted  # none: it was converted in place


def _is_opaque(image: Image.Image) -> bool:
    return image.getchannel("A").getextrema() == (255, 255)
