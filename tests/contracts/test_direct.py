"""Batch direct get: what the server added is distinguished from what a publisher wrote, and every batch ends."""

import asyncio

import msgspec
import pytest
from nats.protocol import command

from contracts import subjects
from contracts.errors import LoratoryError, Unavailable
from contracts.wire.server.embedded import EmbeddedServer
from contracts.wire.service.bus import Bus, connect
from contracts.wire.service.direct import Batch, BatchLimits, parse, read_batch, request_batch
from tests.conftest import BusOf
from tests.contracts.lossy_bus import connect_lossy
from tests.contracts.test_scan import publish_messages
from tests.limits import WAIT
from tests.proxy import Proxy

TEN = BatchLimits(messages=10)


def sequences(batch: Batch) -> list[int]:
    return [message.sequence for message in batch.messages]


async def store(bus: Bus, headers: bytes, body: bytes = b"body") -> None:
    """Publishes a message with this header block, whatever it says; nats-py writes no status line."""
    await bus._send_command(command.hpub_cmd("evt.dataset.ds_1", "", headers, body))
    await bus.flush()


async def test_a_batch_ends_at_its_limit_and_the_last_one_at_the_end_of_the_stream(bus_of: BusOf) -> None:
    bus = await bus_of("catalog")
    await publish_messages(bus, 14)

    first = await read_batch(bus, subjects.EVENTS, 0, TEN)
    second = await read_batch(bus, subjects.EVENTS, 10, TEN)
    third = await read_batch(bus, subjects.EVENTS, 15, TEN)

    assert (sequences(first), first.is_last) == (list(range(1, 11)), False)
    assert (sequences(second), second.is_last) == (list(range(11, 16)), True)
    assert third == Batch([], is_last=True)


async def test_a_batch_is_limited_in_bytes(bus_of: BusOf) -> None:
    bus = await bus_of("catalog")
    await publish_messages(bus, 10, size=1000)
    batch = await read_batch(bus, subjects.EVENTS, 1, BatchLimits(bytes=3000))
    assert (sequences(batch), batch.is_last) == ([2, 3, 4], False)
    assert batch.size > 3000


async def test_only_the_messages_of_one_subject_are_read(bus_of: BusOf) -> None:
    bus = await bus_of("catalog")
    await publish_messages(bus, 7)
    batch = await read_batch(bus, subjects.EVENTS, 0, BatchLimits(messages=2), subject="evt.dataset.ds_1")
    assert (sequences(batch), batch.is_last) == ([4, 7], True)


async def test_a_message_has_the_time_the_subject_and_the_signature_that_the_log_has(bus_of: BusOf) -> None:
    bus = await bus_of("catalog")
    headers = {"Nats-Msg-Id": "c1", "Loratory-Signature": "key.c2lnbmF0dXJl"}
    await bus.jetstream().publish("evt.dataset.ds_1", b"body", headers=headers)

    (message,) = (await read_batch(bus, subjects.EVENTS, 1)).messages

    stored = await bus.jetstream().get_msg(subjects.EVENTS, seq=2)
    assert stored.time is not None
    assert (message.subject, message.body, message.signature) == ("evt.dataset.ds_1", b"body", "key.c2lnbmF0dXJl")
    assert abs(message.recorded_us - stored.time.timestamp() * 1e6) < 2


