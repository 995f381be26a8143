"""Ingested pictures per second: `python -m benchmarks.ingest [PICTURES]`; 1024 x 1024, two decoders on one machine.

Bare JPEGs are used as they are; those with EXIF are re-encoded as PNG, which is most of their cost.
"""

import asyncio
import sys
import tempfile
import time
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from catalog.ingest.outcomes import Accepted, Limits
from catalog.ingest.pool import Decoder

SIDE = 1024
WORKERS = 2
MAX_CONCURRENT = 8  # more than workers, so that none is ever idle


def photograph(seed: int) -> Image.Image:
    """Soft shapes with fine grain: about 300 KB as a JPEG, like a photograph of this size."""
    rng = np.random.default_rng(seed)
    shapes = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)).resize((SIDE, SIDE), 3)
    grain = rng.normal(0, 6, (SIDE, SIDE, 1))
    return Image.fromarray(np.clip(np.asarray(shapes) + grain, 0, 255).astype(np.uint8))


def encode(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def encode_variants(image: Image.Image) -> dict[str, bytes]:
    exif = Image.Exif()
    exif[0x0112] = 6
    return {
        "bare JPEG": encode(image, "JPEG", quality=90),
        "JPEG with EXIF, rotated": encode(image, "JPEG", quality=90, exif=exif.tobytes()),
        "bare PNG": encode(image, "PNG"),
        "bare WebP": encode(image, "WEBP", quality=85),
    }


async def measure_seconds(decoder: Decoder, path: Path, count: int) -> float:
    slots = asyncio.Semaphore(MAX_CONCURRENT)

    async def examine_once() -> None:
        async with slots:
            outcome = await decoder.examine(path, into=path.parent)
            assert isinstance(outcome, Accepted), outcome
            outcome.thumbnail_path.unlink()
            if not outcome.source_is_picture:
                outcome.picture_path.unlink()

    started = time.perf_counter()
    await asyncio.gather(*(examine_once() for _ in range(count)))
    return time.perf_counter() - started


async def main(count: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with Decoder(Limits(), workers=WORKERS) as decoder:
            for variant, content in encode_variants(photograph(seed=1)).items():
                path = Path(folder) / "staged"
                path.write_bytes(content)
                await measure_seconds(decoder, path, WORKERS)  # starts the child processes
                seconds = await measure_seconds(decoder, path, count)
                print(f"{variant:<24}{len(content) / 1e6:5.2f} MB {count / seconds:8.1f} pictures/s")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 200))
