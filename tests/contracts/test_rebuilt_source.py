"""Files as received, streamed from their picture and what was cut: byte for byte, in any range, in little memory."""

import hashlib
import random
import tracemalloc
from pathlib import Path

import pytest

from contracts.ids import Digest
from contracts.jpeg_cut import take_apart
from contracts.wire.blobs.io import CHUNK_BYTES, Damaged
from contracts.wire.blobs.source import RebuiltSource, read_source
from contracts.wire.blobs.store import Blobs, blobs_at
from tests.contracts.test_jpeg_cut import VARIANTS, after_start, segment

MANY_PIECES = after_start(VARIANTS["exif"], b"".join(segment(0xFE, b"\0" * (number % 9)) for number in range(2000)))
SOURCES = VARIANTS | {"many pieces": MANY_PIECES}


@pytest.fixture(params=["file", "memory"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    return blobs_at(str(tmp_path / "blobs") if request.param == "file" else "memory://")


async def stored(blobs: Blobs, source: bytes) -> dict[str, Digest]:
    apart = take_apart(source, 6)
    assert apart is not None and apart.cut is not None
    return {"picture": await blobs.put(apart.picture), "cut": await blobs.put(apart.cut)}


def sha256(content: bytes) -> Digest:
    return Digest(hashlib.sha256(content).hexdigest())


async def read(source: RebuiltSource, *span: int) -> bytes:
    return b"".join([chunk async for chunk in source.stream(*span)])


@pytest.mark.parametrize("name", SOURCES)
async def test_every_range_has_the_bytes_of_the_source(blobs: Blobs, name: str) -> None:
    content = SOURCES[name]
    parts = await stored(blobs, content)
    source = await RebuiltSource.open(blobs, sha256(content), **parts)
    assert source.size == len(content)
    assert await read(source) == content == await read_source(blobs, sha256(content), **parts)
    rng = random.Random(name)
    for _ in range(20):
        start, end = sorted(rng.choices(range(len(content) + 1), k=2))
        assert await read(source, start, end) == content[start:end]


async def test_another_picture_or_a_damaged_cut_is_noticed_before_the_first_byte(blobs: Blobs) -> None:
    content = SOURCES["exif"]
    parts = await stored(blobs, content)
    cut = await blobs.get(parts["cut"])
    damaged = [
        parts | {"picture": await blobs.put(b"\0" + await blobs.get(parts["picture"]))},
        parts | {"cut": await blobs.put(cut[:-1])},
        parts | {"cut": await blobs.put(cut[:-9] + bytes([cut[-9] ^ 1]) + cut[-8:])},
    ]
    for wrong in damaged:
        with pytest.raises(Damaged):
            await RebuiltSource.open(blobs, sha256(content), **wrong)
    with pytest.raises(Damaged, match="no longer give"):
        await RebuiltSource.open(blobs, sha256(b"another"), **parts)


async def test_a_large_source_is_streamed_in_little_memory(tmp_path: Path) -> None:
    blobs = blobs_at(str(tmp_path))
    content = VARIANTS["exif"] + random.Random(1).randbytes(30 << 20)
    parts = await stored(blobs, content)
    source = await RebuiltSource.open(blobs, sha256(content), **parts)
    hashed = hashlib.sha256()
    tracemalloc.start()
    try:
        async for chunk in source.stream():
            hashed.update(chunk)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert hashed.hexdigest() == sha256(content)
    assert peak < 6 * CHUNK_BYTES
