"""Requests over the bus: each gets its own reply, and always ends."""

import asyncio

import pytest
from nats.aio.msg import Msg
from nats.errors import ConnectionClosedError, NoRespondersError
from nats.errors import TimeoutError as NoAnswer

from contracts.wire.server.embedded import EmbeddedServer
from contracts.wire.service.bus import Bus
from tests.conftest import BusOf
from tests.limits import WAIT


async def start_echo(bus: Bus, subject: str) -> None:
    async def echo(message: Msg) -> None:
        if message.data == b"slow":
            await asyncio.sleep(0.3)
        await message.respond(message.data)

    await bus.subscribe(subject, cb=echo)
    await bus.flush()


async def test_concurrent_requests_get_their_own_replies(bus_of: BusOf) -> None:
    client, responder = await bus_of("gateway"), await bus_of("catalog")
    await start_echo(responder, "cmd.catalog.test")
    payloads = [str(number).encode() for number in range(500)]
    replies = await asyncio.gather(*(client.request("cmd.catalog.test", payload, timeout=WAIT) for payload in payloads))
    assert [reply.data for reply in replies] == payloads


async def test_a_late_reply_is_not_taken_for_the_next_one(bus_of: BusOf) -> None:
    client, responder = await bus_of("gateway"), await bus_of("catalog")
    await start_echo(responder, "cmd.catalog.test")
    with pytest.raises(NoAnswer):
        await client.request("cmd.catalog.test", b"slow", timeout=0.1)
    assert (await client.request("cmd.catalog.test", b"next", timeout=WAIT)).data == b"next"


async def test_a_request_without_responders_fails_at_once(bus_of: BusOf) -> None:
    client = await bus_of("gateway")
    with pytest.raises(NoRespondersError):
        await asyncio.wait_for(client.request("cmd.catalog.absent", b"", timeout=60), 5)


async def test_closing_the_connection_ends_pending_requests(bus_of: BusOf) -> None:
    client, responder = await bus_of("gateway"), await bus_of("catalog")

    async def ignore(_: Msg) -> None:
        pass

    await responder.subscribe("cmd.catalog.test", cb=ignore)
    await responder.flush()
    requesting = asyncio.create_task(client.request("cmd.catalog.test", b"", timeout=60))
    await asyncio.sleep(0.1)
    await client.close()
    with pytest.raises(ConnectionClosedError):
        await asyncio.wait_for(requesting, 5)
    with pytest.raises(ConnectionClosedError):
        await client.request("cmd.catalog.test", b"", timeout=60)


async def test_requests_work_again_after_a_restart_of_the_server(server: EmbeddedServer, bus_of: BusOf) -> None:
    client, responder = await bus_of("gateway"), await bus_of("catalog")
    await start_echo(responder, "cmd.catalog.test")
    assert (await client.request("cmd.catalog.test", b"one", timeout=WAIT)).data == b"one"
    await server.restart()
    async with asyncio.timeout(WAIT):
        while True:
            try:
                reply = await client.request("cmd.catalog.test", b"two", timeout=0.5)
                break
            except (NoAnswer, NoRespondersError):
                await asyncio.sleep(0.05)
    assert reply.data == b"two"
