"""Reading the log as stored: whatever a server does with damaged blocks, gaps are found where they are."""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from contracts import subjects
from contracts.errors import LogDamaged, Unavailable
from contracts.log_message import LogMessage
from contracts.wire.log.migration import migrate
from contracts.wire.log.scan import log_state, next_sequence, scan
from contracts.wire.server.embedded import EmbeddedServer
from contracts.wire.service.bus import Bus
from contracts.wire.service.direct import BatchLimits
from tests.conftest import LEASE, NOW, BusOf
from tests.contracts.lossy_bus import LosesOnce, connect_lossy
from tests.damage import (
    IGNORE_UNCLOSED_SOCKETS,
    MESSAGE_FOLDER,
    block_files,
    delete_index,
    delete_log,
    flip_bit_in_text,
    truncate_within,
)

pytestmark = IGNORE_UNCLOSED_SOCKETS

QUICK = BatchLimits(messages=1000, silence=0.5)
LARGE = 170_000
"""Size of a message in bytes; fifty of them fill a block of nats-server (8 MB)."""


async def publish_messages(bus: Bus, count: int, size: int = 100) -> None:
    """Publishes messages 2 … count+1; the first is the log's own."""
    js = bus.jetstream(timeout=30)
    for number in range(2, count + 2, 50):
        bodies = [
            (sequence, f"commit {sequence:06} ".encode() + b"." * size)
            for sequence in range(number, min(number + 50, count + 2))
        ]
        await asyncio.gather(*(js.publish(f"evt.dataset.ds_{sequence % 3}", body) for sequence, body in bodies))


async def read_messages(bus: Bus, after: int = 0, to: int = 1_000_000, bits: int | None = None) -> list[LogMessage]:
    batches = scan(bus, after, to, bits_per_second=bits, limits=QUICK)
    return [message async for batch in batches for message in batch]


async def test_messages_are_read_as_stored(bus_of: BusOf) -> None:
    bus = await bus_of("catalog")
    await publish_messages(bus, 1500)

    messages = await read_messages(bus)

    assert [message.sequence for message in messages] == list(range(1, 1502))
    assert messages[-1].subject == "evt.dataset.ds_1"
    assert messages[-1].body == b"commit 001501 " + b"." * 100
    stored = await bus.jetstream().get_msg(subjects.EVENTS, seq=7)
    assert stored.time is not None
    assert abs(messages[6].recorded_us - stored.time.timestamp() * 1e6) < 2


async def test_a_range_excludes_its_start_and_includes_its_end(bus_of: BusOf) -> None:
    bus = await bus_of("catalog")
    await publish_messages(bus, 40)
    assert [message.sequence for message in await read_messages(bus, 10, 30)] == list(range(11, 31))
    assert await read_messages(bus, 41) == []


async def test_reading_can_be_rate_limited(bus_of: BusOf) -> None:
    bus = await bus_of("catalog")
    await publish_messages(bus, 60, size=1000)
    assert len(await read_messages(bus, bits=1_000_000)) == 61


@pytest.mark.parametrize("lost", [[5], [1], [41], [10, 11, 12]], ids=str)
async def test_messages_lost_in_transit_are_not_missing(
    bus_of: BusOf, server_in_use: EmbeddedServer, lost: list[int]
) -> None:
    await publish_messages(await bus_of("catalog"), 40)
    bus = await connect_lossy(server_in_use.url, *server_in_use.credentials("catalog"))
    bus.loses = LosesOnce(*lost)
    limits = BatchLimits(messages=10, silence=0.1)
    read = [message.sequence async for batch in scan(bus, 0, 41, limits=limits) for message in batch]
    assert read == list(range(1, 42))
    await bus.close()


async def test_a_server_that_never_sends_a_message_which_it_has_is_unavailable(
    bus_of: BusOf, server_in_use: EmbeddedServer
) -> None:
    await publish_messages(await bus_of("catalog"), 4)
    bus = await connect_lossy(server_in_use.url, *server_in_use.credentials("catalog"))
    bus.loses = lambda headers: b"\r\nNats-Sequence: 3\r\n" in headers
    read: list[int] = []
    with pytest.raises(Unavailable, match="the event log does not answer"):
        async for batch in scan(bus, 0, 5, limits=BatchLimits(silence=0.01)):
            read += [message.sequence for message in batch]
    assert read == [1, 2]
    await bus.close()


FIRST, NEWEST = b"commit 000020", b"commit 000060"


def flip_bit_in_first_block(nats: Path) -> None:
    flip_bit_in_text(block_files(nats)[0], FIRST)


def flip_bit_in_newest_block(nats: Path) -> None:
    flip_bit_in_text(block_files(nats)[-1], NEWEST)


@pytest.mark.parametrize(
    ("damages", "missing"),
    [
        ([flip_bit_in_first_block], "20"),
        ([flip_bit_in_first_block, delete_index], "20 to the end of the block"),
        ([lambda nats: truncate_within(block_files(nats)[0], FIRST)], "20 to the end of the block"),
        ([flip_bit_in_newest_block, delete_index], "60 to the end of the log"),
        ([lambda nats: truncate_within(block_files(nats)[-1], NEWEST)], "60 to the end of the log"),
        ([lambda nats: block_files(nats)[0].unlink()], "1 to the end of the block"),
    ],
    ids=[
        "flipped bit",
        "flipped bit after a crash",
        "truncated block",
        "flipped bit in the newest block after a crash",
        "truncated newest block",
        "lost block",
    ],
)
async def test_messages_lost_from_damaged_blocks_are_skipped_and_all_others_read(
    bus_of: BusOf, server: EmbeddedServer, damages: list[Callable[[Path], object]], missing: str
) -> None:
    bus = await bus_of("catalog")
    await publish_messages(bus, 70, size=LARGE)
    await server.stop()
    in_block = block_files(server.folder)[0].read_bytes().count(b"commit ") + 1
    assert 20 < in_block < 60
    for damage in damages:
        damage(server.folder)
    await server.start()

    messages = [message.sequence for message in await read_messages(bus)]
    first = int(missing.split(maxsplit=1)[0])
    last = {"20": 20, "block": in_block, "log": 71}[missing.rsplit(maxsplit=1)[-1]]
    assert messages == [*range(1, first), *range(last + 1, 72)]
    assert await next_sequence(bus, first - 1) == (None if last == 71 else last + 1)


async def test_a_missing_log_is_not_an_empty_log(bus_of: BusOf, server: EmbeddedServer) -> None:
    bus = await bus_of("catalog")
    assert (await log_state(bus)).is_dense
    await server.stop()
    delete_log(server.folder)
    await server.start()
    with pytest.raises(LogDamaged, match="there is no event log"):
        await log_state(bus)


async def test_a_log_without_its_first_commits_is_not_dense(bus_of: BusOf, server: EmbeddedServer) -> None:
    bus = await bus_of("catalog")
    await publish_messages(bus, 70, size=LARGE)
    await server.stop()
    block_files(server.folder)[0].unlink()
    await server.start()
    assert not (await log_state(bus)).is_dense


async def test_a_known_log_that_lost_all_commits_is_not_created_again(bus_of: BusOf, server: EmbeddedServer) -> None:
    log_id = (await log_state(await bus_of("catalog"))).log_id
    await server.stop()
    shutil.rmtree(server.folder / MESSAGE_FOLDER)
    await server.start()
    admin = await bus_of("admin")
    assert (await log_state(admin)).last == 0
    with pytest.raises(LogDamaged, match="has lost all it held, from commit 1 on"):
        await migrate(admin, at=NOW, lease=LEASE, known_log=log_id)
