"""`python -m gateway` as a process: readiness, errors in one sentence, and a clean shutdown."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import connect as open_socket
from websockets.exceptions import ConnectionClosedError

from contracts.wire.log.migration import migrate
from contracts.wire.server.embedded import EmbeddedServer
from contracts.wire.service.boot import NOT_NOW
from contracts.wire.service.bus import connect
from tests.gateway.conftest import eventually
from tests.gateway.fake_catalog import FakeCatalog
from tests.ports import free_port

Environ = dict[str, str]


@pytest.fixture
async def environ(server: EmbeddedServer, tmp_path: Path) -> AsyncIterator[Environ]:
    """The environment of a gateway with NATS and a fake catalog running."""
    admin, bus = [await connect(server.url, *server.credentials(role), name=role) for role in ("admin", "catalog")]
    log_id = await migrate(admin, at=datetime.now(UTC), lease=15)
    user, key = server.credentials("gateway")
    async with FakeCatalog(bus, log_id):
        yield {
            "PATH": os.environ["PATH"],
            "LORATORY_NATS_URL": server.url,
            "LORATORY_NATS_USER": user,
            "LORATORY_NATS_NKEY_FILE": str(key.path),
            "LORATORY_STAGING": str(tmp_path / "staging"),
            "LORATORY_BLOBS": str(tmp_path / "blobs"),
            "LORATORY_HEALTH_FILE": str(tmp_path / "gateway.json"),
            "LORATORY_PORT": str(free_port()),
        }
    await bus.close()
    await admin.close()


async def start_gateway(environ: Environ, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", *arguments), env=environ, stderr=asyncio.subprocess.PIPE
    )


async def run_gateway(environ: Environ, *arguments: str) -> tuple[int | None, str]:
    """Exit code and stderr of a gateway that ends by itself."""
    process = await start_gateway(environ, *arguments)
    _, text = await asyncio.wait_for(process.communicate(), 120)
    return process.returncode, text.decode()


@pytest.mark.slow
async def test_it_becomes_ready_and_stops_cleanly_with_open_sockets(environ: Environ) -> None:
    process = await start_gateway(environ)

    async def is_ready() -> bool:
        return (await run_gateway(environ, "--check"))[0] == 0

    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{environ['LORATORY_PORT']}") as client:

        async def answers() -> bool:
            with contextlib.suppress(httpx.TransportError):
                return (await client.get("/health/ready")).status_code == 200
            return False

        await eventually(answers)  # a check is a process of its own, which takes a second
    await eventually(is_ready)
    async with open_socket(f"ws://127.0.0.1:{environ['LORATORY_PORT']}/ws/progress") as opened:
        await opened.recv()
        process.send_signal(signal.SIGTERM)
        received: list[object] = []
        with contextlib.suppress(ConnectionClosedError):
            while True:
                received.append(await opened.recv())
        assert '"type":"bye"' in str(received[-1])
        assert opened.close_code == 1012
    _, text = await asyncio.wait_for(process.communicate(), 10)
    assert process.returncode == 0
    assert b"Traceback" not in text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"LORATORY_HOST": "0.0.0.0"}, "set LORATORY_API_KEY"),  # noqa: S104 - what must be refused
        ({"LORATORY_API_KEY": "short"}, "fewer than 16 characters"),
        ({"LORATORY_PORT": "many"}, "LORATORY_PORT is not valid"),
    ],
)
async def test_unsafe_or_invalid_settings_are_refused(environ: Environ, changes: Environ, sentence: str) -> None:
    code, text = await run_gateway(environ | changes)
    assert code == 2
    assert sentence in text
    assert len(text.strip().splitlines()) == 1


@pytest.mark.slow
async def test_a_port_in_use_is_reported_in_one_sentence(environ: Environ) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        code, text = await run_gateway(environ | {"LORATORY_PORT": port})
    assert code == NOT_NOW
    assert f"cannot listen at 127.0.0.1 port {port}" in text
    assert len(text.strip().splitlines()) == 1


async def test_check_reports_why_it_is_not_ready(environ: Environ) -> None:
    code, text = await run_gateway(environ, "--check")
    assert code == 1
    assert "has not started" in text
