"""Limits of a connection, on the server that the gateway runs and an app that reads what it gets."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any, TypeAlias

import httpx
import pytest
import uvicorn

from gateway.app import bind
from gateway.http.connections import Connections
from gateway.limits import ConnectionLimits
from tests.limits import WAIT

QUICK = ConnectionLimits(header_seconds=0.3, body_seconds=0.3, body_rate=100, half_open=5)
PATIENT = ConnectionLimits(header_seconds=WAIT, body_seconds=WAIT)
Reader: TypeAlias = asyncio.StreamReader
Writer: TypeAlias = asyncio.StreamWriter


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the number of bytes of the body; `/slow` waits before it reads, `/early` does not read."""
    if scope["path"] == "/slow":
        await asyncio.sleep(1)
    size, more = 0, scope["path"] != "/early"
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size, more = size + len(message.get("body", b"")), message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(str(size)))]})
    await send({"type": "http.response.body", "body": str(size).encode()})


@contextlib.asynccontextmanager
async def serving(limits: ConnectionLimits) -> AsyncIterator[tuple[Connections, int]]:
    connections = Connections(limits)
    config = uvicorn.Config(app, loop="none", http=connections.protocol, lifespan="off", log_config=None)  # type: ignore[arg-type]
    server = uvicorn.Server(config)
    with contextlib.closing(bind("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        running = asyncio.create_task(server._serve([listening]))
        try:
            async with asyncio.timeout(WAIT):
                while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
                    await asyncio.sleep(0.01)
            yield connections, port
        finally:
            server.should_exit = True
            await running


@contextlib.asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[Reader, Writer]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def all_of(reader: Reader) -> bytes:
    """What the server sends until it closes the connection."""
    async with asyncio.timeout(WAIT):
        with contextlib.suppress(ConnectionError):
            return await reader.read()
    return b""


def problem_of(answer: bytes) -> tuple[int, str]:
    """Status and code of a refusal, which closes the connection and has the headers of every answer."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"connection: close" in head
    assert b"x-content-type-options: nosniff" in head
    problem = json.loads(body)
    assert int(head.split()[1]) == problem["status"]
    return problem["status"], problem["code"]


async def test_headers_above_the_limit_are_refused_before_they_are_all_there() -> None:
    async with serving(PATIENT) as (connections, port):
        async with connected(port) as (reader, writer):
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nX-Large: ")
            with contextlib.suppress(ConnectionError):
                for _ in range(64):
                    writer.write(b"a" * (1 << 20))
                    await writer.drain()
            answer = await all_of(reader)
        assert not answer or problem_of(answer) == (431, "headers-too-large")  # it may be lost with the rest unread
        async with connected(port) as (reader, writer):
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nX-Large: " + b"a" * PATIENT.header_bytes)
            assert problem_of(await all_of(reader)) == (431, "headers-too-large")
        assert not connections.half_open


@pytest.mark.parametrize(
    "many", [b"X: 1\r\n" * 6000, b"X: " + b"a" * 33000 + b"\r\n"], ids=["small ones", "a large one"]
)
async def test_whole_headers_above_the_limit_are_refused(many: bytes) -> None:
    async with serving(PATIENT) as (_, port), connected(port) as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n" + many + b"\r\n")
        assert problem_of(await all_of(reader)) == (431, "headers-too-large")


async def test_headers_below_the_limit_are_read() -> None:
    async with serving(PATIENT) as (_, port), httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        for _ in range(3):  # on one connection
            answer = await client.post("/", headers={"X-Large": "a" * 30_000}, content=b"b" * 300_000)
            assert (answer.status_code, answer.text) == (200, "300000")


@pytest.mark.parametrize("begun", [b"", b"\r\n", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\nX-Sl"])
async def test_a_connection_without_a_request_is_closed(begun: bytes) -> None:
    async with serving(QUICK) as (connections, port), connected(port) as (reader, writer):
        writer.write(begun)
        answer = await all_of(reader)
        assert not connections.half_open
    assert problem_of(answer) == (408, "request-timeout") if begun else answer == b""


async def test_the_next_request_of_a_connection_has_the_same_time() -> None:
    async with serving(QUICK) as (_, port), connected(port) as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        writer.write(b"GET / HTTP/1.1\r\nHost")
        assert b"HTTP/1.1 408" in await all_of(reader)


async def test_a_request_that_follows_another_has_the_same_time() -> None:
    async with serving(QUICK) as (_, port), connected(port) as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost")
        assert (await all_of(reader)).count(b"HTTP/1.1 200") == 1


async def test_a_body_that_comes_too_slowly_ends_its_connection() -> None:
    async with serving(QUICK) as (_, port), connected(port) as (reader, writer):
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
        reading = asyncio.create_task(all_of(reader))
        while not reading.done():
            writer.write(b"a")
            await asyncio.sleep(0.05)
        assert await reading == b""


async def test_a_body_that_waits_for_the_route_does_not() -> None:
    async with (
        serving(QUICK) as (_, port),
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=WAIT) as client,
    ):
        answer = await client.post("/slow", content=b"a" * (8 << 20))
    assert answer.text == str(8 << 20)


async def test_a_client_that_asks_before_it_sends_waits_as_long_as_the_route() -> None:
    async with serving(QUICK) as (_, port), connected(port) as (reader, writer):
        writer.write(b"POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"a")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")


async def test_trailers_without_end_are_refused() -> None:
    async with serving(PATIENT) as (_, port), connected(port) as (reader, writer):
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-Trailer: ")
        with contextlib.suppress(ConnectionError):
            for _ in range(64):
                writer.write(b"a" * (1 << 20))
                await writer.drain()
        await all_of(reader)


async def test_chunks_of_one_byte_are_read() -> None:
    async with serving(PATIENT) as (_, port), connected(port) as (reader, writer):
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n")
        writer.write(b"1\r\na\r\n" * 50_000 + b"0\r\n\r\n")
        assert (await all_of(reader)).endswith(b"\r\n\r\n50000")


async def test_of_too_many_half_open_connections_the_oldest_is_closed() -> None:
    limits = ConnectionLimits(header_seconds=WAIT, half_open=5)
    async with serving(limits) as (connections, port), contextlib.AsyncExitStack() as opened:
        first, *others = [await opened.enter_async_context(connected(port)) for _ in range(limits.half_open)]
        first[1].write(b"GET / HT")
        await asyncio.sleep(0.1)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            assert (await client.get("/")).status_code == 200
        assert problem_of(await all_of(first[0])) == (408, "request-timeout")
        assert len(connections.half_open) == limits.half_open - 1
        _, writer = others[0]
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await others[0][0].readline()).startswith(b"HTTP/1.1 200")


async def test_what_is_no_request_gets_a_problem() -> None:
    async with serving(PATIENT) as (_, port), connected(port) as (reader, writer):
        writer.write(b"\x16\x03\x01 is TLS\r\n\r\n")
        assert problem_of(await all_of(reader)) == (400, "invalid")
