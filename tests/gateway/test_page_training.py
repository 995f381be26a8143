"""A LoRA made and watched on the page alone, with a real trainer."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from loratory.client import AsyncClient
from loratory.stack import Stack
from tests.gateway.test_page import CHROMIUM, browser, page, stocked

__all__ = ["browser", "page"]  # fixtures

pytestmark = [
    pytest.mark.chromium,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium: there is none on this machine"),
    pytest.mark.asyncio(loop_scope="module"),
]
MINUTES = 300_000
"""Milliseconds: importing torch takes a while on two busy cores."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def workshop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    data = tmp_path_factory.mktemp("training") / "data"
    async with Stack(data, environ=os.environ, port=0, without=["tagger"]) as stack:
        await stack.wait_ready(["catalog", "gateway"])
        yield stack


async def test_a_training_is_started_watched_and_its_lora_downloaded(
    workshop: Stack, page: Page, tmp_path: Path
) -> None:
    dataset = await stocked(workshop, "eggs", pictures=4)
    await page.goto(f"{workshop.address}/#/datasets/{dataset}")
    await page.get_by_role("button", name="Train…").click()
    await page.get_by_label("Preset").select_option("stand-in-demo")
    await page.get_by_label("Trigger").fill("egg")
    await page.get_by_label("Steps").fill("12")
    await page.get_by_role("button", name="Train", exact=True).click()

    plot = page.get_by_role("region", name="Loss")
    await expect(plot.locator("canvas")).to_have_count(2, timeout=MINUTES)
    await expect(page.locator(".title .status")).to_have_text("done", timeout=MINUTES)
    await expect(page.get_by_role("img", name="Loss over 12 steps")).to_be_visible()

    compared = page.get_by_role("region", name="Before and after")
    await expect(compared.get_by_role("heading", level=3)).to_have_text(
        ["Shown 3 of 4 pictures", "Before the base alone", "After 12 steps", "Asked"]
    )
    await expect(compared.locator("img")).to_have_count(9)
    await page.wait_for_function("[...document.querySelectorAll('.compared img')].every((each) => each.naturalWidth)")
    before, after = (compared.get_by_alt_text(f"Step {step}:").first for step in (0, 12))
    addresses = [str(await each.get_attribute("src")) for each in (before, after)]
    assert [address.split("/samples/")[1] for address in addresses] == ["0/0", "12/0"]
    await after.click()
    await expect(page.get_by_role("dialog", name="Step 12").get_by_text("seed 0")).to_be_visible()
    await page.keyboard.press("Escape")

    job = page.url.rpartition("/")[2]
    async with AsyncClient(workshop.address) as client:
        await client.describe_job(job, "egg was recognised in 3 of 3 pictures")
    await expect(page.get_by_text("egg was recognised in 3 of 3 pictures")).to_be_visible()

    await page.get_by_role("navigation").get_by_role("link", name="LoRAs").click()
    async with page.expect_download() as download:
        await page.get_by_role("link", name="For ComfyUI").click()
    file = tmp_path / "egg.safetensors"
    await (await download.value).save_as(file)
    assert b'"ss_' in file.read_bytes()[:100_000]


async def test_a_draft_shows_its_recipe_and_folds_what_is_long(workshop: Stack, page: Page) -> None:
    dataset = await stocked(workshop, "hens")
    asked = {"dataset": dataset, "preset": "demo", "name": "a draft", "changes": {"sampling.prompts": ["a", "b"]}}
    async with httpx.AsyncClient(base_url=f"{workshop.address}/api/v1", timeout=60) as client:
        made = (await client.post("/jobs", json=asked)).raise_for_status().json()
    await page.goto(f"{workshop.address}/#/jobs/{made['id']}")
    recipe = page.get_by_role("region", name="Recipe")
    await expect(recipe.get_by_text("a", exact=True)).to_be_visible()
    kept = recipe.get_by_text("two small orange triangles, in the middle, purple background")
    await expect(kept).to_be_hidden()
    await recipe.get_by_text("All 18").click()
    await expect(kept).to_be_visible()
