"""The page in a real browser against the real workshop: all services, a real nats-server, nothing in between."""

import asyncio
import os
import re
from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path
from shutil import which

import httpx
import pytest
import pytest_asyncio
from PIL import Image, ImageDraw
from playwright.async_api import Browser, Page, async_playwright, expect

from loratory.stack import Stack
from tests.limits import WAIT

CHROMIUM = which("chromium") or which("chromium-browser") or which("google-chrome")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
COLOURS = ("crimson", "seagreen", "royalblue", "goldenrod")
LIVE = re.compile("live")
PATIENCE = 120_000
"""Milliseconds the browser waits for something to appear before the test fails; two cores may be busy elsewhere."""

pytestmark = [
    pytest.mark.chromium,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium: there is none on this machine"),
    pytest.mark.asyncio(loop_scope="module"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def workshop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """All of it but the trainer."""
    data = tmp_path_factory.mktemp("workshop") / "data"
    async with Stack(data, environ=os.environ, port=0, without=["trainer"]) as stack:
        await stack.wait_ready(["catalog", "gateway"])
        yield stack


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="module")
async def page(browser: Browser) -> AsyncIterator[Page]:
    """A page that must not complain (a blocked script or style is a complaint) nor ask any other machine."""
    context = await browser.new_context(viewport={"width": 1280, "height": 860})
    context.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    page = await context.new_page()
    complaints: list[str] = []
    asked: set[str] = set()
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda said: complaints.append(said.text) if _complains(said.type, said.text) else None)
    page.on("request", lambda request: asked.add(httpx.URL(request.url).host))
    yield page
    await context.close()
    assert complaints == []
    assert asked <= {"127.0.0.1"}


def _complains(kind: str, text: str) -> bool:
    # The browser reports each answer of 4xx and 5xx, and each lost connection; the page handles those.
    return kind in ("error", "warning") and not re.search("Failed to load resource|WebSocket connection", text)


def drawn(number: int, side: int = 96) -> bytes:
    image = Image.new("RGB", (side, side), COLOURS[number % len(COLOURS)])
    ImageDraw.Draw(image).ellipse((8 + number, 8, 60 + number, 72), fill="white")
    buffer = BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


async def stocked(stack: Stack, name: str, pictures: int = 3) -> str:
    """A data set with drawn pictures, made over the API; its id."""
    patient = httpx.AsyncHTTPTransport(retries=6)  # a killed gateway takes a moment to stand again
    async with httpx.AsyncClient(base_url=f"{stack.address}/api/v1", timeout=60, transport=patient) as client:
        made = await client.post("/datasets", json={"name": name})
        made.raise_for_status()
        files = [("files", (f"{number}.png", drawn(number), "image/png")) for number in range(pictures)]
        (await client.post(f"/datasets/{made.json()['id']}/images", files=files)).raise_for_status()
    return str(made.json()["id"])


async def test_pictures_dropped_on_a_new_data_set_are_taken_or_refused_with_a_reason(
    workshop: Stack, page: Page, tmp_path: Path
) -> None:
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(drawn(number))
    (tmp_path / "0.txt").write_text("a crimson card with a white egg")
    (tmp_path / "cut.png").write_bytes(drawn(3)[:200])
    await page.goto(workshop.address)
    await expect(page.get_by_role("status").get_by_text(LIVE)).to_be_visible()

    await page.get_by_role("button", name="New data set").click()
    await page.get_by_label("Name").fill("cards")
    await page.get_by_role("button", name="Create").click()
    await page.get_by_label("Choose files").set_input_files(sorted(tmp_path.iterdir()))

    report = page.get_by_role("region", name="Import")
    await expect(report).to_contain_text("3 added · 0 known already · 1 refused")
    await expect(report.get_by_role("listitem")).to_contain_text("cut.png")
    await expect(page.locator(".tile img")).to_have_count(3)
    await expect(page.get_by_alt_text("a crimson card with a white egg")).to_be_visible()


async def test_tags_and_caption_of_a_picture_are_edited_by_keyboard(workshop: Stack, page: Page) -> None:
    dataset = await stocked(workshop, "edited")
    await page.goto(f"{workshop.address}/#/datasets/{dataset}")
    await page.get_by_role("link", name="Open 0.png").press("Enter")
    picture = page.get_by_role("dialog", name="Picture")

    await picture.get_by_label("Add a tag").fill("egg")
    await picture.get_by_label("Add a tag").press("Enter")
    await picture.get_by_role("button", name="Remove egg").press("Enter")
    await expect(picture.get_by_role("button", name="Remove egg")).to_have_count(0)
    await picture.get_by_label("Caption", exact=True).fill("an egg on a card")
    await picture.get_by_role("button", name="Save caption").press("Enter")

    await expect(picture).to_contain_text("written by a person")
    await picture.press("ArrowRight")
    await expect(picture.get_by_role("heading", name="1.png")).to_be_visible()
    await picture.press("Escape")
    await expect(page.get_by_alt_text("an egg on a card")).to_be_visible()


async def test_a_picture_is_erased_for_good_after_a_question(workshop: Stack, page: Page) -> None:
    dataset = await stocked(workshop, "erased")
    await page.goto(f"{workshop.address}/#/datasets/{dataset}")
    await page.get_by_role("link", name="Open 0.png").press("Enter")
    erase = page.get_by_role("dialog", name="Picture").get_by_role("button", name="Erase for good")

    page.once("dialog", lambda question: question.dismiss())
    await erase.click()
    await expect(erase).to_be_visible()
    page.once("dialog", lambda question: question.accept())
    await erase.click()

    await expect(page.get_by_text("Erased", exact=True)).to_be_visible()
    await expect(page.get_by_role("link", name="Open 0.png")).to_have_count(0)
    await expect(page.get_by_role("link", name="Open 1.png")).to_be_visible()


