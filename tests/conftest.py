"""What tests share: a real nats-server for each test that asks for one, with the streams as the migrate step makes them."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

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
