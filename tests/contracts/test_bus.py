"""The connection to NATS when it is lost, and when the server hangs while it stays open."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client
from nats.errors import ConnectionReconnectingError, FlushTimeoutError

from contracts.errors import Unavailable
from contracts.queries.log import GetLog
from contracts.wire.server.embedded import EmbeddedServer
from contracts.wire.service.bus import Bus, connect
from contracts.wire.service.credentials import Password
from contracts.wire.service.requests import ServiceClient
from tests.conftest import BusOf
from tests.limits import WAIT


async def test_closing_closes_the_socket_that_a_cancelled_attempt_to_connect_left_open(bus_of: BusOf) -> None:
    bus = await bus_of("gateway")
    transport: Any = bus._transport  # its methods have no types
    bus._status = Client.CLOSED  # as nats-py does first, when it ends an attempt
    await bus.close()
    assert transport._io_writer.is_closing()
    bus._status = Client.CONNECTED  # for its tasks
    await Client.close(bus)


async def test_each_attempt_to_connect_closes_the_socket_of_the_one_before() -> None:
    attempts = 0
    closed = asyncio.Event()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal attempts
        attempts += 1
        if attempts == 1:  # the only one that succeeds, and is lost at once
            writer.write(b'INFO {"server_id": "test", "max_payload": 1048576}\r\n')
            while await reader.readline() != b"PING\r\n":
                pass
            writer.write(b"PONG\r\n")
            writer.close()
            return
        writer.write(b"no greeting of a NATS server\r\n")
        await reader.read()
        closed.set()
        writer.close()

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        address = "nats://{}:{}".format(*server.sockets[0].getsockname())
        async with await connect(address, "gateway", Password(""), "test"):
            await asyncio.wait_for(closed.wait(), WAIT)


async def test_connecting_leaves_no_socket_open_when_it_is_cancelled() -> None:
    opened, closed = asyncio.Event(), asyncio.Event()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opened.set()
        await reader.read()
        closed.set()
        writer.close()

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        address = "nats://{}:{}".format(*server.sockets[0].getsockname())
        connecting = asyncio.create_task(connect(address, "gateway", Password(""), "test"))
        await asyncio.wait_for(opened.wait(), WAIT)
        connecting.cancel()
        await asyncio.wait({connecting})
        await asyncio.wait_for(closed.wait(), WAIT)


async def test_closing_a_connection_survives_the_cancellation_of_another_task_that_waits_for_its_end(
    bus_of: BusOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus = await bus_of("gateway")
    transport: Any = bus._transport  # its methods have no types
    other = asyncio.create_task(transport.wait_closed())
    await asyncio.sleep(0)
    close = transport.close

    def close_and_cancel() -> None:
        other.cancel()  # as nats-py cancels its reconnect task, while both wait
        close()

    monkeypatch.setattr(transport, "close", close_and_cancel)
    await bus.close()
    with pytest.raises(asyncio.CancelledError):
        await other
    assert bus.is_closed
    with pytest.raises(Unavailable):
        await asyncio.wait_for(bus.watch(), 1)


async def test_publishing_while_the_connection_is_being_lost_is_an_error(
    bus_of: BusOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus = await bus_of("gateway")
    assert bus._flusher_task is not None
    bus._flusher_task.cancel()
    await asyncio.wait({bus._flusher_task})

    def closed(_: object) -> None:
        raise RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed")

    monkeypatch.setattr(bus._transport, "writelines", closed)
    with pytest.raises(ConnectionReconnectingError):
        await bus.publish("prog.job.j1")
    monkeypatch.undo()


@contextmanager
def suspended(server: EmbeddedServer) -> Iterator[None]:
    """Stops the process of the server (SIGSTOP): connections stay open, and nothing is answered."""
    assert server.pid is not None
    os.kill(server.pid, signal.SIGSTOP)
    stat = Path(f"/proc/{server.pid}/stat")
    while stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "T":
        time.sleep(0.001)  # the signal takes a moment to reach every thread
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


@pytest.mark.parametrize(
    "raw",
    [
        b"Nats-Msg-Id: 01J/job.x/0\r\nNats-Expected-Last-Subject-Sequence: 7\r\n\r\n",
        b"a:b\r\nno colon\r\n: no name\r\ntwo words: x\r\n\xc3\xa9: x\r\n  padded \t:\t value : more \r\n\r\n",
        b"broken: \xff\xfe\r\na: 1\r\na: 2\r\n",
        b"",
    ],
)
def test_headers_are_read_as_nats_py_reads_them(raw: bytes) -> None:
    assert Bus._parse_header_lines(raw) == Client._parse_header_lines(raw)


async def test_a_connection_closed_by_uvloop_counts_as_lost(bus_of: BusOf, monkeypatch: pytest.MonkeyPatch) -> None:
    bus = await bus_of("gateway")

    def closed(_: bytes) -> None:
        raise RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed")

    monkeypatch.setattr(bus._transport, "write", closed)
    with pytest.raises(ConnectionReconnectingError):
        await bus.flush(1)
    monkeypatch.undo()


async def test_a_connection_survives_pongs_that_arrive_too_late(server: EmbeddedServer, bus_of: BusOf) -> None:
    bus = await bus_of("gateway")
    with suspended(server):
        with pytest.raises(FlushTimeoutError):
            await bus.flush(1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(bus.flush(), 0.1)
    await bus.flush()
    await bus.flush()
    assert bus.is_connected


@pytest.mark.slow
async def test_a_timeout_names_nats_when_nats_hangs_and_not_the_service(server: EmbeddedServer, bus_of: BusOf) -> None:
    client = ServiceClient(await bus_of("gateway"))
    with suspended(server), pytest.raises(Unavailable, match="NATS did not answer") as caught:
        await client.query(GetLog(), timeout=0.2)
    assert caught.value.extra == {"service": "nats"}
    with pytest.raises(Unavailable, match="the catalog is not running"):
        await client.query(GetLog(), timeout=WAIT)
