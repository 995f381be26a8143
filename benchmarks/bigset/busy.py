"""Four clients at work on data sets of their own while a threshold moves and a version freezes in the large one."""

import asyncio
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.bigset.stack import RunningStack
from benchmarks.bigset.table import Row
from benchmarks.bigset.work import THRESHOLDS, freeze, move_threshold, percentile
from contracts.ids import ulid
from demo_world import pictures
from loratory.client import AsyncClient

CLIENTS = 4
PICTURES = 4
RECIPE = {"base": {"type": "builtin", "name": "tiny-random"}, "length": {"type": "steps", "count": 100}}


@dataclass
class Client:
    """Edits the images of one data set, and creates, starts and cancels jobs on it."""

    running: RunningStack
    dataset: str
    images: list[str]
    seconds: list[float] = field(default_factory=list)
    answers: Counter[int] = field(default_factory=Counter)

    async def work_until(self, is_over: Callable[[], bool]) -> None:
        while not is_over():
            for image in self.images:
                edit = {"add": [f"edit_{ulid().lower()}"]}
                await self._send("PATCH", f"/api/v1/images/{image}/tags", edit)
            created = await self._send("POST", "/api/v1/jobs", {"dataset": self.dataset, "changes": RECIPE})
            if created is not None:
                for action in ("start", "cancel"):
                    await self._send("POST", f"/api/v1/jobs/{created['id']}/{action}", {})

    async def _send(self, method: str, path: str, body: dict[str, Any]) -> Any:
        """The response; none if it is an error."""
        started = time.perf_counter()
        response = await self.running.http.request(method, path, json=body)
        self.seconds.append(time.perf_counter() - started)
        self.answers[response.status_code] += 1
        return response.json() if response.is_success else None


async def create_client(running: RunningStack, folder: Path, number: int) -> Client:
    """With a data set of a few drawn pictures, new in each run."""
    pictures.write_pictures(folder / str(number), count=PICTURES, seed=time.time_ns() + number)
    async with AsyncClient(running.stack.address) as client:
        name = f"busy {ulid()}"
        await client.ensure_dataset(name)
        await client.import_folder(name, folder / str(number))
    page = await running.get("/api/v1/images", dataset=name)
    return Client(running, name, [image["id"] for image in page["items"]])


async def measure_busy(running: RunningStack) -> list[Row]:
    with tempfile.TemporaryDirectory() as name:
        clients = [await create_client(running, Path(name), number) for number in range(CLIENTS)]
    before = (await running.get(running.path))["thresholds"]["general"]
    moved = min(THRESHOLDS) if before != min(THRESHOLDS) else max(THRESHOLDS)
    large = asyncio.gather(move_threshold(running, moved), freeze(running, f"busy{time.time_ns()}"))
    await asyncio.gather(large, *(client.work_until(large.done) for client in clients))
    (threshold, threshold_note), (frozen, frozen_note) = large.result()
    answers = sum((client.answers for client in clients), Counter[int]())
    seconds = [one for client in clients for one in client.seconds]
    listed = ", ".join(f"{number} x {status}" for status, number in sorted(answers.items()))
    return [
        Row("busy: threshold moved beside others", threshold, "s", note=threshold_note),
        Row("busy: version frozen beside others", frozen, "s", 8, note=frozen_note),
        Row(f"busy: requests of {CLIENTS} clients to other data sets: 503", answers[503], "", 0, "none", listed),
        Row("busy: the same: p99", percentile(seconds, 99) * 1000, "ms", 100),
    ]
