"""A JPEG is taken apart and put together again without loss, whatever its bytes; its pixels stay, its metadata go."""

from contextlib import suppress
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from contracts.jpeg_cut import NotRebuildable, rebuild, take_apart
from contracts.pixels import orientation_of
from tests.limits import examples

SECRET = b"52.5200 N, 13.4050 E"
PROFILE = b"a profile " * 9000  # more than one segment


def jpeg(mode: str = "RGB", size: tuple[int, int] = (40, 24), kind: str = "JPEG", **options: object) -> bytes:
    buffer = BytesIO()
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    pixels = np.stack([x * 5 % 256, y * 9 % 256, (x * y) % 256], axis=-1).astype(np.uint8)
    Image.fromarray(pixels).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def exif(orientation: int) -> bytes:
    block = Image.Exif()
    block[0x0112] = orientation
    block[0x010E] = SECRET.decode()
    return block.tobytes()


def segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + (len(body) + 2).to_bytes(2, "big") + body


def after_start(data: bytes, inserted: bytes) -> bytes:
    return data[:2] + inserted + data[2:]


VARIANTS: dict[str, bytes] = {
    "plain": jpeg(),
    "grey": jpeg("L"),
    "cmyk": jpeg("CMYK"),
    "rgb": jpeg(keep_rgb=True),
    "progressive": jpeg(progressive=True),
    "restarts": jpeg(restart_marker_blocks=2),
    "exif": jpeg(exif=exif(6)),
    "exif progressive": jpeg(exif=exif(8), progressive=True, optimize=True),
    "profile": jpeg(icc_profile=PROFILE),
    "comment": jpeg(comment=SECRET),
    "xmp": jpeg(xmp=b"<x:xmpmeta>" + SECRET),
    "two pictures": jpeg(kind="MPO", save_all=True, append_images=[Image.new("RGB", (8, 8))]),
    "tail": jpeg(exif=exif(3)) + b"\0\0MotionPhoto" + SECRET * 100,
    "two ends": jpeg() + b"\xff\xd9" + jpeg(),
    "padding": after_start(jpeg(comment=SECRET), b"\xff" * 5),
    "photoshop": after_start(jpeg(), segment(0xED, b"Photoshop 3.0\0" + SECRET)),
    "jfif thumbnail": after_start(
        jpeg()[:2] + jpeg()[20:], segment(0xE0, b"JFIF\0\1\2\0\0\1\0\1\1\1" + SECRET[:3]) + segment(0xE0, b"JFXX\0")
    ),
    "exif before jfif": after_start(jpeg(), segment(0xE1, exif(5))),
}


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("orientation", [1, 6])
def test_the_source_is_rebuilt_and_the_pixels_stay(name: str, orientation: int) -> None:
    source = VARIANTS[name]
    apart = take_apart(source, orientation)
    assert apart is not None
    if apart.cut is None:
        assert apart.picture == source
    else:
        assert rebuild(apart.picture, apart.cut) == source
        assert len(apart.picture) + len(apart.cut) <= len(source) + 300
    assert SECRET not in apart.picture
    with Image.open(BytesIO(apart.picture)) as kept, Image.open(BytesIO(source)) as before:
        assert (kept.mode, kept.size, kept.tobytes()) == (before.mode, before.size, before.tobytes())
        assert set(kept.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density", "exif", "dpi", "adobe",
                                  "adobe_transform", "progressive", "progression"}  # fmt: skip
        assert orientation_of(kept) == orientation
        assert dict(kept.getexif()) == ({} if orientation == 1 else {0x0112: orientation})
    assert take_apart(apart.picture, orientation) == (apart.picture, None)


def test_a_jfif_header_with_a_thumbnail_keeps_what_it_says_of_colours_and_density() -> None:
    apart = take_apart(VARIANTS["jfif thumbnail"], 1)
    assert apart is not None
    assert apart.picture[:22] == b"\xff\xd8\xff\xe0\0\x10JFIF\0\1\2\0\0\1\0\1\0\0" + b"\xff\xdb"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xd8",
        b"\xff\xd8\xff\xd9",
        jpeg()[:-2],
        jpeg()[:300],
        after_start(jpeg(), b"bytes of no segment"),
        after_start(jpeg(), segment(0xC3, bytes(9))),  # a second frame, lossless
        after_start(jpeg(), segment(0xEE, b"Adobe" + bytes(7) + SECRET)),
        after_start(jpeg(), segment(0xFE, b"") * 5000),
        jpeg(kind="PNG"),
    ],
    ids=str,
)
def test_what_is_unusual_is_not_taken_apart(data: bytes) -> None:
    assert take_apart(data, 1) is None


@settings(max_examples=examples(400), deadline=None)
@given(
    st.sampled_from(sorted(VARIANTS)),
    st.integers(0, 9),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 3), st.binary(max_size=12)), max_size=4),
)
def test_mutated_files_are_refused_or_rebuilt_exactly(
    name: str, orientation: int, changes: list[tuple[float, int, bytes]]
) -> None:
    data = VARIANTS[name]
    for share, removed, inserted in changes:
        at = int(share * len(data))
        data = data[:at] + inserted + data[at + removed :]
    apart = take_apart(data, orientation)
    if apart is None:
        return
    assert (apart.picture if apart.cut is None else rebuild(apart.picture, apart.cut)) == data
    assert take_apart(apart.picture, orientation) == (apart.picture, None)


@settings(max_examples=examples(200), deadline=None)
@given(st.binary(max_size=200), st.integers(0, 400), st.integers(0, 3))
def test_a_damaged_cut_is_noticed_or_gives_bytes_within_bounds(noise: bytes, at: int, removed: int) -> None:
    apart = take_apart(VARIANTS["exif"], 6)
    assert apart is not None and apart.cut is not None
    damaged = apart.cut[:at] + noise + apart.cut[at + removed :]
    with suppress(NotRebuildable):
        assert len(rebuild(apart.picture, damaged)) <= len(VARIANTS["exif"]) + len(noise) + len(apart.picture)
    with pytest.raises(NotRebuildable):
        rebuild(apart.picture + b"\0", apart.cut)
