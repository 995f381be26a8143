"""The pure modules of the page by themselves, in the system's Chromium; no server is involved."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, Route

from gateway.routes.pages import WEB
from tests.gateway.browser import MARKS, open_page

pytestmark = MARKS

ORIGIN = "http://127.0.0.1"
TYPES = {".html": "text/html", ".js": "text/javascript"}
PURE = ("address.js", "batches.js", "curve.js", "events.js", "format.js", "paging.js", "progress.js")
EVALUATE = """async ([module, expression]) => {
    const names = await import(`/${module}`);
    return await new Function(...Object.keys(names), `return ${expression}`)(...Object.values(names));
}"""


async def serve_file(route: Route) -> None:
    name = route.request.url.removeprefix(f"{ORIGIN}/") or "blank.html"
    body = b"<!doctype html><title>modules</title>" if name == "blank.html" else (WEB / name).read_bytes()
    await route.fulfill(body=body, content_type=TYPES[Path(name).suffix])


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def modules(browser: Browser) -> AsyncIterator[Page]:
    async with open_page(browser) as page:
        await page.route(f"{ORIGIN}/**", serve_file)
        await page.goto(f"{ORIGIN}/")
        yield page


async def value_of(modules: Page, module: str, expression: str) -> Any:
    """Of an expression in which the module's exports can be used."""
    return await modules.evaluate(EVALUATE, [module, expression])


async def test_pure_modules_import_nothing_but_each_other() -> None:
    for name in PURE:
        text = (WEB / name).read_text(encoding="utf-8")
        assert set(re.findall(r'from "\./([^"]+)"', text)) <= set(PURE), name


FORMATS = [
    ("count(1234567)", "1,234,567"),
    ('plural(1, "image")', "1 image"),
    ('plural(1200, "image")', "1,200 images"),
    ('plural(2, "entry", "entries")', "2 entries"),
    ('lastPart("a/b/c.png")', "c.png"),
    ('lastPart("c.png")', "c.png"),
    ("percent(0.356)", "36%"),
    ("duration(12.4)", "12 s"),
    ("duration(-1)", "0 s"),
    ("duration(200)", "3 min 20 s"),
    ("duration(3599.6)", "1 h 00 min"),
    ("duration(3900)", "1 h 05 min"),
    ("bytes(0)", "0 B"),
    ("bytes(999)", "999 B"),
    ("bytes(2_800_000)", "2.8 MB"),
    ("bytes(150_000)", "150 kB"),
    ("bytes(5e12)", "5000 GB"),
    ("decimal(null)", "\N{EN DASH}"),
    ("decimal(undefined)", "\N{EN DASH}"),
    ("decimal(0)", "0"),
    ("decimal(0.0873461)", "0.08735"),
    ("decimal(0.0001)", "1e-4"),
    ("decimal(12.5)", "12.5"),
    ('sentence("the name is taken")', "The name is taken"),
    ('sentence("length.count must be at least 1")', "length.count must be at least 1"),
    ("ago(new Date())", "just now"),
    ("ago(Date.now() - 5 * 60_000)", "5 min ago"),
    ("ago(Date.now() - 3 * 3_600_000)", "3 h ago"),
    ("ago(Date.now() - 30 * 3_600_000) === date(Date.now() - 30 * 3_600_000)", True),
]


@pytest.mark.parametrize(("expression", "expected"), FORMATS)
async def test_numbers_sizes_and_times_are_formatted(modules: Page, expression: str, expected: object) -> None:
    assert await value_of(modules, "format.js", expression) == expected


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ('parseRoute("")', []),
        ('parseRoute("#/datasets/ds_1/images/img_1")', ["datasets", "ds_1", "images", "img_1"]),
        ('parseRoute("#/datasets/a%2Fb/")', ["datasets", "a/b"]),
        ('parseRoute("#/jobs/%E0%A4%A")', []),
        ('link("datasets", "a/b c")', "#/datasets/a%2Fb%20c"),
        ('parseRoute(link("jobs", "100% #1/2"))', ["jobs", "100% #1/2"]),
    ],
)
async def test_addresses_name_the_screen(modules: Page, expression: str, expected: object) -> None:
    assert await value_of(modules, "address.js", expression) == expected


EVENT = """parseEvent({
    type: "dataset.tags_edited", seq: "L.2.41", subject: "evt.dataset.ds_1", time: "t", description: "d",
    data: {images: %s},
})"""


async def test_an_event_has_its_aggregate_and_sequence(modules: Page) -> None:
    event = await value_of(modules, "events.js", EVENT % '{count: 1, ids: ["a"]}')
    assert (event["aggregateKind"], event["aggregateId"], event["sequence"]) == ("dataset", "ds_1", 41)
    assert (event["type"], event["data"]) == ("dataset.tags_edited", {"images": {"count": 1, "ids": ["a"]}})


@pytest.mark.parametrize(
    ("images", "dataset", "is_concerned"),
    [
        ('{count: 2, ids: ["a", "b"]}', "ds_1", True),
        ('{count: 1, ids: ["b"]}', "ds_1", False),
        ('{count: 1, ids: ["a"]}', "ds_2", False),
        ("{count: 500, ids: []}", "ds_1", True),  # only counted
        ('{count: 2, ids: ["b"]}', "ds_1", True),  # one of them has no known id
        ("12", "ds_1", True),  # a frozen version says how many images it has
        ("undefined", "ds_1", True),
    ],
)
async def test_an_image_is_fetched_again_unless_only_others_are_named(
    modules: Page, images: str, dataset: str, is_concerned: bool
) -> None:
    expression = f'concernsImage({EVENT % images}, "{dataset}", "a")'
    assert await value_of(modules, "events.js", expression) is is_concerned


