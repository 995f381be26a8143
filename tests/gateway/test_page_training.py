"""A training started, followed and downloaded on the web page alone, with a real trainer."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from loratory.client import AsyncClient
from loratory.stack import Stack
from tests.gateway.browser import MARKS
from tests.gateway.test_page import create_dataset

pytestmark = [*MARKS, pytest.mark.slow]
TRAINING_TIMEOUT_MS = 300_000
"""Importing torch alone takes a while on a busy machine."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    data = tmp_path_factory.mktemp("training") / "data"
    async with Stack(data, environ=os.environ, port=0, without=["tagger"]) as running:
        await running.wait_ready(["catalog", "gateway"])
        yield running


async def test_a_training_is_started_and_followed_and_its_lora_downloaded(
    stack: Stack, page: Page, tmp_path: Path
) -> None:
    dataset = await create_dataset(stack, "eggs", images=4)
    await page.goto(f"{stack.address}/#/datasets/{dataset}")
    await page.get_by_role("button", name="Train…").click()
    await page.get_by_label("Preset").select_option("tiny-random-demo")
    await page.get_by_label("Trigger").fill("egg")
    await page.get_by_label("Steps").fill("12")
    await page.get_by_role("button", name="Start training").click()

    plot = page.get_by_role("region", name="Loss")
    await expect(plot.locator("canvas")).to_have_count(2, timeout=TRAINING_TIMEOUT_MS)
    await expect(page.locator(".title .status")).to_have_text("completed", timeout=TRAINING_TIMEOUT_MS)
    await expect(page.get_by_role("img", name="Loss over 12 steps")).to_be_visible()

    comparison = page.get_by_role("region", name="Before and after")
    await expect(comparison.get_by_role("heading", level=3)).to_have_text(
        ["Training images 3 of 4 shown", "Before base model only", "After 12 steps", "Prompt"]
    )
    await expect(comparison.locator("img")).to_have_count(9)
    await page.wait_for_function(
        "[...document.querySelectorAll('.comparison img')].every((image) => image.naturalWidth)"
    )
    before, after = (comparison.get_by_alt_text(f"Step {step}:").first for step in (0, 12))
    addresses = [str(await image.get_attribute("src")) for image in (before, after)]
    assert [address.split("/samples/")[1] for address in addresses] == ["0/0", "12/0"]
    await after.click()
    await expect(page.get_by_role("dialog", name="Sample at step 12").get_by_text("Seed 0")).to_be_visible()
    await page.keyboard.press("Escape")

    job = page.url.rpartition("/")[2]
    async with AsyncClient(stack.address) as client:
        await client.set_job_description(job, "egg was recognised in 3 of 3 images")
    await expect(page.get_by_text("egg was recognised in 3 of 3 images")).to_be_visible()

    await page.get_by_role("navigation").get_by_role("link", name="LoRAs").click()
    async with page.expect_download() as download:
        await page.get_by_role("link", name="Download for ComfyUI").click()
    file = tmp_path / "egg.safetensors"
    await (await download.value).save_as(file)
    assert b'"ss_' in file.read_bytes()[:100_000]


async def test_a_draft_shows_its_recipe_and_collapses_long_lists(stack: Stack, page: Page) -> None:
    dataset = await create_dataset(stack, "hens")
    body = {"dataset": dataset, "preset": "demo", "name": "a draft", "changes": {"sampling.prompts": ["a", "b"]}}
    async with httpx.AsyncClient(base_url=f"{stack.address}/api/v1", timeout=60) as client:
        created = (await client.post("/jobs", json=body)).raise_for_status().json()
    await page.goto(f"{stack.address}/#/jobs/{created['id']}")
    recipe = page.get_by_role("region", name="Recipe")
    await expect(recipe.get_by_text("a", exact=True)).to_be_visible()
    collapsed = recipe.get_by_text("two small orange triangles, in the middle, purple background")
    await expect(collapsed).to_be_hidden()
    await recipe.get_by_text("Show all 18").click()
    await expect(collapsed).to_be_visible()
