"""Bad files are refused with a reason, leave no files behind, and do not affect the next file."""

import os
import struct
import zlib
from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path
from random import Random
from typing import get_args

import pytest
import pytest_asyncio
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from catalog.ingest.examine import pixels_digest
from catalog.ingest.outcomes import Accepted, Limits, Reason, Refused
from catalog.ingest.pool import Decoder
from contracts.jpeg_cut import rebuild
from contracts.pixels import to_upright_srgb, upright_size

pytestmark = pytest.mark.asyncio(loop_scope="module")

LIMITS = Limits(max_bytes=1 << 20)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def decoder() -> AsyncIterator[Decoder]:
    async with Decoder(LIMITS, workers=1) as decoder:
        yield decoder


async def assert_refused(decoder: Decoder, folder: Path, content: bytes, reason: Reason) -> Refused:
    """Examine `content`; check the reason, that no files are left, and that a good file is still accepted."""
    staged, into = folder / "staged.png", folder / "into"
    staged.write_bytes(content)
    into.mkdir()
    outcome = await decoder.examine(staged, into=into)
    assert isinstance(outcome, Refused), outcome
    assert outcome.reason == reason
    assert list(into.iterdir()) == []
    staged.write_bytes(encode(Image.new("RGB", (8, 8), "green")))
    assert isinstance(await decoder.examine(staged, into=into), Accepted)
    return outcome


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(side: int = 200) -> Image.Image:
    return Image.effect_noise((side, side), 80).convert("RGB")


def png_claiming_size(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(bytes(1000))
    chunks = (struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body)) for body in (header, data))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def webp_claiming_size(width: int, height: int) -> bytes:
    bits = (width - 1) | (height - 1) << 14
    body = b"\x2f" + struct.pack("<I", bits) + bytes(3000)
    return b"RIFF" + struct.pack("<I", len(body) + 13) + b"WEBPVP8L" + struct.pack("<I", len(body)) + body + b"\0"


async def test_an_empty_file(decoder: Decoder, tmp_path: Path) -> None:
    await assert_refused(decoder, tmp_path, b"", "empty")


async def test_a_file_over_the_limit(decoder: Decoder, tmp_path: Path) -> None:
    picture = encode(Image.new("RGB", (8, 8)))
    outcome = await assert_refused(decoder, tmp_path, picture.ljust(LIMITS.max_bytes + 1, b"\0"), "too-large")
    assert outcome.detail == "the file is larger than 1,048,576 bytes"


async def test_a_text_file_named_png(decoder: Decoder, tmp_path: Path) -> None:
    outcome = await assert_refused(decoder, tmp_path, b"1girl, solo, smile\n", "unknown-format")
    assert "JPEG, PNG, WEBP, AVIF, BMP, GIF, TIFF" in outcome.detail


async def test_formats_that_run_programs_or_load_other_files(decoder: Decoder, tmp_path: Path) -> None:
    for number, kind in enumerate(("EPS", "PDF", "TGA", "PPM", "ICO")):
        folder = tmp_path / str(number)
        folder.mkdir()
        await assert_refused(decoder, folder, encode(Image.new("RGB", (8, 8)), kind), "unknown-format")


async def test_an_svg(decoder: Decoder, tmp_path: Path) -> None:
    await assert_refused(
        decoder, tmp_path, b'<svg xmlns="http://www.w3.org/2000/svg"><script/></svg>', "unknown-format"
    )


async def test_a_picture_one_pixel_wide(decoder: Decoder, tmp_path: Path) -> None:
    sliver = encode(Image.new("L", (1, 15_000)))
    outcome = await assert_refused(decoder, tmp_path, sliver, "too-narrow")
    assert outcome.detail == "it is 1 x 15000; the longer side may be at most 32 times the shorter"


async def test_the_1_by_30000_png(decoder: Decoder, tmp_path: Path) -> None:
    sliver = encode(Image.new("1", (1, 30_000)), optimize=True)
    assert len(sliver) < 200
    await assert_refused(decoder, tmp_path, sliver, "too-long-side")


@pytest.mark.parametrize("sides", [(8001, 8000), (9000, 9000), (65_535, 65_535)])
async def test_a_png_claiming_a_huge_size_is_not_decoded(
    decoder: Decoder, tmp_path: Path, sides: tuple[int, int]
) -> None:
    outcome = await assert_refused(decoder, tmp_path, png_claiming_size(*sides), "too-many-pixels")
    assert outcome.detail == "it has more than 64,000,000 pixels, the most that a picture may have"


async def test_a_3_kb_webp_of_9000_by_9000_gets_no_canvas(decoder: Decoder, tmp_path: Path) -> None:
    await assert_refused(decoder, tmp_path, webp_claiming_size(9000, 9000), "too-many-pixels")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "BMP", "GIF", "TIFF"])
