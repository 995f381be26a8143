"""Exported pictures are upright in every format that can keep an orientation, as other programs ignore it."""

import asyncio
import io
import json
from collections.abc import AsyncIterator
from typing import Any
from zipfile import ZipFile

import httpx
import numpy as np
import pytest
from PIL import Image, ImageOps, JpegImagePlugin

from contracts.jpeg_cut import kept_orientation, take_apart
from contracts.pixels import FIRST_SIDEWAYS, orientation_of
from gateway.exports.upright import NotTurned, Turner
from gateway.exports.upright_jpeg import upright_jpeg
from tests.contracts.test_pixels import ORIENTATIONS, draw_picture, with_orientation

P = "/api/v1"
LOSSLESS: dict[str, dict[str, Any]] = {"PNG": {}, "WEBP": {"lossless": True}, "TIFF": {}, "AVIF": {"quality": 90}}
JPEGS: dict[str, tuple[str, dict[str, Any]]] = {
    "444": ("RGB", {"quality": 90, "subsampling": 0}),
    "422": ("RGB", {"quality": 90, "subsampling": 1}),
    "420": ("RGB", {"quality": 90, "subsampling": 2}),
    "progressive": ("RGB", {"quality": 75, "progressive": True}),
    "rgb": ("RGB", {"quality": 90, "subsampling": 0, "keep_rgb": True}),
    "grey": ("L", {"quality": 85}),
}


def draw(kind: str, orientation: int, mode: str = "RGB", size: tuple[int, int] = (93, 61), **options: Any) -> bytes:
    content = io.BytesIO()
    draw_picture(mode, *size).save(content, kind, exif=with_orientation(orientation), **options)
    return content.getvalue()


