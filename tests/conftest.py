"""What tests share: a real nats-server for each test that asks, with the streams as the migrate step makes them."""

import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from contracts.commands import Origin
from contracts.ids import CommandId, ulid
from contracts.wire.bus import Bus, connect
from contracts.wire.permissions import Role
from contracts.wire.server import EmbeddedServer
from contracts.wire.streams import migrate

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
LEASE = 2.0
"""Seconds; so short only where tests wait for it to pass."""

BusOf = Callable[[Role], Awaitable[Bus]]


def origin(command: str | None = None, *, actor: str = "user:test", fingerprint: str = "") -> Origin:
    """Where a wish of a test comes from."""
    return Origin(command=CommandId(command or ulid()), actor=actor, at=NOW, fingerprint=fingerprint)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedServer]:
    """A nats-server of the test's own, on its own folder and port."""
    async with EmbeddedServer(tmp_path / "nats") as running:
        yield running


@pytest.fixture
async def bus_of(server: EmbeddedServer) -> AsyncIterator[BusOf]:
    """A connection to it in a role; the streams are there."""
    opened: list[Bus] = []

    async def open_as(role: Role) -> Bus:
        user, password = server.credentials(role)
        bus = await connect(server.url, user, password, f"test-{role}")
        opened.append(bus)
        return bus

    await migrate(await open_as("admin"), at=NOW, lease=LEASE)
    yield open_as
    for bus in opened:
        await bus.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, Any, Any]:
    """A skip for a reason that nobody listed is a failure: a suite must not grow silent. See tests/skips.txt."""
    return _judged((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, Any, Any]:
    """The same for whole files."""
    return _judged((yield))


def _judged(report: Any) -> Any:
    # Elsewhere what needs POSIX or Linux is skipped as well.
    if report.skipped and not hasattr(report, "wasxfail") and sys.platform == "linux":
        reason = report.longrepr[-1].removeprefix("Skipped: ")
        if not any(reason == allowed or reason.startswith(f"{allowed}:") for allowed in _allowed_skips()):
            report.outcome = "failed"
            report.longrepr = f"it was skipped, and {reason!r} is not among the reasons of tests/skips.txt allowed here"
    return report


def _allowed_skips() -> list[str]:
    lines = (Path(__file__).parent / "skips.txt").read_text(encoding="utf-8").splitlines()
    listed = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    wanted = os.environ.get("LORATORY_SKIPS_ALLOWED")
    return listed if wanted is None else [reason for reason in listed if reason in wanted.split(",")]
