"""The web page in a real browser against a real local stack: all services and a real nats-server."""

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from PIL import Image, ImageDraw
from playwright.async_api import Page, expect

from contracts.wire.blobs.store import LocalBlobs
from loratory.stack import Stack
from tests.gateway.browser import MARKS
from tests.limits import WAIT

COLOURS = ("crimson", "seagreen", "royalblue", "goldenrod")
LIVE = re.compile("live")
pytestmark = MARKS

SKIPPED = {"cut.png": "damaged", "2.txt": "It is not UTF-8", "lost.txt": "There is no image of this name"}
"""Files that an import names, in order, with the reason."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """All services but the trainer."""
    data = tmp_path_factory.mktemp("stack") / "data"
    async with Stack(data, environ=os.environ, port=0, without=["trainer"]) as running:
        await running.wait_ready(["catalog", "gateway"])
        yield running


def draw_png(number: int, side: int = 96) -> bytes:
    image = Image.new("RGB", (side, side), COLOURS[number % len(COLOURS)])
    ImageDraw.Draw(image).ellipse((8 + number, 8, 60 + number, 72), fill="white")
    buffer = BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


async def create_dataset(stack: Stack, name: str, images: int = 3) -> str:
    """Creates a data set with generated images over the API; returns its id."""
    retrying = httpx.AsyncHTTPTransport(retries=6)  # a killed gateway takes a moment to restart
    async with httpx.AsyncClient(base_url=f"{stack.address}/api/v1", timeout=60, transport=retrying) as client:
        created = await client.post("/datasets", json={"name": name})
        created.raise_for_status()
        files = [("files", (f"{number}.png", draw_png(number), "image/png")) for number in range(images)]
        (await client.post(f"/datasets/{created.json()['id']}/images", files=files)).raise_for_status()
    return str(created.json()["id"])


async def test_images_added_to_a_new_data_set_are_imported_or_skipped_with_a_reason(
    stack: Stack, page: Page, tmp_path: Path
) -> None:
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(draw_png(number))
    (tmp_path / "0.txt").write_text("A crimson card with a white egg.")
    (tmp_path / "1.TXT").write_text("1girl, solo, long_hair")
    (tmp_path / "2.txt").write_text("初音ミク", encoding="cp932")
    (tmp_path / "lost.txt").write_text("1girl")
    (tmp_path / "cut.png").write_bytes(draw_png(3)[:200])
    await page.goto(stack.address)
    await expect(page.get_by_role("status").get_by_text(LIVE)).to_be_visible()

    await page.get_by_role("button", name="New data set").click()
    await page.get_by_label("Name").fill("cards")
    await page.get_by_role("button", name="Create").click()
    await page.get_by_label("Choose files").set_input_files(sorted(tmp_path.iterdir()))

    report = page.get_by_role("region", name="Import")
    await expect(report).to_contain_text("3 added · 0 already in the data set · 3 skipped")
    await expect(report).to_contain_text("1 text read as tags (which are not encrypted), 1 as captions.")
    skipped = report.get_by_role("listitem")
    for number, (name, reason) in enumerate(SKIPPED.items()):
        await expect(skipped.nth(number)).to_contain_text(name)
        await expect(skipped.nth(number)).to_contain_text(reason)
    await expect(page.locator(".tile img")).to_have_count(3)
    await expect(page.get_by_alt_text("A crimson card with a white egg.")).to_be_visible()
    await expect(page.locator(".tile").get_by_text("solo")).to_be_visible()


@pytest.mark.slow
async def test_a_folder_keeps_two_pictures_of_one_name_apart(stack: Stack, page: Page, tmp_path: Path) -> None:
    texts = {"one/a": "A crimson card.", "two/a": "A blue card."}
    for number, (name, text) in enumerate(texts.items(), start=1):
        file = tmp_path / "mika" / f"{name}.png"
        file.parent.mkdir(parents=True)
        file.write_bytes(draw_png(number))
        file.with_suffix(".txt").write_text(text)
    dataset = await create_dataset(stack, "two folders", images=1)
    await page.goto(f"{stack.address}/#/datasets/{dataset}")
    await page.get_by_label("Choose a folder").set_input_files(tmp_path / "mika")
    report = page.get_by_role("region", name="Import")
    await expect(report).to_contain_text("2 added · 0 already in the data set · 0 skipped")
    await page.get_by_role("link", name="Open two/a.png").press("Enter")
    viewer = page.get_by_role("dialog", name="Image")
    await expect(viewer.get_by_role("heading", name="a.png", exact=True)).to_have_attribute("title", "two/a.png")
    await expect(viewer.get_by_label("Caption", exact=True)).to_have_value("A blue card.")


@pytest.mark.slow
async def test_tags_and_caption_of_an_image_are_edited_by_keyboard(stack: Stack, page: Page) -> None:
    dataset = await create_dataset(stack, "edited")
    await page.goto(f"{stack.address}/#/datasets/{dataset}")
    await page.get_by_role("link", name="Open 0.png").press("Enter")
    viewer = page.get_by_role("dialog", name="Image")

    await viewer.get_by_label("Add a tag").fill("egg")
    await viewer.get_by_label("Add a tag").press("Enter")
    await viewer.get_by_role("button", name="Remove egg").press("Enter")
    await expect(viewer.get_by_role("button", name="Remove egg")).to_have_count(0)
    await viewer.get_by_label("Caption", exact=True).fill("an egg on a card")
    await viewer.get_by_role("button", name="Save caption").press("Enter")

    await expect(viewer).to_contain_text("edited manually")
    await viewer.press("ArrowRight")
    await expect(viewer.get_by_role("heading", name="1.png")).to_be_visible()
    await viewer.press("Escape")
    await expect(page.get_by_alt_text("an egg on a card")).to_be_visible()


@pytest.mark.slow
async def test_repeats_and_a_mask_are_shown_with_their_image(stack: Stack, page: Page) -> None:
    dataset = await create_dataset(stack, "masked", images=1)
    async with httpx.AsyncClient(base_url=f"{stack.address}/api/v1", timeout=60) as client:
        mask = BytesIO()
        Image.new("L", (96, 96), 255).save(mask, "PNG")
        files = [("files", ("1.png", draw_png(1))), ("masks", ("1.png", mask.getvalue()))]
        imported = await client.post(f"/datasets/{dataset}/images", files=files, data={"repeats": '{"1.png": 10}'})
        imported.raise_for_status()
    await page.goto(f"{stack.address}/#/datasets/{dataset}")

    await page.get_by_role("link", name="Open 1.png").click()
    await expect(page.get_by_role("dialog", name="Image")).to_contain_text("· 10 × an epoch · with a mask ·")  # noqa: RUF001

    await page.get_by_role("button", name="Previous image").click()
    await expect(page.get_by_role("heading", name="0.png")).to_be_visible()
    await expect(page.get_by_role("dialog", name="Image")).not_to_contain_text("an epoch")


@pytest.mark.slow
async def test_an_image_is_erased_permanently_after_a_confirmation(stack: Stack, page: Page) -> None:
    dataset = await create_dataset(stack, "erased")
    await page.goto(f"{stack.address}/#/datasets/{dataset}")
    await page.get_by_role("link", name="Open 0.png").press("Enter")
    erase = page.get_by_role("dialog", name="Image").get_by_role("button", name="Erase permanently")

    page.once("dialog", lambda confirmation: confirmation.dismiss())
    await erase.click()
    await expect(erase).to_be_visible()
    page.once("dialog", lambda confirmation: confirmation.accept())
    await erase.click()

    await expect(page.get_by_text("Image erased", exact=True)).to_be_visible()
    await expect(page.get_by_role("link", name="Open 0.png")).to_have_count(0)
    await expect(page.get_by_role("link", name="Open 1.png")).to_be_visible()


@pytest.mark.slow
async def test_a_model_tags_the_images_and_shows_its_confidence(stack: Stack, page: Page) -> None:
    dataset = await create_dataset(stack, "auto-tagged")
    await page.goto(f"{stack.address}/#/datasets/{dataset}")
    await page.get_by_label("Model").select_option("demo")
    await page.get_by_role("button", name="Auto-tag").click()
    await expect(page.locator(".tile .chip.model small").first).to_contain_text("%")


@pytest.mark.slow
async def test_a_job_without_a_trainer_shows_why_it_waits_and_can_be_cancelled(stack: Stack, page: Page) -> None:
    dataset = await create_dataset(stack, "waiting")
    await page.goto(f"{stack.address}/#/datasets/{dataset}")
    await page.get_by_role("button", name="Train…").click()
    await page.get_by_label("Name", exact=True).fill("without a trainer")
    await page.get_by_role("button", name="Start training").click()
    await expect(page.get_by_role("heading", name="without a trainer")).to_be_visible()
    await expect(page.get_by_text("No trainer connected")).to_be_visible()

    await page.get_by_role("navigation").get_by_role("link", name="Jobs").click()
    row = page.get_by_role("listitem").filter(has_text="without a trainer")
    await expect(row).to_contain_text("No trainer connected")
    await row.get_by_role("button", name="Cancel").click()
    await expect(row.locator(".status")).to_have_text("cancelled")


@pytest.mark.slow
async def test_a_rejected_request_shows_the_detail_of_the_problem(stack: Stack, page: Page) -> None:
    await create_dataset(stack, "taken", images=1)
    await page.goto(stack.address)
    await page.get_by_role("button", name="New data set").click()
    await page.get_by_label("Name").fill("taken")
    await page.get_by_role("button", name="Create").click()
    await expect(page.locator(".toast.error")).to_contain_text("taken")


@pytest.mark.slow
async def test_the_page_recovers_after_the_gateway_is_killed(stack: Stack, page: Page) -> None:
    await page.goto(stack.address)
    await expect(page.get_by_role("status").get_by_text(LIVE)).to_be_visible()
    pid = stack.pid_of("gateway")
    assert pid is not None
    os.kill(pid, 9)
    await expect(page.get_by_role("status").get_by_text("reconnecting")).to_be_visible()
    async with asyncio.timeout(WAIT):
        while stack.pid_of("gateway") in {None, pid}:  # noqa: ASYNC110 - the stack publishes no event for it
            await asyncio.sleep(0.05)
    await create_dataset(stack, "created while disconnected")
    await expect(page.get_by_role("heading", name="created while disconnected")).to_be_visible()
    await expect(page.get_by_role("status").get_by_text(LIVE)).to_be_visible()


@pytest.mark.slow
async def test_the_page_says_why_the_catalog_is_silent(stack: Stack, page: Page) -> None:
    await page.goto(stack.address)
    await expect(page.get_by_role("status").get_by_text(LIVE)).to_be_visible()
    catalog = stack.pid_of("catalog")
    assert catalog is not None
    os.kill(catalog, signal.SIGSTOP)
    try:
        await expect(page.get_by_role("alert")).to_contain_text("The catalog does not respond")
    finally:
        os.kill(catalog, signal.SIGCONT)
    await expect(page.get_by_role("alert")).to_have_count(0)
    await stack.wait_ready(["catalog"], timeout=WAIT)


@pytest.mark.slow
async def test_the_activity_screen_shows_new_events_as_they_happen(stack: Stack, page: Page) -> None:
    await page.goto(f"{stack.address}/#/activity")
    await expect(page.locator(".log li").first).to_be_visible()
    await create_dataset(stack, "logged")
    await expect(page.get_by_text("Created data set 'logged'", exact=True)).to_be_visible()
    await page.get_by_label("Kind").select_option("job")
    await expect(page.get_by_text("Created data set 'logged'", exact=True)).to_have_count(0)


@pytest.mark.slow
async def test_a_server_with_an_api_key_requires_it_once(page: Page, tmp_path: Path) -> None:
    environ = {**os.environ, "LORATORY_API_KEY": "open sesame, please"}
    async with Stack(tmp_path / "data", environ=environ, port=0, without=["trainer", "tagger"]) as locked:
        await locked.wait_ready()
        await page.goto(locked.address)
        await page.get_by_label("API key", exact=True).fill("open barley")
        await page.get_by_role("button", name="Log in").click()
        await expect(page.locator(".toast.error")).to_be_visible()
        await page.get_by_label("API key", exact=True).fill("open sesame, please")
        await page.get_by_role("button", name="Log in").click()
        await expect(page.get_by_role("heading", name="No data sets yet")).to_be_visible()
        await expect(page.get_by_role("status").get_by_text(LIVE)).to_be_visible()
        await page.reload()
        await expect(page.get_by_role("heading", name="No data sets yet")).to_be_visible()


@pytest.mark.slow
async def test_all_screens_fit_a_phone(stack: Stack, page: Page) -> None:
    dataset = await create_dataset(stack, "small screen")
    await page.set_viewport_size({"width": 390, "height": 800})
    for screen in ("datasets", f"datasets/{dataset}", "jobs", "loras", "activity"):
        await page.goto(f"{stack.address}/#/{screen}")
        await expect(page.get_by_role("heading", level=1)).to_be_visible()
        assert await page.evaluate("document.documentElement.scrollWidth") <= 390, screen


@pytest.mark.slow
async def test_missing_bytes_are_shown_on_every_screen_until_they_are_back(stack: Stack, page: Page) -> None:
    dataset = await create_dataset(stack, "lost", images=1)
    async with httpx.AsyncClient(base_url=f"{stack.address}/api/v1", timeout=60) as client:
        (image,) = (await client.get("/images", params={"dataset": dataset})).json()["items"]
        source = LocalBlobs(stack.data / "blobs").path(image["source"])
        kept = source.rename(source.with_suffix(".kept"))
        (await client.post("/audit/verify")).raise_for_status()
        alert = page.get_by_role("alert")

        await page.goto(f"{stack.address}/#/jobs")
        await expect(alert).to_have_text(
            re.compile(r"^\d+ pictures?, \d+ sources? are missing\. Everything else works\.")
        )

        kept.rename(source)
        (await client.post("/audit/verify")).raise_for_status()
        await page.reload()
        await expect(page.get_by_role("status").get_by_text(LIVE)).to_be_visible()
        await expect(alert).to_have_count(0)
