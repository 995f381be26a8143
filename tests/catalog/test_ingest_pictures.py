"""Accepted pictures are normalised: upright, sRGB, 8 bits, bare."""

import hashlib
import struct
import zlib
from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
from PIL import Image, ImageCms, ImageOps
from PIL.PngImagePlugin import PngInfo

from catalog.ingest.outcomes import Accepted, Limits
from catalog.ingest.pool import Decoder
from contracts.jpeg_cut import rebuild
from contracts.pixels import orientation_of, to_upright_srgb

pytestmark = pytest.mark.asyncio(loop_scope="module")

T = Image.Transpose
STORED_AS = {  # orientation: what was done to the picture when it was stored
    1: None,
    2: T.FLIP_LEFT_RIGHT,
    3: T.ROTATE_180,
    4: T.FLIP_TOP_BOTTOM,
    5: T.TRANSPOSE,
    6: T.ROTATE_90,
    7: T.TRANSVERSE,
    8: T.ROTATE_270,
}
SRGB_PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
GARBAGE_PROFILE = b"this is no ICC profile" * 10


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def decoder() -> AsyncIterator[Decoder]:
    async with Decoder(Limits(), workers=1) as decoder:
        yield decoder


def draw_picture(width: int = 48, height: int = 32) -> Image.Image:
    """A picture without symmetry, so that every orientation differs."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    return Image.fromarray(np.stack([x * 5, y * 7, (x * y) % 256], axis=-1).astype(np.uint8))


def save(folder: Path, image: Image.Image, kind: str = "PNG", **options: object) -> Path:
    path = folder / f"staged-{len(list(folder.iterdir()))}"
    image.save(path, kind, **options)
    return path


def with_orientation(value: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif.tobytes()


async def examine(decoder: Decoder, path: Path) -> Accepted:
    outcome = await decoder.examine(path, into=path.parent)
    assert isinstance(outcome, Accepted), outcome
    return outcome


def open_picture(outcome: Accepted) -> Image.Image:
    image = Image.open(outcome.picture_path)
    image.load()
    return image


async def test_a_bare_source_is_used_as_the_picture(decoder: Decoder, tmp_path: Path) -> None:
    for kind in ("PNG", "JPEG", "WEBP"):
        path = save(tmp_path, draw_picture(), kind)
        outcome = await examine(decoder, path)
        assert (outcome.format, outcome.width, outcome.height) == (kind, 48, 32)
        assert (outcome.source_is_picture, outcome.picture_path) == (True, path)
        assert outcome.sha256 == outcome.picture_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert outcome.bytes == outcome.picture_bytes == path.stat().st_size
        assert open_picture(outcome).format == kind


async def test_other_formats_are_encoded_as_png(decoder: Decoder, tmp_path: Path) -> None:
    for kind in ("BMP", "GIF", "TIFF", "AVIF"):
        outcome = await examine(decoder, save(tmp_path, draw_picture(), kind))
        assert (outcome.format, outcome.source_is_picture) == (kind, False)
        assert open_picture(outcome).format == "PNG"


async def test_digests_and_sizes_match_the_files(decoder: Decoder, tmp_path: Path) -> None:
    outcome = await examine(decoder, save(tmp_path, draw_picture(), "BMP"))
    for path, size, digest in [
        (outcome.picture_path, outcome.picture_bytes, outcome.picture_sha256),
        (outcome.thumbnail_path, outcome.thumbnail_bytes, outcome.thumbnail_sha256),
    ]:
        assert (path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest()) == (size, digest)


async def test_the_same_bytes_give_the_same_files_in_another_decoder(decoder: Decoder, tmp_path: Path) -> None:
    path = save(tmp_path, draw_picture(300, 200), "TIFF")
    first = await examine(decoder, path)
    async with Decoder(Limits(), workers=1) as another:
        second = await examine(another, path)
    assert first.picture_path != second.picture_path
    assert first.picture_path.read_bytes() == second.picture_path.read_bytes()
    assert first.thumbnail_path.read_bytes() == second.thumbnail_path.read_bytes()


@pytest.mark.parametrize("orientation", STORED_AS)
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
async def test_every_orientation_is_made_upright(decoder: Decoder, tmp_path: Path, orientation: int, kind: str) -> None:
    turn = STORED_AS[orientation]
    stored = draw_picture() if turn is None else draw_picture().transpose(turn)
    lossless: dict[str, object] = {"lossless": True} if kind == "WEBP" else {}
    path = save(tmp_path, stored, kind, exif=with_orientation(orientation), **lossless)
    outcome = await examine(decoder, path)
    assert (outcome.width, outcome.height, outcome.source_is_picture) == (48, 32, False)
    assert open_picture(outcome).tobytes() == draw_picture().tobytes()


async def test_a_broken_exif_block_is_ignored(decoder: Decoder, tmp_path: Path) -> None:
    outcome = await examine(decoder, save(tmp_path, draw_picture(), "JPEG", exif=b"Exif\0\0" + b"\xff" * 60))
    assert (outcome.width, outcome.height) == (48, 32)


async def test_the_picture_contains_only_pixels(decoder: Decoder, tmp_path: Path) -> None:
    secret = b"52.5200 N, 13.4050 E"
    text = PngInfo()
    text.add_text("parameters", secret.decode())
    exif = Image.Exif()
    exif[0x010E] = secret.decode()
    tail = save(tmp_path, draw_picture())
    tail.write_bytes(tail.read_bytes() + b"<html>" + secret)
    for path in [
        save(tmp_path, draw_picture(), pnginfo=text),
        save(tmp_path, draw_picture(), "JPEG", exif=exif.tobytes()),
        save(tmp_path, draw_picture(), "JPEG", comment=secret),
        save(tmp_path, draw_picture(), "WEBP", xmp=secret),
        tail,
    ]:
        assert secret in path.read_bytes()
        outcome = await examine(decoder, path)
        assert not outcome.source_is_picture
        assert secret not in outcome.picture_path.read_bytes() + outcome.thumbnail_path.read_bytes()
        assert set(open_picture(outcome).info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}


@pytest.mark.parametrize("orientation", STORED_AS)
@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"icc_profile": SRGB_PROFILE}], ids=["", "progressive", "srgb"]
)
async def test_a_jpeg_keeps_its_data_and_its_orientation(
    decoder: Decoder, tmp_path: Path, orientation: int, options: dict[str, object]
) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = orientation, "52.5200 N"
    path = save(tmp_path, draw_picture(600, 400), "JPEG", exif=exif.tobytes(), **options)
    with Image.open(path) as image:
        upright = ImageOps.exif_transpose(image)
    outcome = await examine(decoder, path)
    assert (outcome.width, outcome.height, outcome.colour) == (*upright.size, "srgb")
    assert outcome.pixels_sha256 == digest_of(upright)
    with open_picture(outcome) as kept:
        assert (kept.format, orientation_of(kept), "icc_profile" in kept.info) == ("JPEG", orientation, False)
        assert to_upright_srgb(kept)[0].tobytes() == upright.tobytes()
    with Image.open(outcome.thumbnail_path) as thumbnail:
        assert thumbnail.size == ((256, 171) if orientation < 5 else (171, 256))
        assert np.abs(small(thumbnail) - small(upright)).mean() < 4
    assert outcome.cut_path is not None and outcome.cut_sha256 is not None
    cut = outcome.cut_path.read_bytes()
    assert hashlib.sha256(cut).hexdigest() == outcome.cut_sha256
    assert rebuild(outcome.picture_path.read_bytes(), cut) == path.read_bytes()


async def test_a_kept_jpeg_is_a_source_that_is_its_own_picture(decoder: Decoder, tmp_path: Path) -> None:
    first = await examine(decoder, save(tmp_path, draw_picture(), "JPEG", exif=with_orientation(6), comment=b"a"))
    again = await examine(decoder, first.picture_path)
    assert (again.source_is_picture, again.cut_path) == (True, None)
    assert (again.pixels_sha256, again.thumbnail_sha256) == (first.pixels_sha256, first.thumbnail_sha256)


@pytest.mark.slow
async def test_a_phones_photograph_takes_little_more_than_its_bytes(decoder: Decoder, tmp_path: Path) -> None:
    preview = BytesIO()
    draw_picture(320, 240).save(preview, "JPEG")
    grain = Image.effect_noise((4000, 3000), 40).convert("RGB")
    path = save(tmp_path, grain, "JPEG", quality=80, exif=with_orientation(6), comment=preview.getvalue())
    outcome = await examine(decoder, path)
    assert outcome.cut_path is not None
    stored = outcome.picture_path.stat().st_size + outcome.cut_path.stat().st_size
    assert stored <= 1.001 * path.stat().st_size + 200


async def test_jpegs_whose_pixels_must_change_are_encoded_as_png(decoder: Decoder, tmp_path: Path) -> None:
    for image, options in [
        (draw_picture(), {"icc_profile": display_p3()}),
        (draw_picture().convert("CMYK"), {}),
    ]:
        outcome = await examine(decoder, save(tmp_path, image, "JPEG", **options))
        assert (outcome.source_is_picture, outcome.cut_path, open_picture(outcome).format) == (False, None, "PNG")


async def test_a_jpeg_can_be_encoded_again_as_before(decoder: Decoder, tmp_path: Path) -> None:
    path = save(tmp_path, draw_picture(300, 200), "JPEG", exif=with_orientation(6))
    kept = await examine(decoder, path)
    before = await decoder.examine(path, into=tmp_path, rules=1)
    assert isinstance(before, Accepted)
    assert (before.cut_path, open_picture(before).format) == (None, "PNG")
    assert (before.width, before.height, before.pixels_sha256) == (kept.width, kept.height, kept.pixels_sha256)


def digest_of(image: Image.Image) -> str:
    return hashlib.sha256(f"RGB {image.width}x{image.height}\n".encode() + image.convert("RGB").tobytes()).hexdigest()


def small(image: Image.Image) -> "np.ndarray[tuple[int, ...], np.dtype[np.int16]]":
    return np.asarray(image.convert("RGB").resize((16, 16), Image.Resampling.BOX), dtype=np.int16)


async def test_16_bit_grey_is_scaled_and_not_clamped(decoder: Decoder, tmp_path: Path) -> None:
    values = [0, 128, 129, 257, 40_000, 65_535]
    for kind, order in [("PNG", "<"), ("TIFF", ">")]:
        mode = "I;16" if order == "<" else "I;16B"
        wide = Image.frombytes(mode, (6, 1), struct.pack(f"{order}6H", *values))
        outcome = await examine(decoder, save(tmp_path, wide, kind))
        assert not outcome.source_is_picture
        assert list(open_picture(outcome).tobytes()) == [0, 0, 1, 1, 156, 255]


async def test_16_bit_grey_keeps_its_transparent_value(decoder: Decoder, tmp_path: Path) -> None:
    wide = Image.frombytes("I;16", (3, 1), struct.pack("<3H", 0, 40_000, 65_535))
    outcome = await examine(decoder, save(tmp_path, wide, transparency=40_000))
    assert open_picture(outcome).mode == "RGBA"
    assert list(open_picture(outcome).getchannel("A").tobytes()) == [255, 0, 255]


async def test_16_bit_colour_becomes_8_bits(decoder: Decoder, tmp_path: Path) -> None:
    path = tmp_path / "wide.png"
    path.write_bytes(png(2, 1, depth=16, colour=2, rows=b"\0" + struct.pack(">6H", 65_535, 0, 32_896, 257, 514, 771)))
    outcome = await examine(decoder, path)
    assert not outcome.source_is_picture
    assert list(open_picture(outcome).tobytes()) == [255, 0, 128, 1, 2, 3]


async def test_cmyk_becomes_rgb(decoder: Decoder, tmp_path: Path) -> None:
    ink = Image.new("CMYK", (32, 32), (0, 255, 255, 0))
    files: list[tuple[str, dict[str, object]]] = [
        ("TIFF", {}),
        ("TIFF", {"icc_profile": GARBAGE_PROFILE}),
        ("JPEG", {"quality": 100}),
    ]
    for kind, options in files:
        outcome = await examine(decoder, save(tmp_path, ink, kind, **options))
        assert (open_picture(outcome).mode, outcome.colour) == ("RGB", "assumed")
        assert np.allclose(pixel_of(open_picture(outcome)), (255, 0, 0), atol=2)


async def test_display_p3_becomes_srgb_by_its_profile(decoder: Decoder, tmp_path: Path) -> None:
    seen = (200, 120, 60)
    path = save(tmp_path, Image.new("RGB", (32, 32), seen), "PNG", icc_profile=display_p3())
    outcome = await examine(decoder, path)
    assert (outcome.colour, outcome.source_is_picture) == ("converted", False)
    assert np.allclose(pixel_of(open_picture(outcome)), p3_in_srgb(seen), atol=1.5)


async def test_a_profile_also_applies_to_pictures_with_alpha(decoder: Decoder, tmp_path: Path) -> None:
    path = save(tmp_path, Image.new("RGBA", (32, 32), (200, 120, 60, 100)), icc_profile=display_p3())
    *colour, alpha = pixel_of(open_picture(await examine(decoder, path)))
    assert np.allclose(colour, p3_in_srgb((200, 120, 60)), atol=1.5)
    assert alpha == 100


async def test_an_srgb_profile_changes_no_pixel(decoder: Decoder, tmp_path: Path) -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    outcome = await examine(decoder, save(tmp_path, draw_picture(), icc_profile=srgb))
    assert open_picture(outcome).tobytes() == draw_picture().tobytes()


async def test_an_unreadable_profile_is_assumed_to_be_srgb(decoder: Decoder, tmp_path: Path) -> None:
    for profile, image in [(GARBAGE_PROFILE, draw_picture()), (display_p3(), draw_picture().convert("L"))]:
        outcome = await examine(decoder, save(tmp_path, image, icc_profile=profile))
        assert outcome.colour == "assumed"
        assert open_picture(outcome).tobytes() == image.tobytes()


async def test_a_palette_with_transparency_keeps_colour_and_alpha(decoder: Decoder, tmp_path: Path) -> None:
    image = Image.new("P", (8, 8), 0)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((3, 3), 1)
    outcome = await examine(decoder, save(tmp_path, image, transparency=0))
    assert not outcome.source_is_picture
    assert open_picture(outcome).mode == "RGBA"
    assert open_picture(outcome).getpixel((0, 0)) == (255, 0, 0, 0)
    assert open_picture(outcome).getpixel((3, 3)) == (0, 0, 255, 255)


async def test_a_transparent_colour_keeps_its_alpha(decoder: Decoder, tmp_path: Path) -> None:
    for image, key in [(Image.new("L", (8, 8), 9), 9), (Image.new("RGB", (8, 8), (1, 2, 3)), (1, 2, 3))]:
        image.putpixel((3, 3), 200 if image.mode == "L" else (200, 200, 200))
        outcome = await examine(decoder, save(tmp_path, image, transparency=key))
        assert not outcome.source_is_picture
        assert pixel_of(open_picture(outcome))[3] == 0
        assert open_picture(outcome).getpixel((3, 3)) == (200, 200, 200, 255)


async def test_alpha_is_kept_and_hidden_colour_stays_hidden(decoder: Decoder, tmp_path: Path) -> None:
    image = Image.new("RGBA", (300, 300), (255, 0, 0, 0))
    outcome = await examine(decoder, save(tmp_path, image))
    assert outcome.source_is_picture
    with Image.open(outcome.thumbnail_path) as thumbnail:
        assert thumbnail.getchannel("A").getextrema() == (0, 0)


async def test_black_and_white_palette_and_grey_are_plain_8_bits(decoder: Decoder, tmp_path: Path) -> None:
    for mode, becomes in [("1", "L"), ("P", "RGB"), ("L", "L"), ("LA", "RGB")]:
        outcome = await examine(decoder, save(tmp_path, draw_picture().convert("L").convert(mode)))
        assert open_picture(outcome).mode == becomes


async def test_the_first_frame_of_an_animation_is_used(decoder: Decoder, tmp_path: Path) -> None:
    frames = [Image.new("RGB", (32, 32), (12 * n, 0, 255)) for n in range(20)]
    for kind in ("WEBP", "GIF", "PNG", "TIFF", "AVIF"):
        path = save(tmp_path, frames[0], kind, save_all=True, append_images=frames[1:])
        outcome = await examine(decoder, path)
        assert (outcome.animated, outcome.source_is_picture) == (True, False), kind
        assert np.allclose(pixel_of(open_picture(outcome)), (0, 0, 255), atol=4)


async def test_a_phones_picture_with_a_preview_inside_is_a_plain_jpeg(decoder: Decoder, tmp_path: Path) -> None:
    path = save(tmp_path, draw_picture(), "MPO", save_all=True, append_images=[draw_picture(24, 16)])
    outcome = await examine(decoder, path)
    assert (outcome.format, outcome.animated, outcome.source_is_picture) == ("JPEG", False, False)


async def test_the_file_name_does_not_determine_the_format(decoder: Decoder, tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    draw_picture().save(path, "PNG")
    assert (await examine(decoder, path)).format == "PNG"


async def test_the_same_pixels_have_one_digest_in_every_encoding(decoder: Decoder, tmp_path: Path) -> None:
    grey = draw_picture().convert("L")
    same = [
        save(tmp_path, grey),
        save(tmp_path, grey, "BMP"),
        save(tmp_path, grey.convert("RGB"), "TIFF"),
        save(tmp_path, grey.convert("RGBA")),
        save(tmp_path, grey.convert("RGB"), "WEBP", lossless=True),
        save(tmp_path, grey.transpose(T.ROTATE_90), exif=with_orientation(6)),
    ]
    outcomes = [await examine(decoder, path) for path in same]
    assert len({outcome.sha256 for outcome in outcomes}) == len(same)
    assert len({outcome.pixels_sha256 for outcome in outcomes}) == 1
    other = await examine(decoder, save(tmp_path, grey.transpose(T.ROTATE_180)))
    assert other.pixels_sha256 != outcomes[0].pixels_sha256


async def test_the_pixels_digest_is_computed_as_documented(decoder: Decoder, tmp_path: Path) -> None:
    outcome = await examine(decoder, save(tmp_path, draw_picture(40, 700)))
    assert outcome.pixels_sha256 == hashlib.sha256(b"RGB 40x700\n" + draw_picture(40, 700).tobytes()).hexdigest()


async def test_dhashes_of_near_duplicates_are_similar(decoder: Decoder, tmp_path: Path) -> None:
    noise = Image.effect_noise((900, 600), 90).resize((9, 6)).resize((900, 600), Image.Resampling.BICUBIC)
    large = await examine(decoder, save(tmp_path, noise))
    small = await examine(decoder, save(tmp_path, noise.resize((300, 200)), "JPEG", quality=70))
    turned = await examine(decoder, save(tmp_path, noise.transpose(T.FLIP_LEFT_RIGHT)))
    assert apart(large.dhash, small.dhash) <= 4
    assert apart(large.dhash, turned.dhash) > 10


async def test_a_dhash_reads_row_by_row_from_the_highest_bit(decoder: Decoder, tmp_path: Path) -> None:
    rising = Image.fromarray(np.tile(np.arange(9, dtype=np.uint8) * 20, (8, 1)))
    rising.paste(0, (0, 1, 9, 8))  # only the first row rises
    assert (await examine(decoder, save(tmp_path, rising))).dhash == "ff00000000000000"


@pytest.mark.parametrize(
    ("size", "small"),
    [((1024, 512), (256, 128)), ((512, 1024), (128, 256)), ((10, 5), (10, 5)), ((3200, 100), (256, 8))],
)
async def test_a_thumbnail_is_a_webp_of_at_most_256_pixels(
    decoder: Decoder, tmp_path: Path, size: tuple[int, int], small: tuple[int, int]
) -> None:
    outcome = await examine(decoder, save(tmp_path, draw_picture(*size)))
    with Image.open(outcome.thumbnail_path) as thumbnail:
        assert (thumbnail.format, thumbnail.size) == ("WEBP", small)


def apart(one: str, other: str) -> int:
    return (int(one, 16) ^ int(other, 16)).bit_count()


def pixel_of(image: Image.Image) -> tuple[int, ...]:
    pixel = image.getpixel((5, 5))
    assert isinstance(pixel, tuple)
    return tuple(int(value) for value in pixel)


def png(width: int, height: int, *, depth: int, colour: int, rows: bytes) -> bytes:
    """A PNG built from chunks, for what Pillow cannot write."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


