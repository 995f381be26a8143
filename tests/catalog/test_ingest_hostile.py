"""Small files that ask for much: each is taken or refused within 512 MB and the CPU time that such a file may take."""

import os
import struct
import sys
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from catalog.ingest.outcomes import Accepted, Limits, Refused
from catalog.ingest.pool import Decoder
from tests.catalog.test_ingest_pool import cpu_seconds, running_decoders

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="needs /proc"),
]

LIMITS = Limits()
SIDE = 8000  # 64 megapixels, the most that a picture may have


def encode(mode: str, kind: str, side: int = SIDE, **options: object) -> bytes:
    buffer = BytesIO()
    Image.new(mode, (side, side)).save(buffer, kind, **options)
    return buffer.getvalue()


def with_many_scans(count: int) -> bytes:
    """A progressive JPEG whose last scan is repeated: each costs a pass over all coefficients."""
    whole = encode("L", "JPEG", progressive=True)
    scan = whole[whole.rfind(b"\xff\xda") : -2]
    return whole[:-2] + scan * count + whole[-2:]


def interlaced() -> bytes:
    passes = ((8, 8), (8, 8), (4, 8), (4, 4), (2, 4), (2, 2), (1, 2))  # pixels of the whole for one of a pass (Adam7)
    rows = b"".join(bytes((1 + SIDE // x * 3) * (SIDE // y)) for x, y in passes)
    header = b"IHDR" + struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 1)
    bodies = (header, b"IDAT" + zlib.compress(rows, 1), b"IEND")
    chunks = (struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body)) for body in bodies)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


FILES: dict[str, tuple[Callable[[], bytes], str | None]] = {
    "webp": (lambda: encode("RGBA", "WEBP", lossless=True, method=0), "too-many-pixels"),
    "webp that fits": (lambda: encode("RGBA", "WEBP", 5500, lossless=True, method=0), None),
    "avif that fits": (lambda: encode("RGB", "AVIF", 5400, speed=10), None),
    "gif": (lambda: encode("P", "GIF"), None),
    "png with a palette and alpha": (lambda: encode("P", "PNG", transparency=0), "too-much-memory"),
    "png of 16 bits": (lambda: encode("I;16", "PNG", compress_level=1), "too-much-memory"),
    "png, interlaced": (interlaced, None),
    "tiff": (lambda: encode("1", "TIFF", compression="group4"), None),
    "jpeg of inks": (lambda: encode("CMYK", "JPEG"), "too-much-memory"),
    "jpeg, progressive": (lambda: encode("RGB", "JPEG", progressive=True), None),
    "jpeg of many scans": (lambda: with_many_scans(200), "took-too-long"),
}


@pytest.mark.parametrize("name", FILES)
async def test_a_small_file_costs_little(tmp_path: Path, name: str) -> None:
    draw, reason = FILES[name]
    path = tmp_path / "staged"
    path.write_bytes(draw())
    async with Decoder(LIMITS, workers=1) as decoder:
        before = os.times()
        outcome = await decoder.examine(path, into=tmp_path)
        children = running_decoders()
        for child in children:
            status = Path(f"/proc/{child}/status").read_text()
            peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
            assert peak <= LIMITS.memory_bytes >> 10, f"{peak >> 10} MB"
        took = sum(cpu_seconds(child) for child in children)
    after = os.times()
    took = max(took, after.children_user + after.children_system - before.children_user - before.children_system)
    assert took <= LIMITS.cpu_seconds_of(path.stat().st_size) + 1, f"{took:.2f} s"  # a second for starts of children
    if reason is None:
        assert isinstance(outcome, Accepted), outcome
    else:
        assert isinstance(outcome, Refused) and outcome.reason == reason, outcome
