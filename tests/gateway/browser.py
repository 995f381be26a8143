"""Pages in the system's Chromium."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from shutil import which

import httpx
import pytest
from playwright.async_api import Browser, ConsoleMessage, Page, expect

CHROMIUM = which("chromium") or which("chromium-browser") or which("google-chrome")
BROWSER_ARGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
BROWSER_TIMEOUT_MS = 120_000
"""How long the browser waits for an element before the test fails. Generous, because the machine may be busy."""

MARKS = [
    pytest.mark.chromium,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium: not installed on this machine"),
    pytest.mark.asyncio(loop_scope="session"),
]


@asynccontextmanager
async def open_page(browser: Browser) -> AsyncIterator[Page]:
    """A page that fails the test on console errors (such as a blocked script) and on requests to other hosts."""
    context = await browser.new_context(viewport={"width": 1280, "height": 860})
    context.set_default_timeout(BROWSER_TIMEOUT_MS)
    expect.set_options(timeout=BROWSER_TIMEOUT_MS)
    page = await context.new_page()
    console_errors: list[str] = []
    requested_hosts: set[str] = set()
    page.on("pageerror", lambda error: console_errors.append(str(error)))
    page.on("console", lambda message: console_errors.append(message.text) if _is_page_error(message) else None)
    page.on("request", lambda request: requested_hosts.add(httpx.URL(request.url).host))
    yield page
    await context.close()
    assert console_errors == []
    assert requested_hosts <= {"127.0.0.1"}


def _is_page_error(message: ConsoleMessage) -> bool:
    # The browser logs every 4xx and 5xx response and every lost connection; the page handles those.
    expected = "Failed to load resource|WebSocket connection"
    return message.type in ("error", "warning") and not re.search(expected, message.text)