@pytest.mark.parametrize(
    "headers",
    [
        b"NATS/1.0 204 EOB\r\nNats-Num-Pending: 0\r\nNats-Last-Sequence: 2\r\n\r\n",
        b"NATS/1.0 404 Message Not Found\r\n\r\n",
        b"NATS/1.0 503\r\n\r\n",
        b"NATS/1.0\r\nNats-Subject: evt.job.j\r\nNats-Sequence: 77\r\nNats-Time-Stamp: 2020-01-01T00:00:00Z\r\n\r\n",
    ],
    ids=["end marker", "not found", "no responders", "another place"],
)
async def test_headers_of_a_publisher_are_not_those_of_the_server(bus_of: BusOf, headers: bytes) -> None:
    bus = await bus_of("catalog")
    await store(bus, headers)
    await store(bus, b"NATS/1.0\r\n\r\n", b"the next")

    batch = await read_batch(bus, subjects.EVENTS, 1)

    assert [(message.sequence, message.subject, message.body) for message in batch.messages] == [
        (2, "evt.dataset.ds_1", b"body"),
        (3, "evt.dataset.ds_1", b"the next"),
    ]
    assert batch.is_last
    assert batch.messages[0].recorded_us > 1_600_000_000_000_000


def test_a_subject_that_is_no_text_is_readable() -> None:
    header = b"NATS/1.0\r\nNats-Stream: EVT\r\nNats-Subject: evt.a.\xff\r\nNats-Sequence: 7\r\n"
    message = parse(header + b"Nats-Time-Stamp: 2026-11-26T19:55:00.5Z\r\n\r\n", b"")
    assert message is not None
    assert (message.subject, message.recorded_at.isoformat()) == ("evt.a.\ufffd", "2026-11-26T19:55:00.500000+00:00")


async def test_a_stream_that_is_not_there_is_unavailable(bus_of: BusOf) -> None:
    bus = await bus_of("admin")
    await bus.jetstream().delete_stream(subjects.METRICS)
    with pytest.raises(Unavailable, match="the metrics stream does not answer"):
        await read_batch(bus, subjects.METRICS, 0)


async def test_a_request_that_the_server_refuses_is_an_error_with_its_reason(bus_of: BusOf) -> None:
    bus = await bus_of("catalog")
    with pytest.raises(LoratoryError, match=r"refused to read EVT: NATS/1\.0 408"):
        await read_batch(bus, subjects.EVENTS, -1)


async def test_a_silent_server_and_a_lost_connection_are_unavailable(bus_of: BusOf, server: EmbeddedServer) -> None:
    await bus_of("catalog")
    async with Proxy(int(server.url.rpartition(":")[2])) as proxy:
        bus = await connect(f"nats://127.0.0.1:{proxy.port}", *server.credentials("catalog"), "test")
        await read_batch(bus, subjects.EVENTS, 0)
        proxy.hold("down")
        with pytest.raises(Unavailable, match="does not answer"):
            await read_batch(bus, subjects.EVENTS, 0, msgspec.structs.replace(TEN, silence=0.1))
        waiting = await request_batch(bus, subjects.EVENTS, 0, msgspec.structs.replace(TEN, silence=3600))
        proxy.cut()
        async with asyncio.timeout(WAIT):
            with pytest.raises(Unavailable):
                await waiting.result()
        proxy.release()
        async with asyncio.timeout(WAIT):
            assert sequences(await read_batch(bus, subjects.EVENTS, 0, msgspec.structs.replace(TEN, silence=WAIT))) == [
                1
            ]
        await bus.close()


async def test_a_batch_without_its_end_marker_is_not_the_last(bus_of: BusOf, server_in_use: EmbeddedServer) -> None:
    await bus_of("catalog")
    bus = await connect_lossy(server_in_use.url, *server_in_use.credentials("catalog"))
    bus.loses = lambda headers: headers.startswith(b"NATS/1.0 204")
    batch = await read_batch(bus, subjects.EVENTS, 0, BatchLimits(silence=0.05))
    assert (sequences(batch), batch.is_last) == ([1], False)
    await bus.close()


async def test_answers_to_a_request_that_was_given_up_are_dropped(bus_of: BusOf) -> None:
    bus = await bus_of("catalog")
    await publish_messages(bus, 5)
    request = await request_batch(bus, subjects.EVENTS, 0)
    request.close()
    assert sequences(await read_batch(bus, subjects.EVENTS, 3)) == [4, 5, 6]
