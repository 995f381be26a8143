"""What `benchmarks.bigset` measures, over HTTP; the cost of a start as well."""

import asyncio
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import count

from benchmarks.big_dataset import EDITS, image_id
from benchmarks.bigset.stack import READS, Bench, RunningStack, forget_cached_files
from benchmarks.bigset.table import Row
from benchmarks.connection import Connection
from catalog.database import remove_database
from catalog.query_handlers.paging import encode_cursor
from contracts.ids import ImageId
from contracts.wire.log.event_log import EventLog
from contracts.wire.service.bus import connect

STARTS = 3
DIFFS = 10
PAGES = 40
"""Requests of one page, for its 95th percentile."""
CPU_ROUNDS = 5
PATCHES = 200
PATCH_PAUSE_SECONDS = 0.02
WRITERS = 8
PREFIX = "long_"
DATASET_PATH = "/api/v1/datasets/{dataset}"
IMAGES_PATH = f"{DATASET_PATH}/images"
"""As in the schema of the API."""
BULK_TAGS = 5
BULK_ROUNDS = 3
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
    images, (frequent, other) = running.dataset.images, frequent_tags(running)
    places = {"first": -1, "middle": images // 2, "deep": images - 200}
    pages: dict[str, dict[str, str | int]] = {}
    for tag, title in {"": "no filter", frequent: "a frequent tag", other: "a tag"}.items():
        for place, after in places.items():
            where = {"cursor": encode_cursor((running.dataset.added_sequence(after), after))} if after >= 0 else {}
            pages[f"{place}, {title}"] = {**where, **({"tag": tag} if tag else {})}
    for terms in (
        f"{frequent} {other}",
        f"{frequent} | {other}",
        f"{frequent} aspect>0.8",
        f"conf:{other}>0.5 -{other}",
    ):
        pages[f"filter {terms}"] = {"filter": terms}
    for sort in ("-added", "name", "-size", "-changed", "tags", f"-conf:{frequent}"):
        pages[f"sort by {sort}"] = {"sort": sort}
        pages[f"sort by {sort}, the next"] = {"sort": sort, **await next_page(running, sort)}
    return [await measure_page(running, what, **params) for what, params in pages.items()]


def frequent_tags(running: RunningStack) -> tuple[str, str]:
    """The most frequent one, and one that a tenth as many images have."""
    return running.sampler.vocabulary[0], running.sampler.vocabulary[30]


async def measure_page(running: RunningStack, what: str, **params: str | int) -> Row:
    """Without the first request: it may build what the others find."""
    path, times = f"{running.path}/images", None
    if await running.offers(IMAGES_PATH, params):
        times = (await running.milliseconds_of(path, PAGES + 1, limit=100, **params))[1:]
    return Row(f"page of 100, {what}: p95", percentile(times, 95) if times else None, "ms", 50)


async def next_page(running: RunningStack, sort: str) -> dict[str, str]:
    if not await running.offers(IMAGES_PATH, ["sort"]):
        return {}
    return {"cursor": (await running.get(f"{running.path}/images", limit=100, sort=sort))["next"]}


async def measure_counts(running: RunningStack) -> list[Row]:
    frequent, other = frequent_tags(running)
    both = f"{frequent} -{other}"
    reads: tuple[tuple[str, float, str, dict[str, str | int]], ...] = (
        ("count of the images with a tag (page of one)", 30, "images", {"limit": 1, "tag": frequent}),
        ("count, filter of two terms (page of one)", 30, "images", {"limit": 1, "filter": both}),
        ("facets of all images: the 100 most used tags", 100, "tags", {"limit": 100}),
        ("facets of a filter of two terms", 100, "tags", {"limit": 100, "filter": both}),
        ("tags with a prefix, 20 of them", 5, "tags", {"limit": 20, "prefix": PREFIX}),
    )
    rows = []
    for what, within, path, params in reads:
        is_there = await running.offers(f"{DATASET_PATH}/{path}", params)
        times = await running.milliseconds_of(f"{running.path}/{path}", READS, **params) if is_there else None
        rows.append(Row(what, statistics.median(times) if times else None, "ms", within))
    return rows


async def measure_image(running: RunningStack) -> list[Row]:
    images = (running.dataset.untouched, running.dataset.edited)
    rounds = [
        [await running.cpu_of(f"/api/v1/images/{image}/tags", READS) for image in images] for _ in range(CPU_ROUNDS)
    ]
    untouched, edited = (statistics.median(one[column] for one in rounds) for column in (0, 1))
    pages = [await running.cpu_of(f"{running.path}/images", PAGES, limit=100) for _ in range(CPU_ROUNDS)]
    return [
        Row("page of 100, CPU of the catalog", statistics.median(pages), "ms"),
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
    times, statuses = list[float](), Counter[int]()
    lists = {image: await running.get(f"/api/v1/images/{image}/tags") for image in pick_images(running, 200)}
    numbers = iter(range(EDITS))

    async def write(images: Iterator[ImageId]) -> None:
        connection = await Connection.open(running.stack.address)
        for number, image in zip(numbers, images, strict=False):
            body = {"tags": [*lists[image]["tags"], f"put_{number}"]}
            started = time.perf_counter()
            statuses[await connection.put(f"/api/v1/images/{image}/tags", body)] += 1
            times.append(time.perf_counter() - started)
        connection.close()

    started = time.perf_counter()
    images = list(lists)
    await asyncio.gather(*(write(cycled(images[writer::WRITERS])) for writer in range(WRITERS)))
    rate = len(times) / (time.perf_counter() - started)
    answers = ", ".join(f"{number} x {status}" for status, number in statuses.items())
    return [
        Row(f"PUT of tags, durable, {WRITERS} connections", rate, "/s", 150, "rate", answers),
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
        *await measure_bulk_edit(running),
        Row("threshold moved", statistics.median(seconds), "s", 1, note=", ".join(filter(None, notes))),
    ]


async def measure_bulk_edit(running: RunningStack) -> list[Row]:
    """The edit is appended to the log here: the API has no edits of many images yet. Medians."""
    edits, undos = [], []
    for number in range(BULK_ROUNDS):
        tags = tuple(f"bulk_{number}_{tag}" for tag in range(BULK_TAGS))
        started = time.perf_counter()
        sequence = await running.append_edit(tags)
        await running.wait_until_shown(sequence)
        edits.append(time.perf_counter() - started)
        started = time.perf_counter()
        undone = await running.http.post(f"{running.path}/undo", json={"commit": sequence})
        await running.wait_until_shown(int(undone.raise_for_status().headers["Loratory-Seq"]))
        undos.append(time.perf_counter() - started)
    return [
        Row("bulk edit of all images, five tags", statistics.median(edits), "s", 1, note="appended to the log"),
        Row("undo of it", statistics.median(undos), "s", 1),
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
        await measure_diff(running),
    ]


async def measure_diff(running: RunningStack) -> Row:
    """Of the version before the edits and the one after them: the first page of 100."""
    times = None
    if await running.offers(f"{DATASET_PATH}/versions/{{version}}/diff"):
        last = (await running.get(f"{running.path}/versions", limit=1))["total"]
        params: dict[str, str | int] = {"from": last - 2, "limit": 100}
        times = await running.milliseconds_of(f"{running.path}/versions/{last}/diff", DIFFS, **params)
    return Row("diff of two versions", statistics.median(times) / 1000 if times else None, "s", 0.3)


async def edit_images(running: RunningStack, number: int) -> None:
    images = pick_images(running, number)

    async def edit(some: Sequence[ImageId]) -> None:
        for image in some:
            (await running.http.patch(f"/api/v1/images/{image}/tags", json=edit_of(running))).raise_for_status()

    await asyncio.gather(*(edit(images[writer::WRITERS]) for writer in range(WRITERS)))
