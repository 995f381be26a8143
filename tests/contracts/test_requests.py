"""Requests over the bus: each its own answer, and an end whatever happens."""

import asyncio

import pytest
from nats.aio.msg import Msg
from nats.errors import ConnectionClosedError, NoRespondersError
from nats.errors import TimeoutError as NoAnswer

from contracts.wire.bus import Bus
from contracts.wire.server import EmbeddedServer
from tests.conftest import BusOf
from tests.limits import WAIT


async def answering(bus: Bus, subject: str) -> None:
    async def echo(message: Msg) -> None:
        if message.data == b"slow":
            await asyncio.sleep(0.3)
        await message.respond(message.data)

    await bus.subscribe(subject, cb=echo)
    await bus.flush()


async def test_each_of_many_requests_gets_its_own_answer(bus_of: BusOf) -> None:
    asker, answerer = await bus_of("gateway"), await bus_of("catalog")
    await answering(answerer, "cmd.catalog.test")
    words = [str(number).encode() for number in range(500)]
    replies = await asyncio.gather(*(asker.request("cmd.catalog.test", word, timeout=WAIT) for word in words))
    assert [reply.data for reply in replies] == words


async def test_an_answer_that_comes_too_late_is_nobody_elses(bus_of: BusOf) -> None:
    asker, answerer = await bus_of("gateway"), await bus_of("catalog")
    await answering(answerer, "cmd.catalog.test")
    with pytest.raises(NoAnswer):
        await asker.request("cmd.catalog.test", b"slow", timeout=0.1)
    assert (await asker.request("cmd.catalog.test", b"next", timeout=WAIT)).data == b"next"


async def test_nobody_there_is_told_at_once(bus_of: BusOf) -> None:
    asker = await bus_of("gateway")
    with pytest.raises(NoRespondersError):
        await asyncio.wait_for(asker.request("cmd.catalog.nobody", b"", timeout=60), 5)


async def test_a_request_does_not_outlive_its_line(bus_of: BusOf) -> None:
    asker, answerer = await bus_of("gateway"), await bus_of("catalog")

    async def silent(_: Msg) -> None:
        pass

    await answerer.subscribe("cmd.catalog.test", cb=silent)
    await answerer.flush()
    asking = asyncio.create_task(asker.request("cmd.catalog.test", b"", timeout=60))
    await asyncio.sleep(0.1)
    await asker.close()
    with pytest.raises(ConnectionClosedError):
        await asyncio.wait_for(asking, 5)
    with pytest.raises(ConnectionClosedError):
        await asker.request("cmd.catalog.test", b"", timeout=60)


async def test_requests_go_on_after_the_server_was_restarted(server: EmbeddedServer, bus_of: BusOf) -> None:
    asker, answerer = await bus_of("gateway"), await bus_of("catalog")
    await answering(answerer, "cmd.catalog.test")
    assert (await asker.request("cmd.catalog.test", b"one", timeout=WAIT)).data == b"one"
    await server.restart()
    async with asyncio.timeout(WAIT):
        while True:
            try:
                reply = await asker.request("cmd.catalog.test", b"two", timeout=0.5)
                break
            except (NoAnswer, NoRespondersError):
                await asyncio.sleep(0.05)
    assert reply.data == b"two"
