"""Shared fixtures: a real nats-server for each test that needs one, with the streams created by the migrate step."""

import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from contracts.commands import CommandMetadata
from contracts.errors import Conflict
from contracts.events import AnyEvent
from contracts.ids import CommandId, ulid
from contracts.subjects import AggregateKind
from contracts.wire.bus import Bus, connect
from contracts.wire.log import EventLog, build_commit
from contracts.wire.permissions import Role
from contracts.wire.server import EmbeddedServer
from contracts.wire.streams import migrate

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
LEASE = 2.0
"""Seconds; short, because some tests wait for it to expire."""

BusOf = Callable[[Role], Awaitable[Bus]]


def command_metadata(command: str | None = None, *, actor: str = "user:test", fingerprint: str = "") -> CommandMetadata:
    """The metadata of a command in a test."""
    return CommandMetadata(command_id=CommandId(command or ulid()), actor=actor, at=NOW, fingerprint=fingerprint)


async def append_events(bus: Bus, aggregate_kind: AggregateKind, aggregate_id: str, *events: AnyEvent) -> int:
    """Append as the catalog does while a worker appends too: after a lost race again. The sequence of the commit."""
    log = EventLog(bus)
    while True:
        revision = (await log.load(aggregate_kind, aggregate_id)).revision
        commit = build_commit(
            aggregate_kind, aggregate_id, events, expected_revision=revision, metadata=command_metadata()
        )
        try:
            return (await log.append(commit, revision)).sequence
        except Conflict:
            continue


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedServer]:
    """A nats-server for one test, with its own folder and port."""
    async with EmbeddedServer(tmp_path / "nats") as running:
        yield running


@pytest.fixture
async def bus_of(server: EmbeddedServer) -> AsyncIterator[BusOf]:
    """Opens connections to `server` in a role; the streams exist."""
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
    """Fail a test that is skipped for an unlisted reason, so that no test is skipped unnoticed. See tests/skips.txt."""
    return _fail_unlisted_skip((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, Any, Any]:
    """The same for whole files."""
    return _fail_unlisted_skip((yield))


def _fail_unlisted_skip(report: Any) -> Any:
    # On other platforms, tests that need POSIX or Linux are skipped as well.
    if report.skipped and not hasattr(report, "wasxfail") and sys.platform == "linux":
        reason = report.longrepr[-1].removeprefix("Skipped: ")
        if not any(reason == allowed or reason.startswith(f"{allowed}:") for allowed in _allowed_skips()):
            report.outcome = "failed"
            report.longrepr = f"skipped, but {reason!r} is not an allowed reason of tests/skips.txt"
    return report


def _allowed_skips() -> list[str]:
    lines = (Path(__file__).parent / "skips.txt").read_text(encoding="utf-8").splitlines()
    listed = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    allowed = os.environ.get("LORATORY_SKIPS_ALLOWED")
    return listed if allowed is None else [reason for reason in listed if reason in allowed.split(",")]