async def test_tagging_runs_concern_every_data_set(modules: Page) -> None:
    run = '{aggregateKind: "tagging", aggregateId: "run_1", data: {}}'
    assert await value_of(modules, "events.js", f'concernsDataset({run}, "ds_1")') is True
    job = '{aggregateKind: "job", aggregateId: "job_1", data: {}}'
    assert await value_of(modules, "events.js", f'concernsDataset({job}, "ds_1")') is False


HISTORY = "{ steps: [1, 2, 3], losses: [0.3, 0.2, 0.1], rates: [1, 1, 1] }"


async def test_a_later_attempt_replaces_the_points_of_an_earlier_one(modules: Page) -> None:
    curve = await value_of(modules, "curve.js", f"appendPoint({HISTORY}, 2, 0.5, 2)")
    assert (curve["steps"], curve["losses"], curve["rates"]) == ([1, 2], [0.3, 0.5], [1, 2])


async def test_the_smoothed_curve_of_a_constant_is_that_constant(modules: Page) -> None:
    assert await value_of(modules, "curve.js", "smooth([4, 4, 4])") == pytest.approx([4, 4, 4])
    assert await value_of(modules, "curve.js", "smooth([])") == []


@pytest.mark.parametrize(
    ("live", "steps"),
    [
        ("null", [1, 2, 3]),
        ("{ steps: [2, 3], losses: [9, 9], rates: [9, 9] }", [1, 2, 3]),
        ("{ steps: [2, 3, 4, 5], losses: [9, 9, 8, 7], rates: [9, 9, 8, 7] }", [1, 2, 3, 4, 5]),
    ],
)
async def test_stored_points_are_continued_by_live_ones(modules: Page, live: str, steps: list[int]) -> None:
    merged = await value_of(modules, "curve.js", f"mergeHistory({HISTORY}, {live})")
    assert merged["steps"] == steps
    assert merged["losses"] == [0.3, 0.2, 0.1, 8, 7][: len(steps)]


PAGES = """collectPages(%d, async (limit, cursor) => {
    const start = Number(cursor ?? 0);
    const items = Array.from({length: Math.min(limit, 1200 - start)}, (_, index) => start + index);
    const next = start + items.length < 1200 ? String(start + items.length) : null;
    return {items, total: 1200, next};
}).then(({items, total, next}) => [items.length, items.at(-1), total, next])"""


@pytest.mark.parametrize(
    ("rows", "expected"),
    [(100, [100, 99, 1200, "100"]), (700, [700, 699, 1200, "700"]), (5000, [1200, 1199, 1200, None])],
)
async def test_a_list_is_read_page_by_page(modules: Page, rows: int, expected: list[object]) -> None:
    assert await value_of(modules, "paging.js", PAGES % rows) == expected


async def test_files_are_uploaded_in_batches_of_limited_number_and_size(modules: Page) -> None:
    sizes = "splitIntoBatches(%s.map((size) => ({file: {size}}))).map((batch) => batch.length)"
    assert await value_of(modules, "batches.js", sizes % "Array(70).fill(1)") == [32, 32, 6]
    assert await value_of(modules, "batches.js", sizes % "[200e6, 60e6, 10e6, 300e6]") == [2, 1, 1]
    assert await value_of(modules, "batches.js", sizes % "[]") == []


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["mika/a.png", "mika/one/b.png"], ["a.png", "one/b.png"]),
        (["mika/a.png", "mikado/b.png"], ["mika/a.png", "mikado/b.png"]),
        (["a.png"], ["a.png"]),
        ([], []),
    ],
)
async def test_files_of_one_folder_are_named_from_inside_it(
    modules: Page, names: list[str], expected: list[str]
) -> None:
    expression = f"insideOnlyFolder({names}.map((name) => ({{name}}))).map(({{name}}) => name)"
    assert await value_of(modules, "batches.js", expression) == expected


async def test_sidecar_files_are_distinguished_from_images_and_hidden_files_left_out(modules: Page) -> None:
    names = '["a/1.png", "a/1.txt", "b.CAPTION", "c.jpg"].map((name) => ({name, file: {name: name.split("/").at(-1)}}))'
    hidden = '{name: "a/.DS_Store", file: {name: ".DS_Store"}}'
    parted = await value_of(modules, "batches.js", f"partition([...{names}, {hidden}])")
    assert [one["name"] for one in parted["images"]] == ["a/1.png", "c.jpg"]
    assert [one["name"] for one in parted["sidecars"]] == ["a/1.txt", "b.CAPTION"]
    assert await value_of(modules, "batches.js", 'stem("a/1.tar.gz")') == "a/1.tar"


@pytest.mark.parametrize(
    ("job", "live", "expected"),
    [
        ('{status: "running", step: 5, steps: 20}', "{current_step: 7, total_steps: 20, loss: 0.5}", (7, 20, 0.5)),
        ('{status: "running", step: 9, steps: 20}', "{current_step: 7, total_steps: 20, loss: 0.5}", (9, 20, 0.5)),
        ('{status: "running", step: 0, live: {progress: {step: 3, steps: 8, loss: 1}}}', "null", (3, 8, 1)),
        ('{status: "completed", step: 20, steps: 20}', "{current_step: 19, loss: 0.5}", (20, 20, None)),
    ],
)
async def test_progress_is_the_live_one_while_a_job_runs(
    modules: Page, job: str, live: str, expected: tuple[object, ...]
) -> None:
    progress = await value_of(modules, "progress.js", f"mergeProgress({job}, {live})")
    assert (progress["step"], progress["steps"], progress["loss"]) == expected
