"""What `benchmarks.bigset` measures, over HTTP; the cost of a start as well."""

import asyncio
import statistics
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import count

from benchmarks.big_dataset import EDITS, image_id
from benchmarks.bigset.stack import READS, Bench, RunningStack, forget_cached_files
from benchmarks.bigset.table import Row
from catalog.database import remove_database
from catalog.query_handlers.paging import encode_cursor
from contracts.ids import ImageId
from contracts.wire.log.event_log import EventLog
from contracts.wire.service.bus import connect

STARTS = 3
PAGES = 40
"""Requests of one page, for its 95th percentile."""
CPU_ROUNDS = 5
PATCHES = 200
PATCH_PAUSE_SECONDS = 0.02
WRITERS = 8
PREFIX = "long_"
THRESHOLDS = (0.15, 0.5, 0.35)
"""Set one after the other; the data set begins at 0.35. A third of all predictions are between 0.15 and 0.5."""


def percentile(values: Sequence[float], percent: int) -> float:
    return sorted(values)[min(len(values) * percent // 100, len(values) - 1)]


async def measure_starts(bench: Bench) -> list[Row]:
    """The first start makes archive and read model, if the folder is new."""
    is_new = not (bench.data / "catalog" / "read.db").exists()
    first = await bench.seconds_to_start()
    rows = [Row("first start: archive and read model from the log", first, "s")] if is_new else []
    seconds = []
    for _ in range(STARTS):
        for name in ("catalog", "nats"):
            forget_cached_files(bench.data / name)
        seconds.append(await bench.seconds_to_start())
    return [*rows, Row("start with read model, files not cached", statistics.median(seconds), "s", 5)]


async def measure_rebuild(bench: Bench) -> list[Row]:
    remove_database(bench.data / "catalog" / "read.db")
    return [Row("start without read model: rebuild", await bench.seconds_to_start(), "s", 20)]


async def measure_pages(running: RunningStack) -> list[Row]:
    """The order is that of import; the cursor is made here, because going through 100,000 images takes minutes."""
    images, path = running.dataset.images, f"{running.path}/images"
    places = {"first": -1, "middle": images // 2, "deep": images - 200}
    rows, tags = (
        [],
        {"": "no filter", running.sampler.vocabulary[0]: "a frequent tag", running.sampler.vocabulary[30]: "a tag"},
    )
    for tag, title in tags.items():
        for place, after in places.items():
            where = {"cursor": encode_cursor((running.dataset.added_sequence(after), after))} if after >= 0 else {}
            only = {"tag": tag} if tag else {}
            times = await running.milliseconds_of(path, PAGES, limit=100, **where, **only)
            rows.append(Row(f"page of 100, {place}, {title}: p95", percentile(times, 95), "ms", 50))
    rows.append(Row("page of 100, filter of two terms: p95", None, "ms", 50))
    rows.append(Row("page of 100, sorts other than the order of import: p95", None, "ms", 50))
    return rows


async def measure_counts(running: RunningStack) -> list[Row]:
    tag, tags = running.sampler.vocabulary[0], f"{running.path}/tags"
    counted = await running.milliseconds_of(f"{running.path}/images", READS, limit=1, tag=tag)
    listed = await running.milliseconds_of(tags, READS, limit=100)
    prefixed = await running.milliseconds_of(tags, READS, limit=20, prefix=PREFIX)
    return [
        Row("count of the images with a tag (page of one)", statistics.median(counted), "ms", 30),
        Row("count, filter of two terms", None, "ms", 30),
        Row("facets of all images: the 100 most used tags", statistics.median(listed), "ms", 100),
        Row("facets of a filter", None, "ms", 100),
        Row("tags with a prefix, 20 of them", statistics.median(prefixed), "ms", 5),
    ]


async def measure_image(running: RunningStack) -> list[Row]:
    rounds = [
        [await running.cpu_of_tags(image) for image in (running.dataset.untouched, running.dataset.edited)]
        for _ in range(CPU_ROUNDS)
    ]
    untouched, edited = (statistics.median(one[column] for one in rounds) for column in (0, 1))
    return [
        Row("GET of an image's tags, CPU of the catalog, no edits", untouched, "ms", 1.5),
        Row(f"the same after {EDITS} edits of it", edited, "ms"),
        Row("ratio of both", edited / untouched, "x", 1.2, "none"),
    ]


def pick_images(running: RunningStack, number: int) -> list[ImageId]:
    """Different images, without the two that reads are measured on."""
    ordinals = running.sampler.rng.choice(running.dataset.images - 3, number, replace=False) + 3
    return [image_id(int(ordinal)) for ordinal in ordinals]


async def measure_patches(running: RunningStack) -> list[Row]:
    """From the time at which the server stored the commit until the response, so the way back is included."""
    lags, stack = [], running.stack
    async with await connect(stack.nats.url, *stack.nats.credentials("admin"), "benchmark") as bus:
        log = EventLog(bus)
        for image in pick_images(running, PATCHES):
            await asyncio.sleep(PATCH_PAUSE_SECONDS)
            response = await running.http.patch(f"/api/v1/images/{image}/tags", json=edit_of(running))
            shown = datetime.now(UTC)
            recorded = await log.commit_at(int(response.raise_for_status().headers["Loratory-Seq"]))
            assert recorded is not None
            lags.append((shown - recorded.recorded_at).total_seconds() * 1000)
    return [Row("PATCH of tags, accepted to shown", statistics.median(lags), "ms", 10)]


def edit_of(running: RunningStack) -> dict[str, list[str]]:
    *added, removed = running.sampler.draw(4)
    return {"add": added, "remove": [removed]}


async def measure_puts(running: RunningStack) -> list[Row]:
    times = []
    lists = {image: await running.get(f"/api/v1/images/{image}/tags") for image in pick_images(running, 200)}
    numbers = iter(range(EDITS))

    async def write(images: Iterator[ImageId]) -> None:
        for number, image in zip(numbers, images, strict=False):
            body = {"tags": [*lists[image]["tags"], f"put_{number}"]}
            times.append(await running.seconds(running.http.put(f"/api/v1/images/{image}/tags", json=body)))

    started = time.perf_counter()
    images = list(lists)
    await asyncio.gather(*(write(cycled(images[writer::WRITERS])) for writer in range(WRITERS)))
    rate = len(times) / (time.perf_counter() - started)
    return [
        Row(f"PUT of tags, durable, {WRITERS} connections", rate, "/s", 150, "rate"),
        Row("the same: p99", percentile(times, 99) * 1000, "ms", 100),
    ]


def cycled(images: Sequence[ImageId]) -> Iterator[ImageId]:
    return (images[number % len(images)] for number in count())


async def measure_bulk(running: RunningStack) -> list[Row]:
    seconds, notes = [], []
    for threshold in THRESHOLDS:
        taken, note = await move_threshold(running, threshold)
        seconds.append(taken)
        notes.append(note)
    return [
        Row("bulk edit of all images, five tags", None, "s", 1),
        Row("undo of it", None, "s", 1),
        Row("threshold moved", statistics.median(seconds), "s", 1, note=", ".join(filter(None, notes))),
    ]


async def move_threshold(running: RunningStack, general: float) -> tuple[float, str]:
    """Seconds until it is shown, and what was answered instead of a success."""

    async def is_shown() -> bool:
        response = await running.http.get(running.path)
        return response.is_success and response.json()["thresholds"]["general"] == general

    body = {"general": general, "character": 0.85}
    return await running.seconds_until_shown(running.http.put(f"{running.path}/thresholds", json=body), is_shown)


async def freeze(running: RunningStack, trigger: str) -> tuple[float, str]:
    """Seconds until the new version is shown, and what was answered instead of a success."""
    before = (await running.get(f"{running.path}/versions", limit=1))["total"]

    async def is_shown() -> bool:
        response = await running.http.get(f"{running.path}/versions", params={"limit": 1})
        return bool(response.is_success and response.json()["total"] > before)

    body = {"trigger": trigger}
    return await running.seconds_until_shown(running.http.post(f"{running.path}/versions", json=body), is_shown)


async def measure_versions(running: RunningStack) -> list[Row]:
    is_first = (await running.get(f"{running.path}/versions", limit=1))["total"] == 0
    (first, first_note), unique = await freeze(running, f"first{time.time_ns()}"), time.time_ns()
    await edit_images(running, EDITS)
    edited, edited_note = await freeze(running, f"edited{unique}")
    triggered, triggered_note = await freeze(running, f"trigger{unique}")
    first_note = ", ".join(filter(None, [first_note, "" if is_first else "the folder had versions before"]))
    return [
        Row("freeze, the first", first, "s", 8, note=first_note),
        Row(f"freeze after {EDITS} edits", edited, "s", 1, note=edited_note),
        Row("freeze with another trigger", triggered, "s", 0.3, note=triggered_note),
        Row("diff of two versions", None, "s", 0.3),
    ]


async def edit_images(running: RunningStack, number: int) -> None:
    images = pick_images(running, number)

    async def edit(some: Sequence[ImageId]) -> None:
        for image in some:
            (await running.http.patch(f"/api/v1/images/{image}/tags", json=edit_of(running))).raise_for_status()

    await asyncio.gather(*(edit(images[writer::WRITERS]) for writer in range(WRITERS)))