P3 = np.array([[0.51512, 0.29198, 0.15710], [0.24120, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]])
SRGB = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])
"""Matrices from linear RGB to XYZ under D50, of both colour spaces."""


def display_p3() -> bytes:
    """A small ICC v2 profile (ICC.1:2001-04): Display P3's primaries, gamma 2.2."""

    def xyz(*values: float) -> bytes:
        return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in values))

    gamma = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(2.2 * 256)) + b"\0\0"
    name = b"desc\0\0\0\0" + struct.pack(">I", 3) + b"P3\0" + bytes(79)
    tags = {b"desc": name, b"cprt": b"text\0\0\0\0-\0\0\0", b"wtpt": xyz(0.9642, 1.0, 0.8249)}
    tags |= {kind: xyz(*P3[:, column]) for column, kind in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))}
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), gamma)
    table, bodies, at = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for kind, body in tags.items():
        padded = body + bytes(-len(body) % 4)
        table += kind + struct.pack(">II", at + len(bodies), len(body))
        bodies += padded
    white = struct.pack(">3i", 63190, 65536, 54061)
    header = struct.pack(">I4sI4s4s4s", at + len(bodies), b"", 0x02100000, b"mntr", b"RGB ", b"XYZ ") + bytes(12)
    header += b"acsp" + bytes(28) + white
    return header + bytes(128 - len(header)) + table + bodies


def p3_in_srgb(colour: tuple[int, int, int]) -> list[float]:
    linear = np.linalg.inv(SRGB) @ P3 @ (np.array(colour) / 255) ** 2.2
    linear = np.clip(linear, 0, 1)
    return [255 * (12.92 * v if v <= 0.0031308 else 1.055 * v ** (1 / 2.4) - 0.055) for v in linear.tolist()]
