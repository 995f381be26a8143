"""Reading the log as it lies on the disk: whatever a server makes of damaged blocks, the hole is seen where it is."""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from contracts import subjects
from contracts.errors import LogDamaged
from contracts.wire.bus import Bus
from contracts.wire.scan import Message, log_state, next_sequence, scan
from contracts.wire.server import EmbeddedServer
from contracts.wire.streams import migrate
from tests.conftest import LEASE, NOW, BusOf
from tests.damage import BLOCKS, LOST_LINES, blocks, cut, delete_log, flip_in, forget_index

pytestmark = LOST_LINES

LARGE = 170_000
"""Bytes; fifty of them fill a block of nats-server, which holds 8 MB."""


async def fill(bus: Bus, count: int, size: int = 100) -> None:
    """Messages 2 … count+1; the first is the log's own."""
    js = bus.jetstream(timeout=30)
    for number in range(2, count + 2, 50):
        bodies = [
            (one, f"commit {one:06} ".encode() + b"." * size) for one in range(number, min(number + 50, count + 2))
        ]
        await asyncio.gather(*(js.publish(f"evt.dataset.ds_{one % 3}", body) for one, body in bodies))


async def read(bus: Bus, after: int = 0, to: int = 1_000_000, bits: int | None = None) -> list[Message]:
    return [message async for batch in scan(bus, after, to, bits=bits) for message in batch]


async def test_all_is_read_as_it_was_stored(bus_of: BusOf) -> None:
    bus = await bus_of("catalog")
    await fill(bus, 1500)

    found = await read(bus)

    assert [message.sequence for message in found] == list(range(1, 1502))
    assert found[-1].subject == "evt.dataset.ds_1"
    assert found[-1].body == b"commit 001501 " + b"." * 100
    stored = await bus.jetstream().get_msg(subjects.FACTS, seq=7)
    assert stored.time is not None
    assert abs(found[6].recorded - stored.time.timestamp() * 1e6) < 2


async def test_a_stretch_has_a_beginning_and_an_end(bus_of: BusOf) -> None:
    bus = await bus_of("catalog")
    await fill(bus, 40)
    assert [message.sequence for message in await read(bus, 10, 30)] == list(range(11, 31))
    assert await read(bus, 41) == []


async def test_it_may_be_read_slowly(bus_of: BusOf) -> None:
    bus = await bus_of("catalog")
    await fill(bus, 60, size=1000)
    assert len(await read(bus, bits=1_000_000)) == 61


FIRST, NEWEST = b"commit 000020", b"commit 000060"


@pytest.mark.parametrize(
    ("harm", "missing"),
    [
        (lambda nats: flip_in(blocks(nats)[0], FIRST), "20"),
        (lambda nats: (flip_in(blocks(nats)[0], FIRST), forget_index(nats)), "20 to the end of the block"),
        (lambda nats: cut(blocks(nats)[0], FIRST), "20 to the end of the block"),
        (lambda nats: (flip_in(blocks(nats)[-1], NEWEST), forget_index(nats)), "60 to the end of the log"),
        (lambda nats: cut(blocks(nats)[-1], NEWEST), "60 to the end of the log"),
        (lambda nats: blocks(nats)[0].unlink(), "1 to the end of the block"),
    ],
    ids=[
        "a bit",
        "a bit after a crash",
        "a cut",
        "a bit of the newest block after a crash",
        "a cut of the newest",
        "a lost block",
    ],
)
async def test_what_damaged_blocks_lack_is_left_out_and_all_else_is_read(
    bus_of: BusOf, server: EmbeddedServer, harm: Callable[[Path], object], missing: str
) -> None:
    bus = await bus_of("catalog")
    await fill(bus, 70, size=LARGE)
    await server.stop()
    in_block = blocks(server.folder)[0].read_bytes().count(b"commit ") + 1
    assert 20 < in_block < 60
    harm(server.folder)
    await server.start()

    found = [message.sequence for message in await read(bus)]
    first = int(missing.split(maxsplit=1)[0])
    last = {"20": 20, "block": in_block, "log": 71}[missing.rsplit(maxsplit=1)[-1]]
    assert found == [*range(1, first), *range(last + 1, 72)]
    assert await next_sequence(bus, first - 1) == (None if last == 71 else last + 1)


async def test_no_log_is_not_an_empty_one(bus_of: BusOf, server: EmbeddedServer) -> None:
    bus = await bus_of("catalog")
    assert (await log_state(bus)).dense
    await server.stop()
    delete_log(server.folder)
    await server.start()
    with pytest.raises(LogDamaged, match="there is no event log"):
        await log_state(bus)


async def test_a_log_that_lacks_its_beginning_is_not_dense(bus_of: BusOf, server: EmbeddedServer) -> None:
    bus = await bus_of("catalog")
    await fill(bus, 70, size=LARGE)
    await server.stop()
    blocks(server.folder)[0].unlink()
    await server.start()
    assert not (await log_state(bus)).dense


async def test_a_known_log_that_lost_all_is_not_begun_anew(bus_of: BusOf, server: EmbeddedServer) -> None:
    log_id = (await log_state(await bus_of("catalog"))).log_id
    await server.stop()
    shutil.rmtree(server.folder / BLOCKS)
    await server.start()
    admin = await bus_of("admin")
    assert (await log_state(admin)).last == 0
    with pytest.raises(LogDamaged, match="has lost all it held, from commit 1 on"):
        await migrate(admin, at=NOW, lease=LEASE, known_log=log_id)