async def test_a_model_tags_the_pictures_and_says_how_sure_it_is(workshop: Stack, page: Page) -> None:
    dataset = await stocked(workshop, "seen by a model")
    await page.goto(f"{workshop.address}/#/datasets/{dataset}")
    await page.get_by_label("Model").select_option("stand-in")
    await page.get_by_role("button", name="Tag with model").click()
    await expect(page.locator(".tile .chip.model small").first).to_contain_text("%")


async def test_a_job_that_nobody_can_do_says_why_it_waits_and_can_be_cancelled(workshop: Stack, page: Page) -> None:
    dataset = await stocked(workshop, "waiting")
    await page.goto(f"{workshop.address}/#/datasets/{dataset}")
    await page.get_by_role("button", name="Train…").click()
    await page.get_by_label("Name", exact=True).fill("nobody is there")
    await page.get_by_role("button", name="Train", exact=True).click()
    await expect(page.get_by_role("heading", name="nobody is there")).to_be_visible()
    await expect(page.get_by_text("no trainer connected")).to_be_visible()

    await page.get_by_role("navigation").get_by_role("link", name="Jobs").click()
    row = page.get_by_role("listitem").filter(has_text="nobody is there")
    await expect(row).to_contain_text("no trainer connected")
    await row.get_by_role("button", name="Cancel").click()
    await expect(row.locator(".status")).to_have_text("cancelled")


async def test_a_refusal_is_shown_in_the_words_of_the_problem(workshop: Stack, page: Page) -> None:
    await stocked(workshop, "taken", pictures=1)
    await page.goto(workshop.address)
    await page.get_by_role("button", name="New data set").click()
    await page.get_by_label("Name").fill("taken")
    await page.get_by_role("button", name="Create").click()
    await expect(page.locator(".toast.error")).to_contain_text("taken")


async def test_the_page_goes_on_after_the_gateway_was_killed(workshop: Stack, page: Page) -> None:
    await page.goto(workshop.address)
    await expect(page.get_by_role("status").get_by_text(LIVE)).to_be_visible()
    pid = workshop.pid_of("gateway")
    assert pid is not None
    os.kill(pid, 9)
    await expect(page.get_by_role("status").get_by_text("reconnecting")).to_be_visible()
    async with asyncio.timeout(WAIT):
        while workshop.pid_of("gateway") in {None, pid}:  # noqa: ASYNC110 - the stack tells nobody
            await asyncio.sleep(0.05)
    await stocked(workshop, "made meanwhile")
    await expect(page.get_by_role("heading", name="made meanwhile")).to_be_visible()
    await expect(page.get_by_role("status").get_by_text(LIVE)).to_be_visible()


async def test_the_log_grows_under_the_eyes_of_who_reads_it(workshop: Stack, page: Page) -> None:
    await page.goto(f"{workshop.address}/#/activity")
    await expect(page.locator(".log li").first).to_be_visible()
    await stocked(workshop, "in the log")
    await expect(page.get_by_text("Data set in the log made")).to_be_visible()
    await page.get_by_label("Kind").select_option("job")
    await expect(page.get_by_text("Data set in the log made")).to_have_count(0)


async def test_a_workshop_with_a_key_asks_for_it_once(page: Page, tmp_path: Path) -> None:
    environ = {**os.environ, "LORATORY_API_KEY": "open sesame, please"}
    async with Stack(tmp_path / "data", environ=environ, port=0, without=["trainer", "tagger"]) as locked:
        await locked.wait_ready()
        await page.goto(locked.address)
        await page.get_by_label("API key", exact=True).fill("open barley")
        await page.get_by_role("button", name="Open").click()
        await expect(page.locator(".toast.error")).to_be_visible()
        await page.get_by_label("API key", exact=True).fill("open sesame, please")
        await page.get_by_role("button", name="Open").click()
        await expect(page.get_by_role("heading", name="No data set yet")).to_be_visible()
        await expect(page.get_by_role("status").get_by_text(LIVE)).to_be_visible()
        await page.reload()
        await expect(page.get_by_role("heading", name="No data set yet")).to_be_visible()


async def test_it_fits_a_telephone(workshop: Stack, page: Page) -> None:
    dataset = await stocked(workshop, "small screen")
    await page.set_viewport_size({"width": 390, "height": 800})
    for place in ("datasets", f"datasets/{dataset}", "jobs", "loras", "activity"):
        await page.goto(f"{workshop.address}/#/{place}")
        await expect(page.get_by_role("heading", level=1)).to_be_visible()
        assert await page.evaluate("document.documentElement.scrollWidth") <= 390, place


async def test_a_later_attempt_replaces_the_points_of_an_earlier_one(workshop: Stack, page: Page) -> None:
    await page.goto(workshop.address)
    curve = await page.evaluate(
        """async () => {
            const { extended, smoothed } = await import("/web/plot.js");
            const history = { steps: [1, 2, 3], losses: [0.3, 0.2, 0.1], rates: [1, 1, 1] };
            return { ...extended(history, 2, 0.5, 2), flat: smoothed([4, 4, 4]) };
        }"""
    )
    assert (curve["steps"], curve["losses"], curve["rates"]) == ([1, 2], [0.3, 0.5], [1, 2])
    assert curve["flat"] == pytest.approx([4, 4, 4])
