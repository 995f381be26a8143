"""Export beside a bare zip writer: `python -m benchmarks.export [MEGABYTES] [KILOBYTES PER PICTURE] [TURNS]`. Linux.

A real stack imports generated PNGs. Then, in turns: `ZipFile.write` puts the same blobs and texts into a file, and the
export is received over HTTP and written to a file, by the standard library and by our client. All use the page cache.
The ratio is that of the medians, of time and of CPU time (of the export that of the gateway alone). Memory is that of
the gateway: its peak, without what it had before the first export.
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from io import BytesIO
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit
from zipfile import ZIP_STORED, ZipFile

import numpy as np
from PIL import Image

from benchmarks.bigset.stack import cpu_seconds, peak_memory
from contracts.wire.blobs.store import LocalBlobs
from contracts.wording import size_of
from gateway.exports.layout import Format
from loratory.client import AsyncClient
from loratory.services import CORE_SERVICES
from loratory.stack import Stack

DATASET = "bench"
FORMATS: tuple[Format, ...] = ("kohya", "imagefolder")
CAPTION = "a generated picture, (noise:1.2), 猫, with a caption of usual length that says what is to be seen in it"
START_TIMEOUT_SECONDS = 120.0


def write_pictures(folder: Path, count: int, size: int) -> None:
    """PNGs of `size` bytes each, nearly: noise that is not compressed, so that they are made and read quickly."""
    side = max(8, round((size / 3) ** 0.5))
    for seed in range(count):
        noise = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
        content = BytesIO()
        Image.fromarray(noise).save(content, "PNG", compress_level=0)
        (folder / f"{seed:06}.png").write_bytes(content.getvalue())
        (folder / f"{seed:06}.txt").write_text(f"{CAPTION} {seed}", encoding="utf-8")


@asynccontextmanager
async def stack_with_pictures(folder: Path, count: int, size: int) -> AsyncIterator[Stack]:
    async with Stack(folder / "data", environ={}, port=0, without=("tagger", "trainer")) as stack:
        await stack.wait_ready(CORE_SERVICES, timeout=START_TIMEOUT_SECONDS)
        async with AsyncClient(stack.address) as client:
            await client.create_dataset(DATASET)
            with tempfile.TemporaryDirectory(dir=folder) as made:
                await asyncio.to_thread(write_pictures, Path(made), count, size)
                imported = await client.import_folder(DATASET, Path(made))
            assert len(imported.of("added")) == count, imported
        yield stack


def receive(address: str, form: Format, to: Path) -> None:
    url = urlsplit(address)
    with closing(HTTPConnection(url.netloc, timeout=120)) as connection:
        connection.request("GET", f"/api/v1/datasets/{DATASET}/export?format={form}")
        response = connection.getresponse()
        assert response.status == 200, response.read()
        with to.open("wb") as out:
            while content := response.read(1 << 20):
                out.write(content)


def write_bare(blobs: list[Path], texts: list[bytes], to: Path) -> None:
    with ZipFile(to, "w", ZIP_STORED) as archive:
        for number, (blob, text) in enumerate(zip(blobs, texts, strict=True)):
            archive.write(blob, f"1_bench/{number:06}.png")
            archive.writestr(f"1_bench/{number:06}.txt", text)


@dataclass
class Timed:
    """Seconds of each turn, and of CPU."""

    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    @contextmanager
    def turn(self, cpu_clock: Callable[[], float]) -> Iterator[None]:
        started, used = time.perf_counter(), cpu_clock()
        yield
        self.seconds.append(time.perf_counter() - started)
        self.cpu.append(cpu_clock() - used)

    def row(self, name: str, size: int, bare: "Timed") -> str:
        wall, cpu = median(self.seconds), median(self.cpu)
        ratios = f"{median(bare.seconds) / wall:6.2f} x bare, {median(bare.cpu) / cpu:5.2f} x bare in CPU time"
        return f"{name:<24}{wall:7.2f} s, {cpu:6.2f} s of CPU, {size / wall / 1e6:6.0f} MB/s {ratios}"


async def measure(stack: Stack, client: AsyncClient, folder: Path, turns: int) -> None:
    images = await client.images(DATASET)
    pid, store, target = stack.pid_of("gateway"), LocalBlobs(stack.data / "blobs"), folder / "written.zip"
    assert pid is not None
    blobs, texts = [store.path(image.picture) for image in images], [image.caption.encode() for image in images]
    before, size = peak_memory(pid), 0
    bare, ours, by_client = Timed(), {form: Timed() for form in FORMATS}, Timed()
    for _ in range(turns):
        with bare.turn(time.process_time):
            await asyncio.to_thread(write_bare, blobs, texts, target)
        for form, timed in ours.items():
            target.unlink()
            with timed.turn(lambda: cpu_seconds(pid)):
                await asyncio.to_thread(receive, stack.address, form, target)
            size = target.stat().st_size
        with by_client.turn(lambda: cpu_seconds(pid)):
            await client.export(DATASET, target, force=True)
    print(f"{len(images)} pictures, {size_of(size)}, medians of {turns} turns")
    for name, timed in [("bare zip writer", bare), *ours.items(), ("kohya, our client", by_client)]:
        print(timed.row(name, size, bare))
    print(f"memory of the gateway: {before:.0f} MB, growth {peak_memory(pid) - before:.0f} MB")


async def main(megabytes: int = 300, kilobytes: int = 3000, turns: int = 5) -> None:
    with tempfile.TemporaryDirectory() as created:
        folder, count = Path(created), max(1, megabytes * 1000 // kilobytes)
        async with (
            stack_with_pictures(folder, count, kilobytes * 1000) as stack,
            AsyncClient(stack.address) as client,
        ):
            await measure(stack, client, folder, turns)


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:])))
