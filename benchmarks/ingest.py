"""How many pictures a second come in? `python -m benchmarks.ingest [PICTURES]`: 1024 x 1024, two decoders, one machine.

Bare JPEGs are their own pictures; those with EXIF are written anew as PNG, which is most of their cost.
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
AT_ONCE = 8  # more than workers, so that none waits for the next request


def photograph(seed: int) -> Image.Image:
    """Soft shapes under fine grain: a JPEG of about 300 KB, as photographs of this size are."""
    chance = np.random.default_rng(seed)
    shapes = Image.fromarray(chance.integers(0, 256, (12, 12, 3), dtype=np.uint8)).resize((SIDE, SIDE), 3)
    grain = chance.normal(0, 6, (SIDE, SIDE, 1))
    return Image.fromarray(np.clip(np.asarray(shapes) + grain, 0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def kinds(image: Image.Image) -> dict[str, bytes]:
    exif = Image.Exif()
    exif[0x0112] = 6
    return {
        "bare JPEG": encoded(image, "JPEG", quality=90),
        "JPEG with EXIF, turned": encoded(image, "JPEG", quality=90, exif=exif.tobytes()),
        "bare PNG": encoded(image, "PNG"),
        "bare WebP": encoded(image, "WEBP", quality=85),
    }


async def seconds_for(decoder: Decoder, path: Path, times: int) -> float:
    gate = asyncio.Semaphore(AT_ONCE)

    async def one() -> None:
        async with gate:
            outcome = await decoder.examine(path, into=path.parent)
            assert isinstance(outcome, Accepted), outcome
            outcome.thumbnail_path.unlink()
            if not outcome.source_is_picture:
                outcome.picture_path.unlink()

    began = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(times)))
    return time.perf_counter() - began


async def main(times: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with Decoder(Limits(), workers=WORKERS) as decoder:
            for kind, content in kinds(photograph(seed=1)).items():
                path = Path(folder) / "staged"
                path.write_bytes(content)
                await seconds_for(decoder, path, WORKERS)  # the children start
                seconds = await seconds_for(decoder, path, times)
                print(f"{kind:<24}{len(content) / 1e6:5.2f} MB {times / seconds:8.1f} pictures/s")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 200))
