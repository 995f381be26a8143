"""The proxy of the fault tests simulates the faults it claims to; otherwise those tests would prove nothing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.limits import WAIT
from tests.proxy import Proxy


class Echo:
    """Echoes every line and records it."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.open = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            while line := await reader.readline():
                self.received.append(line)
                writer.write(line)
                await writer.drain()
        except OSError:
            pass  # the connection was cut, as intended
        finally:
            writer.transport.abort()
            self.open -= 1


@asynccontextmanager
async def start_proxied_echo() -> AsyncIterator[tuple[Echo, Proxy]]:
    echo = Echo()
    server = await asyncio.start_server(echo.handle, "127.0.0.1", 0)
    try:
        async with Proxy(server.sockets[0].getsockname()[1]) as proxy:
            yield echo, proxy
    finally:
        server.close()
        while echo.open:  # noqa: ASYNC110 - the other end is a callback
            await asyncio.sleep(0.005)


@asynccontextmanager
async def connect(proxy: Proxy) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection that the proxy has accepted: before that, there is nothing to cut."""
    before = proxy.connection_count
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        async with asyncio.timeout(WAIT):
            while proxy.connection_count == before:  # noqa: ASYNC110 - the other end is a callback
                await asyncio.sleep(0.005)
        yield reader, writer
    finally:
        writer.transport.abort()


async def send(writer: asyncio.StreamWriter, line: bytes) -> None:
    writer.write(line)
    await writer.drain()


async def wait_received(echo: Echo, count: int) -> None:
    async with asyncio.timeout(WAIT):
        while len(echo.received) < count:  # noqa: ASYNC110 - the other end is a callback
            await asyncio.sleep(0.005)


async def test_data_is_forwarded_both_ways() -> None:
    async with start_proxied_echo() as (_, proxy), connect(proxy) as (reader, writer):
        await send(writer, b"one\n")
        assert await reader.readline() == b"one\n"
        assert (proxy.forwarded_bytes, proxy.open_connections) == ({"up": 4, "down": 4}, 1)


async def test_a_held_reply_is_lost_when_the_connection_is_cut() -> None:
    async with start_proxied_echo() as (echo, proxy), connect(proxy) as (reader, writer):
        proxy.hold("down")
        await send(writer, b"one\n")
        await wait_received(echo, 1)
        proxy.cut()
        with pytest.raises(ConnectionError):
            await reader.readexactly(1)
        assert (echo.received, proxy.forwarded_bytes["down"]) == ([b"one\n"], 0)


async def test_a_held_request_is_lost_when_the_connection_is_cut() -> None:
    async with start_proxied_echo() as (echo, proxy):
        async with connect(proxy) as (reader, writer):
            proxy.hold("up")
            await send(writer, b"one\n")
            proxy.cut()
            with pytest.raises(ConnectionError):
                await reader.readexactly(1)
        proxy.release()
        async with connect(proxy) as (reader, writer):
            await send(writer, b"two\n")
            assert await reader.readline() == b"two\n"
        assert echo.received == [b"two\n"]


async def test_held_data_is_delivered_on_release() -> None:
    async with start_proxied_echo() as (_, proxy), connect(proxy) as (reader, writer):
        proxy.hold()
        await send(writer, b"one\n")
        assert proxy.forwarded_bytes == {"up": 0, "down": 0}
        proxy.release()
        assert await reader.readline() == b"one\n"


async def test_an_offline_proxy_resets_connections_until_it_is_online_again() -> None:
    async with start_proxied_echo() as (_, proxy):
        proxy.go_offline()
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        with pytest.raises(ConnectionError):
            await reader.readexactly(1)
        writer.transport.abort()
        proxy.go_online()
        async with connect(proxy) as (reader, writer):
            await send(writer, b"one\n")
            assert await reader.readline() == b"one\n"


async def test_a_connection_is_reset_if_nothing_listens_behind_the_proxy() -> None:
    async with start_proxied_echo() as (_, other):
        unused_port = other.port
    async with Proxy(unused_port) as proxy:
        async with connect(proxy) as (reader, _):
            with pytest.raises(ConnectionError):
                await reader.readexactly(1)
        assert proxy.open_connections == 0


async def test_a_delay_applies_in_both_directions() -> None:
    async with start_proxied_echo() as (_, proxy), connect(proxy) as (reader, writer):
        proxy.delay(0.05)
        loop = asyncio.get_running_loop()
        began = loop.time()
        await send(writer, b"one\n")
        await reader.readline()
        assert loop.time() - began >= 0.1 - 0.02  # two delays, less the tolerance of coarse timers
