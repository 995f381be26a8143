"""The line to NATS when the server hangs: it stands, and nothing comes."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from nats.aio.client import Client
from nats.errors import ConnectionReconnectingError, FlushTimeoutError

from contracts.errors import Unavailable
from contracts.queries import GetLog
from contracts.wire.bus import Bus
from contracts.wire.server import EmbeddedServer
from contracts.wire.service import Door
from tests.conftest import BusOf
from tests.limits import WAIT


async def test_who_closes_a_line_is_not_cancelled_with_another_who_waits_for_its_end(
    bus_of: BusOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus = await bus_of("gateway")
    other = asyncio.create_task(bus._transport.wait_closed())
    await asyncio.sleep(0)
    close = bus._transport.close

    def cancelling() -> None:
        other.cancel()  # as nats-py does with its task that connects again, just when both wait
        close()

    monkeypatch.setattr(bus._transport, "close", cancelling)
    await bus.close()
    with pytest.raises(asyncio.CancelledError):
        await other
    assert bus.is_closed
    with pytest.raises(Unavailable):
        await asyncio.wait_for(bus.watch(), 1)


async def test_what_is_sent_while_the_line_is_being_lost_is_told_so(
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
def hanging(server: EmbeddedServer) -> Iterator[None]:
    assert server.pid is not None
    os.kill(server.pid, signal.SIGSTOP)
    stat = Path(f"/proc/{server.pid}/stat")
    while stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "T":
        time.sleep(0.001)  # the signal takes its time to reach every thread
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


async def test_a_line_that_uvloop_calls_closed_is_one_that_is_lost(
    bus_of: BusOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus = await bus_of("gateway")

    def closed(_: bytes) -> None:
        raise RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed")

    monkeypatch.setattr(bus._transport, "write", closed)
    with pytest.raises(ConnectionReconnectingError):
        await bus.flush(1)
    monkeypatch.undo()


async def test_a_line_survives_pongs_that_come_too_late(server: EmbeddedServer, bus_of: BusOf) -> None:
    bus = await bus_of("gateway")
    with hanging(server):
        with pytest.raises(FlushTimeoutError):
            await bus.flush(1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(bus.flush(), 0.1)
    await bus.flush()
    await bus.flush()
    assert bus.is_connected


async def test_who_asks_is_told_that_nats_hangs_not_the_service(server: EmbeddedServer, bus_of: BusOf) -> None:
    door = Door(await bus_of("gateway"))
    with hanging(server), pytest.raises(Unavailable, match="NATS did not answer") as caught:
        await door.ask(GetLog(), within=0.2)
    assert caught.value.facts == {"service": "nats"}
    with pytest.raises(Unavailable, match="the catalog is not running"):
        await door.ask(GetLog(), within=WAIT)
