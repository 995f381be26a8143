"""Edits of one data set by several clients: `python -m benchmarks.edits [SECONDS] [IMAGES] [CONNECTIONS] [FOLDER]`.

Default: 10 s, 1,000 images, 8 connections. A real stack (nats-server with `sync_interval: always`, catalog, gateway).
Each connection sends one `PUT /api/v1/images/{image}/tags` after the other, of random images and never what the image
has, and reads the answer: the edit is durable and shown. The first second is a warm-up. The yardstick is measured
before, alone: sha256 of 1 kB, on one core; machines differ by three times.
"""

import asyncio
import hashlib
import io
import os
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from PIL import Image

from benchmarks.connection import Connection
from loratory.stack import Stack

WARM_UP_SECONDS = 1.0
FILES_PER_IMPORT = 200
TAGS = tuple(f"tag {number}" for number in range(300))
TAGS_PER_IMAGE = 8


@dataclass
class Measurements:
    """`milliseconds` of the successful edits after the warm-up; `statuses` of all."""

    milliseconds: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)


def measure_yardstick(seconds: float = 1.0) -> float:
    """sha256 over 1 kB bodies, per second."""
    body, hashed, started = bytes(1024), 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        for _ in range(1000):
            hashlib.sha256(body).digest()
        hashed += 1000
    return hashed / (time.perf_counter() - started)


def cpu_seconds(stack: Stack) -> dict[str, float]:
    """Processor time used so far: by each process of the stack, and by this one."""
    used = {name: _seconds_of(stack.pid_of(name) or 0) for name in ("nats", "catalog", "gateway")}
    return {**used, "clients": time.process_time()}


def _seconds_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def picture(number: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (32, 32), (number % 256, number // 256 % 256, 90)).save(out, "PNG")
    return out.getvalue()


async def import_images(url: str, count: int) -> list[str]:
    """The ids of new images in a new data set."""
    async with httpx.AsyncClient(base_url=url, timeout=300) as client:
        dataset = (await client.post("/api/v1/datasets", json={"name": "cats"})).raise_for_status().json()["id"]
        ids: list[str] = []
        for start in range(0, count, FILES_PER_IMPORT):
            numbers = range(start, min(start + FILES_PER_IMPORT, count))
            files = [("files", (f"{number}.png", picture(number))) for number in numbers]
            answer = await client.post(f"/api/v1/datasets/{dataset}/images", files=files)
            ids += [item["image"] for item in answer.raise_for_status().json()["items"]]
    return ids


async def send_edits(url: str, images: list[str], until: float, seed: int, measured: Measurements) -> None:
    """Over one connection."""
    connection, dice = await Connection.open(url), random.Random(seed)
    warm = time.perf_counter() + WARM_UP_SECONDS
    while (started := time.perf_counter()) < until:
        tags = [*dice.sample(TAGS, TAGS_PER_IMAGE), f"edit {dice.random():.12f}"]
        status = await connection.put(f"/api/v1/images/{dice.choice(images)}/tags", {"tags": tags})
        measured.statuses[status] += 1
        if started > warm and status == 200:
            measured.milliseconds.append((time.perf_counter() - started) * 1000)
    connection.close()


async def main(seconds: float, images: int, connections: int, folder: str | None) -> None:
    print(f"yardstick: {measure_yardstick():,.0f} sha256/s of 1 kB; load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory(dir=folder) as name:
        stack = Stack(Path(name), environ=os.environ, port=0, without=("tagger", "trainer"))
        async with stack:
            await stack.wait_ready()
            ids, measured = await import_images(stack.address, images), Measurements()
            before = cpu_seconds(stack)
            until = time.perf_counter() + WARM_UP_SECONDS + seconds
            await asyncio.gather(
                *(send_edits(stack.address, ids, until, seed, measured) for seed in range(connections))
            )
            used = {name: after - before[name] for name, after in cpu_seconds(stack).items()}
    percentiles = statistics.quantiles(measured.milliseconds, n=100)
    rate = len(measured.milliseconds) / seconds
    print(
        f"{connections} connections: {rate:.0f} edits/s, p50 {percentiles[49]:.0f} ms, p99 {percentiles[98]:.0f} ms, "
        f"max {max(measured.milliseconds):.0f} ms; answers {dict(measured.statuses)}; load {os.getloadavg()[0]:.1f}"
    )
    each = {name: f"{seconds / measured.statuses.total() * 1000:.1f}" for name, seconds in used.items()}
    print(f"processor time, ms an edit: {', '.join(f'{name} {spent}' for name, spent in each.items())}")


if __name__ == "__main__":
    arguments = sys.argv[1:]
    asyncio.run(
        main(
            float(arguments[0]) if arguments else 10.0,
            int(arguments[1]) if len(arguments) > 1 else 1000,
            int(arguments[2]) if len(arguments) > 2 else 8,
            arguments[3] if len(arguments) > 3 else None,
        )
    )
