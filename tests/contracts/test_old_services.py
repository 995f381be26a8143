"""Services of a version before format 3: what they send first, recorded from it, and how they are refused."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from contracts.wire.server import server_log
from contracts.wire.server.accounts import Role
from contracts.wire.server.binary import find_binary
from contracts.wire.server.config import ServerSettings, render_config
from contracts.wire.server.embedded import EmbeddedServer
from contracts.wire.system.child import SessionChild
from tests.limits import WAIT
from tests.ports import free_ports

LOGIN = (
    'CONNECT {"echo": true, "headers": true, "lang": "python3", "name": "%s", "no_responders": true, "pass": "%s", '
    '"pedantic": false, "protocol": 1, "user": "%s", "verbose": false, "version": "2.16.0"}\r\nPING\r\n'
)
FIRST_REQUESTS: dict[Role, str] = {
    "gateway": "$JS.API.STREAM.INFO.EVT",
    "trainer": "$JS.API.CONSUMER.MSG.NEXT.JOBS.train-high",
}
"""What they need before they can do anything: the log, and work."""
OLD: tuple[Role, ...] = ("gateway", "trainer")


@contextlib.asynccontextmanager
async def old_service(
    port: int, role: Role, password: str
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Its connection after the login."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write((LOGIN % (role, password, role)).encode())
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def read_until(reader: asyncio.StreamReader, text: bytes) -> bytes:
    """The line that contains it. AssertionError: the server ends the connection before."""
    async with asyncio.timeout(WAIT):
        while line := await reader.readline():
            if text in line:
                return line
    raise AssertionError(f"{text!r} did not come")


async def is_ended(reader: asyncio.StreamReader) -> bool:
    async with asyncio.timeout(WAIT):
        return await reader.read() == b""


@pytest.mark.parametrize("password", ["the password of format 2", ""])
async def test_their_login_is_refused_and_named(server: EmbeddedServer, password: str) -> None:
    assert server.refused_passwords() == set()
    port = int(server.url.rpartition(":")[2])
    for role in OLD:
        async with old_service(port, role, password) as (reader, _):
            assert await read_until(reader, b"-ERR") == b"-ERR 'Authorization Violation'\r\n"
            assert await is_ended(reader)
    assert server.refused_passwords() == set(OLD)
    assert server.refused_passwords() == set()


async def test_where_somebody_kept_their_passwords_they_get_neither_the_log_nor_work(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    settings = ServerSettings(store=str(tmp_path / "store"), port=port, durable=False, log_file=str(tmp_path / "log"))
    config = tmp_path / "nats.conf"
    config.write_text(render_config(settings, lambda role: f"users: [ {{ user: {role}, password: kept }} ]"))
    child = await SessionChild.start([find_binary(), "--config", config], death_signal=signal.SIGTERM)
    try:
        async with asyncio.timeout(WAIT):
            while b"Server is ready" not in await asyncio.to_thread(_content, tmp_path / "log"):  # noqa: ASYNC110 - as it says
                await asyncio.sleep(0.02)
        for role, subject in FIRST_REQUESTS.items():
            async with old_service(port, role, "kept") as (reader, writer):
                await read_until(reader, b"PONG")
                writer.write(f"PUB {subject} _INBOX_{role}.1 2\r\n{{}}\r\n".encode())
                refusal = f"-ERR 'Permissions Violation for Publish to \"{subject}\"'\r\n"
                assert await read_until(reader, b"-ERR") == refusal.encode()
    finally:
        await child.stop(10)


def _content(file: Path) -> bytes:
    return file.read_bytes() if file.exists() else b""


def test_only_logins_without_an_nkey_are_those_of_old_services(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    log.write_text('[1] [ERR] 1.2.3.4:5 - cid:1 - authentication error - User "tagger"\n')
    lines = server_log.NewLines(log)
    with log.open("a") as file:
        file.write('[1] [ERR] 1.2.3.4:5 - cid:2 - authentication error - Nkey "UABC"\n')
        file.write('[1] [ERR] 1.2.3.4:5 - cid:3 - authentication error - User "trainer"\n[1] [ERR] 1.2.3.4:5 - cid:4')
    assert server_log.refused_passwords(lines.read()) == {"trainer"}
    with log.open("a") as file:
        file.write(' - authentication error - User "gateway"\n')
    assert server_log.refused_passwords(lines.read()) == {"gateway"}
    log.write_text('[1] [ERR] authentication error - User "catalog"\n')  # it was rotated
    assert server_log.refused_passwords(lines.read()) == {"catalog"}
    log.unlink()
    assert lines.read() == b""