@pytest.mark.parametrize("share", [0.5, 0.95])
async def test_a_truncated_picture(decoder: Decoder, tmp_path: Path, kind: str, share: float) -> None:
    whole = encode(noise(), kind)
    await assert_refused(decoder, tmp_path, whole[: int(len(whole) * share)], "broken")


async def test_a_truncated_progressive_jpeg(decoder: Decoder, tmp_path: Path) -> None:
    whole = encode(noise(), "JPEG", progressive=True)
    await assert_refused(decoder, tmp_path, whole[: len(whole) // 2], "broken")


@pytest.mark.parametrize(
    "magic", [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\x20\0\0\0WEBPVP8 ", b"BM", b"GIF89a", b"II*\0"]
)
async def test_magic_bytes_followed_by_garbage(decoder: Decoder, tmp_path: Path, magic: bytes) -> None:
    await assert_refused(decoder, tmp_path, magic + bytes(range(256)), "broken")


async def test_a_text_chunk_that_unpacks_to_50_mb(decoder: Decoder, tmp_path: Path) -> None:
    text = PngInfo()
    text.add_text("bomb", "a" * 50_000_000, zip=True)
    bomb = encode(Image.new("L", (8, 8)), pnginfo=text)
    assert len(bomb) < 60_000
    await assert_refused(decoder, tmp_path, bomb, "broken")


async def test_pixels_without_a_known_range(decoder: Decoder, tmp_path: Path) -> None:
    await assert_refused(decoder, tmp_path, encode(Image.new("F", (8, 8), 0.5), "TIFF"), "unsupported-pixels")


async def test_the_refusal_quotes_no_text_from_the_file(decoder: Decoder, tmp_path: Path) -> None:
    evil = b"<script>alert(1)</script>"
    outcome = await assert_refused(decoder, tmp_path, b"\x89PNG\r\n\x1a\n" + evil * 20, "broken")
    assert "script" not in outcome.detail
    assert str(tmp_path) not in outcome.detail


async def test_what_is_no_file(decoder: Decoder, tmp_path: Path) -> None:
    (tmp_path / "file.png").write_bytes(encode(noise()))
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link.png").symlink_to("file.png")
    for name, what in [("pipe.png", "it is a named pipe, not a file"), ("link.png", "it is a link")]:
        outcome = await decoder.examine(tmp_path / name, into=tmp_path)
        assert outcome == Refused(reason="not-a-file", detail=what)


async def test_a_small_webp_of_64_million_pixels_takes_no_memory(decoder: Decoder, tmp_path: Path) -> None:
    outcome = await assert_refused(decoder, tmp_path, webp_claiming_size(8000, 8000), "too-many-pixels")
    assert outcome.detail == "it has more than 30,932,992 pixels, the most that a WEBP may have"


@pytest.mark.slow
async def test_a_picture_whose_copies_do_not_fit(tmp_path: Path) -> None:
    async with Decoder(Limits(memory_bytes=64 << 20), workers=1) as small:
        transparent = encode(Image.new("RGBA", (2000, 2000), (1, 2, 3, 4)))
        outcome = await assert_refused(small, tmp_path, transparent, "too-much-memory")
    assert outcome.detail == "it takes about 70 MB of memory to read; a picture may take 64"


async def test_mutated_pictures_are_taken_or_refused_and_what_is_taken_can_be_rebuilt(
    decoder: Decoder, tmp_path: Path
) -> None:
    rng, kinds, outcomes = Random(6), ("JPEG", "PNG", "WEBP", "AVIF", "BMP", "GIF", "TIFF"), set()
    exif = Image.Exif()
    exif[0x0112] = 6
    whole = {kind: encode(noise(40), kind, **({"exif": exif.tobytes()} if kind == "JPEG" else {})) for kind in kinds}
    staged = tmp_path / "staged"
    for number in range(300):
        data = bytearray(whole["JPEG" if number % 2 else kinds[number // 2 % len(kinds)]])
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(2, len(data))
            data[at : at + rng.randint(0, 2)] = rng.randbytes(rng.randint(0, 3))
        staged.write_bytes(data)
        outcome = await decoder.examine(staged, into=tmp_path)
        outcomes.add(outcome.reason if isinstance(outcome, Refused) else outcome.format)
        if isinstance(outcome, Accepted) and outcome.cut_path is not None:
            assert rebuild(outcome.picture_path.read_bytes(), outcome.cut_path.read_bytes()) == data
            with Image.open(outcome.picture_path) as kept:
                assert upright_size(kept) == (outcome.width, outcome.height)
                assert pixels_digest(to_upright_srgb(kept)[0]) == outcome.pixels_sha256
    assert {"JPEG", "PNG", "broken"} <= outcomes <= {*kinds, *get_args(Reason)} - {"decoder-crashed"}
