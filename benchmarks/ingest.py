"""What an import costs: `python -m benchmarks.ingest [SECONDS]`, CPU time and pictures per second of two decoders.

Beside it, alternating with it on the same cores, what any import has to do: decode, resize to a thumbnail, sha256 of
the file. `ratio` is the CPU time of that over ours, by the sums of all rounds; `fast`: where it resizes by Pillow's
`reducing_gap`, as we do. `stored`: bytes of picture and what was
cut, over those of the file. Needs /proc.
"""

import asyncio
import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from catalog.ingest.outcomes import Accepted, Limits
from catalog.ingest.pool import Decoder

WORKERS = 2
ROUNDS = 4
THUMBNAIL = (256, 256)


def photograph(width: int, height: int, seed: int = 1) -> Image.Image:
    """Soft shapes with fine grain: about as large as a photograph of this size in each format."""
    rng = np.random.default_rng(seed)
    shapes = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)).resize((width, height), 3)
    grain = rng.normal(0, 6, (height, width, 1)).astype(np.float32)
    return Image.fromarray(np.clip(np.asarray(shapes) + grain, 0, 255).astype(np.uint8))


def encode(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a phone"
    return exif.tobytes()


VARIANTS: dict[str, Callable[[], bytes]] = {
    "1 MP bare JPEG": lambda: encode(photograph(1024, 1024), "JPEG", quality=90),
    "1 MP JPEG, turned": lambda: encode(photograph(1024, 1024), "JPEG", quality=90, exif=turned()),
    "12 MP JPEG, turned": lambda: encode(photograph(4000, 3000), "JPEG", quality=90, exif=turned()),
    "54 MP JPEG, turned": lambda: encode(photograph(9000, 6000), "JPEG", quality=90, exif=turned()),
    "1 MP bare PNG": lambda: encode(photograph(1024, 1024), "PNG"),
    "1 MP bare WebP": lambda: encode(photograph(1024, 1024), "WEBP", quality=85),
}


def do_the_least(path: Path, reducing_gap: float | None = None) -> float:
    """Decode, resize, digest; the CPU seconds it took."""
    started = time.process_time()
    data = path.read_bytes()
    with Image.open(BytesIO(data)) as image:
        image.load()
        scale = min(1.0, THUMBNAIL[0] / max(image.size))
        size = round(image.width * scale), round(image.height * scale)
        image.resize(size, Image.Resampling.LANCZOS, reducing_gap=reducing_gap)
        hashlib.sha256(data).hexdigest()
    return time.process_time() - started


def cpu_seconds_of_children() -> float:
    """Of the running processes that this one started, all threads; in ticks of 10 ms."""
    ticks = 0
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended meanwhile
        if int(fields[1]) == os.getpid():
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


@dataclass
class Sums:
    pictures: int = 0
    ours: float = 0.0
    least: float = 0.0
    fast: float = 0.0
    seconds: float = 0.0
    stored: int = 0


async def examine_all(decoder: Decoder, path: Path, count: int) -> int:
    """Examine the file so many times; bytes stored for one, without the thumbnail."""
    outcomes = await asyncio.gather(*(decoder.examine(path, into=path.parent) for _ in range(count)))
    stored = 0
    for outcome in outcomes:
        assert isinstance(outcome, Accepted), outcome
        files = {outcome.picture_path, outcome.cut_path, outcome.thumbnail_path, path} - {None, path}
        stored = outcome.picture_bytes + (outcome.cut_path.stat().st_size if outcome.cut_path else 0)
        if outcome.cut_path is None and not outcome.source_is_picture:
            stored += outcome.bytes
        for file in files:
            assert file is not None
            file.unlink()
    return stored


async def measure(decoder: Decoder, pool: ProcessPoolExecutor, path: Path, seconds: float) -> Sums:
    sums, loop = Sums(), asyncio.get_running_loop()
    once = await loop.run_in_executor(pool, do_the_least, path)
    count = max(WORKERS, round(seconds * WORKERS / ROUNDS / max(once, 1e-3) / 2))
    await examine_all(decoder, path, WORKERS)  # starts the child processes
    for _ in range(ROUNDS):
        before, own, started = cpu_seconds_of_children(), time.process_time(), time.perf_counter()
        sums.stored = await examine_all(decoder, path, count)
        sums.seconds += time.perf_counter() - started
        sums.ours += cpu_seconds_of_children() - before + time.process_time() - own
        sums.least += sum(await asyncio.gather(*(loop.run_in_executor(pool, do_the_least, path) for _ in range(count))))
        sums.fast += sum(
            await asyncio.gather(*(loop.run_in_executor(pool, do_the_least, path, 2.0) for _ in range(count)))
        )
        sums.pictures += count
    return sums


async def main(seconds: float) -> None:
    print(f"{'':<22}{'MB':>6}{'stored':>8}{'pictures/s':>12}{'CPU ms':>9}{'least ms':>10}{'ratio':>7}{'fast':>6}")
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(WORKERS) as pool:
        async with Decoder(Limits(), workers=WORKERS) as decoder:
            for variant, draw in VARIANTS.items():
                path = Path(folder) / "staged"
                path.write_bytes(draw())
                size, sums = path.stat().st_size, await measure(decoder, pool, path, seconds)
                ours, least = (1000 * cpu / sums.pictures for cpu in (sums.ours, sums.least))
                print(
                    f"{variant:<22}{size / 1e6:6.2f}{sums.stored / size:8.3f}{sums.pictures / sums.seconds:12.1f}"
                    f"{ours:9.1f}{least:10.1f}{least / ours:7.2f}{sums.fast / sums.ours:6.2f}"
                )


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]) if len(sys.argv) > 1 else 10.0))
