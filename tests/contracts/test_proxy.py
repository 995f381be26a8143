"""The proxy of the fault tests does what it says: a test that cuts nothing would prove nothing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.limits import WAIT
from tests.proxy import Proxy


class Echo:
    """Answers every line with itself, and remembers what it heard."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.open = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            while line := await reader.readline():
                self.heard.append(line)
                writer.write(line)
                await writer.drain()
        except OSError:
            pass  # the line was cut, as it should be
        finally:
            writer.transport.abort()
            self.open -= 1


@asynccontextmanager
async def proxied() -> AsyncIterator[tuple[Echo, Proxy]]:
    echo = Echo()
    server = await asyncio.start_server(echo.answer, "127.0.0.1", 0)
    try:
        async with Proxy(server.sockets[0].getsockname()[1]) as proxy:
            yield echo, proxy
    finally:
        server.close()
        while echo.open:  # noqa: ASYNC110 - the other end is a callback
            await asyncio.sleep(0.005)


@asynccontextmanager
async def called(proxy: Proxy) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection that the proxy has taken: before, there is nothing to cut."""
    before = proxy.taken
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        async with asyncio.timeout(WAIT):
            while proxy.taken == before:  # noqa: ASYNC110 - the other end is a callback
                await asyncio.sleep(0.005)
        yield reader, writer
    finally:
        writer.transport.abort()


async def say(writer: asyncio.StreamWriter, line: bytes) -> None:
    writer.write(line)
    await writer.drain()


async def until_heard(echo: Echo, count: int) -> None:
    async with asyncio.timeout(WAIT):
        while len(echo.heard) < count:  # noqa: ASYNC110 - the other end is a callback
            await asyncio.sleep(0.005)


async def test_what_is_said_comes_back() -> None:
    async with proxied() as (_, proxy), called(proxy) as (reader, writer):
        await say(writer, b"one\n")
        assert await reader.readline() == b"one\n"
        assert (proxy.passed, proxy.lines) == ({"up": 4, "down": 4}, 1)


async def test_an_answer_that_is_held_and_cut_was_heard_and_never_comes() -> None:
    async with proxied() as (echo, proxy), called(proxy) as (reader, writer):
        proxy.hold("down")
        await say(writer, b"one\n")
        await until_heard(echo, 1)
        proxy.cut()
        with pytest.raises(ConnectionError):
            await reader.readexactly(1)
        assert (echo.heard, proxy.passed["down"]) == ([b"one\n"], 0)


async def test_words_that_are_held_and_cut_were_never_heard() -> None:
    async with proxied() as (echo, proxy):
        async with called(proxy) as (reader, writer):
            proxy.hold("up")
            await say(writer, b"one\n")
            proxy.cut()
            with pytest.raises(ConnectionError):
                await reader.readexactly(1)
        proxy.release()
        async with called(proxy) as (reader, writer):
            await say(writer, b"two\n")
            assert await reader.readline() == b"two\n"
        assert echo.heard == [b"two\n"]


async def test_what_is_held_goes_on_its_way_when_it_is_released() -> None:
    async with proxied() as (_, proxy), called(proxy) as (reader, writer):
        proxy.hold()
        await say(writer, b"one\n")
        assert proxy.passed == {"up": 0, "down": 0}
        proxy.release()
        assert await reader.readline() == b"one\n"


async def test_a_proxy_that_left_takes_nobody_until_it_comes_back() -> None:
    async with proxied() as (_, proxy):
        proxy.leave()
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        with pytest.raises(ConnectionError):
            await reader.readexactly(1)
        writer.transport.abort()
        proxy.come_back()
        async with called(proxy) as (reader, writer):
            await say(writer, b"one\n")
            assert await reader.readline() == b"one\n"


async def test_a_line_ends_where_nobody_listens_behind_the_proxy() -> None:
    async with proxied() as (_, listening):
        nobody = listening.port
    async with Proxy(nobody) as proxy:
        async with called(proxy) as (reader, _):
            with pytest.raises(ConnectionError):
                await reader.readexactly(1)
        assert proxy.lines == 0


async def test_a_slow_line_takes_its_time_both_ways() -> None:
    async with proxied() as (_, proxy), called(proxy) as (reader, writer):
        proxy.slow(0.05)
        loop = asyncio.get_running_loop()
        began = loop.time()
        await say(writer, b"one\n")
        await reader.readline()
        assert loop.time() - began >= 0.1 - 0.02  # timers are coarse; but two delays it must be