def opened(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


def upright_by_pillow(content: bytes) -> Image.Image:
    return ImageOps.exif_transpose(opened(content))


def pixels(image: Image.Image) -> np.ndarray[Any, np.dtype[np.int16]]:
    return np.asarray(image.convert("RGB"), dtype=np.int16)


def expected_jpeg(content: bytes, orientation: int) -> np.ndarray[Any, np.dtype[np.int16]]:
    """Upright by Pillow, encoded with the source's own tables and sampling as far as Pillow can, and decoded again."""
    source = opened(content)
    assert isinstance(source, JpegImagePlugin.JpegImageFile)
    sideways = orientation >= FIRST_SIDEWAYS
    tables = [np.reshape(source.quantization[layer[3]], (8, 8)) for layer in source.layer]
    sampling = JpegImagePlugin.get_sampling(source)
    again = io.BytesIO()
    upright_by_pillow(content).save(
        again,
        "JPEG",
        qtables=[(table.T if sideways else table).ravel().tolist() for table in tables],
        subsampling=0 if sampling < 0 or (sampling == 1 and sideways) else sampling,
        keep_rgb=source.info.get("adobe_transform") == 0,
    )
    return pixels(opened(again.getvalue()))


@pytest.mark.slow
def test_every_export_is_upright_and_equal_bytes_again(address: str) -> None:
    sources = {
        f"{kind}-{value}": draw(kind, value, size=(93 + number, 61), **options)  # equal pixels would be one image
        for number, (kind, options) in enumerate(LOSSLESS.items())
        for value in ORIENTATIONS
    }
    jpegs = {
        f"{name}-{value}": draw("JPEG", value, mode, **options)
        for name, (mode, options) in JPEGS.items()
        for value in ORIENTATIONS
    }
    with httpx.Client(base_url=address, timeout=60) as client:
        path = f"{P}/datasets/turned"
        client.post(f"{P}/datasets", json={"name": "turned"}).raise_for_status()
        files = [("files", (f"{name}.png", content)) for name, content in {**sources, **jpegs}.items()]
        imported = client.post(f"{path}/images", files=files)
        assert imported.status_code == 201, imported.text
        views = {view["name"]: view for view in client.get(f"{path}/images", params={"limit": 500}).json()["items"]}
        exports = [client.get(f"{path}/export", params={"format": "flat"}).content for _ in range(2)]
        assert exports[0] == exports[1]
        archive = ZipFile(io.BytesIO(exports[0]))
        assert archive.testzip() is None
        exported = {name.rsplit(".", 1)[0]: archive.read(name) for name in archive.namelist() if name != "export.json"}
        others = {
            form: ZipFile(io.BytesIO(client.get(f"{path}/export", params={"format": form}).content))
            for form in ("kohya", "imagefolder")
        }
        name = next(one for one in views if one.startswith("420-6"))
        original = client.get(f"{P}/images/{views[name]['id']}/file", params={"original": 1}).content
    for form, other in others.items():
        names = {one.rsplit("/", 1)[-1].rsplit(".", 1)[0]: one for one in other.namelist()}
        assert all(other.read(names[stem]) == content for stem, content in exported.items()), form
    assert original == jpegs["420-6"], "the file as received is not turned"
    assert len(exported) == len(views) == len(sources) + len(jpegs)
    for stem, content in exported.items():
        image, orientation = opened(content), int(stem[-1])
        view = views[f"{stem}.png"]
        assert orientation_of(image) == 1 and image.size == (view["width"], view["height"]), stem
        if stem in sources:
            assert np.array_equal(pixels(image), pixels(upright_by_pillow(sources[stem]))), stem
        elif orientation == 1:
            assert np.array_equal(pixels(image), pixels(opened(jpegs[stem]))), stem
        else:
            assert np.array_equal(pixels(image), expected_jpeg(jpegs[stem], orientation)), stem
            assert "exif" not in image.info
    assert json.loads(archive.read("export.json"))["left_out"] == []


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("name", JPEGS)
def test_turning_costs_almost_no_quality_and_no_space(name: str, orientation: int) -> None:
    mode, options = JPEGS[name]
    source = draw("JPEG", orientation, mode, (640, 480), **options)
    turned = upright_jpeg(source)
    difference = np.abs(pixels(opened(turned)) - pixels(upright_by_pillow(source)))
    keeps_all = name in {"444", "rgb", "grey"}  # of the others, colours are made smaller once more
    assert difference.mean() < (0.1 if keeps_all else 2.0)
    assert len(turned) < (1.1 if keeps_all else 1.45) * len(source)  # 4:2:2 becomes 4:4:4; progressive becomes baseline


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("name", JPEGS)
def test_a_stored_picture_says_in_its_first_bytes_how_it_is_turned(name: str, orientation: int) -> None:
    mode, options = JPEGS[name]
    apart = take_apart(draw("JPEG", orientation, mode, **options), orientation)
    assert apart is not None
    assert kept_orientation(apart.picture[:64]) == orientation == orientation_of(opened(apart.picture))
    again = upright_jpeg(apart.picture)
    assert (kept_orientation(again), again) == (1, upright_jpeg(apart.picture))


def test_other_bytes_have_no_orientation() -> None:
    for content in (b"", b"\xff", b"\xff\xd8", draw("PNG", 6), draw("WEBP", 3), draw("JPEG", 6)[:40]):
        assert kept_orientation(content) == 1


async def chunks(content: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


async def test_one_process_turns_one_picture_after_the_other_in_any_pieces() -> None:
    source = draw("JPEG", 6, size=(1500, 1000), quality=95)
    async with Turner(asyncio.Semaphore(1)) as turner:
        for size in (len(source), 1 << 20, 999):
            assert b"".join([part async for part in turner.turn(chunks(source, size))]) == upright_jpeg(source)


async def test_a_picture_that_cannot_be_turned_is_named_and_frees_its_slot() -> None:
    slots = asyncio.Semaphore(1)
    for content in (b"no picture", draw("JPEG", 6)[:400]):
        async with Turner(slots) as turner:
            with pytest.raises(NotTurned, match="cannot be decoded"):
                _ = [part async for part in turner.turn(chunks(content, 100))]
    assert not slots.locked()


@pytest.mark.slow
async def test_the_largest_picture_is_turned() -> None:
    content = io.BytesIO()
    Image.new("RGB", (9248, 6920), "teal").save(content, "JPEG", exif=with_orientation(5), quality=90)
    async with Turner(asyncio.Semaphore(1)) as turner:
        parts = [part async for part in turner.turn(chunks(content.getvalue(), 1 << 20))]
    assert opened(b"".join(parts)).size == (6920, 9248)
