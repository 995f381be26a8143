"""Requests over the bus: each gets its own reply, and always ends."""

import asyncio

import pytest
from nats.aio.msg import Msg
from nats.errors import ConnectionClosedError, NoRespondersError
from nats.errors import TimeoutError as NoAnswer

from contracts.wire.server.embedded import EmbeddedServer
from contracts.wire.service.bus import Bus, connect
from tests.conftest import BusOf
from tests.limits import WAIT
from tests.proxy import Proxy


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
        await asyncio.wait_for(client.request("cmd.catalog.absent", b"", timeout=2 * WAIT), WAIT)


async def test_closing_the_connection_ends_pending_requests(bus_of: BusOf) -> None:
    client, responder = await bus_of("gateway"), await bus_of("catalog")

    async def ignore(_: Msg) -> None:
        pass

    await responder.subscribe("cmd.catalog.test", cb=ignore)
    await responder.flush()
    requesting = asyncio.create_task(client.request("cmd.catalog.test", b"", timeout=2 * WAIT))
    await asyncio.sleep(0.1)
    await client.close()
    with pytest.raises(ConnectionClosedError):
        await asyncio.wait_for(requesting, WAIT)
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


async def test_a_reply_larger_than_one_read_of_the_socket_is_received_whole(bus_of: BusOf) -> None:
    client, responder = await bus_of("gateway"), await bus_of("catalog")
    await start_echo(responder, "cmd.catalog.test")
    payload = bytes(range(256)) * 3000
    assert (await client.request_raw("cmd.catalog.test", payload, WAIT)).body == payload


async def test_headers_are_sent_and_received_as_a_block_or_by_name(bus_of: BusOf) -> None:
    client, responder = await bus_of("gateway"), await bus_of("catalog")

    async def return_headers(message: Msg) -> None:
        assert message.headers is not None
        await responder.publish(message.reply, b"body", headers={"Got": message.headers["Sent"], "More": "x"})

    await responder.subscribe("cmd.catalog.test", cb=return_headers)
    await responder.flush()

    raw = await client.request_raw("cmd.catalog.test", b"", WAIT, b"NATS/1.0\r\nSent: one\r\n\r\n")
    by_name = await client.request("cmd.catalog.test", b"", timeout=WAIT, headers={"Sent": "two"})

    assert raw == (b"NATS/1.0\r\nGot: one\r\nMore: x\r\n\r\n", b"body")
    assert (by_name.data, by_name.headers) == (b"body", {"Got": "two", "More": "x"})


async def test_a_pending_request_is_sent_again_after_a_reconnect_unless_it_must_not_be(
    server: EmbeddedServer, bus_of: BusOf
) -> None:
    responder = await bus_of("catalog")
    await start_echo(responder, "cmd.catalog.test")
    async with (
        Proxy(int(server.url.rpartition(":")[2])) as proxy,
        await connect(f"nats://127.0.0.1:{proxy.port}", *server.credentials("gateway"), "test") as client,
    ):
        await client.request("cmd.catalog.test", b"subscribed", timeout=WAIT)
        proxy.hold("up")  # so both are lost with the connection
        again = asyncio.create_task(client.request_raw("cmd.catalog.test", b"again", WAIT))
        once = asyncio.create_task(client.request_raw("cmd.catalog.test", b"once", WAIT, resend=False))
        while client.stats["out_msgs"] < 3:  # noqa: ASYNC110 - counted by the client
            await asyncio.sleep(0.005)
        await client._flush_pending(force_flush=True)
        proxy.cut()
        proxy.release()
        assert (await again).body == b"again"
        await client.request("cmd.catalog.test", b"after it", timeout=WAIT)
        assert not once.done()
        once.cancel()


async def test_a_second_reply_is_dropped(bus_of: BusOf) -> None:
    client, responder = await bus_of("admin"), await bus_of("admin")  # another account gets one reply only

    async def reply_twice(message: Msg) -> None:
        await message.respond(message.data)
        await message.respond(b"second")

    await responder.subscribe("test.twice", cb=reply_twice)
    await responder.flush()
    for payload in (b"one", b"two"):
        assert (await client.request_raw("test.twice", payload, WAIT)).body == payload
    await responder.flush()
    await client.flush()
    assert client.stats["in_msgs"] == 4
