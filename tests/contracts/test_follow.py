"""Following a log through restarts of its server: it goes on where it was, or says that this is another history."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
from nats.aio.msg import Msg

from contracts import events as e
from contracts.errors import LogDamaged
from contracts.events import Stored
from contracts.wire.bus import Bus
from contracts.wire.follow import WAITING_BYTES, Follower, Waiting
from contracts.wire.log import EventLog, Head, draw_up, head_of
from contracts.wire.server import EmbeddedServer
from contracts.wire.streams import migrate
from tests.conftest import LEASE, NOW, BusOf, origin
from tests.contracts.test_scan import LARGE, fill
from tests.damage import LOST_LINES, blocks, delete_log, flip_in
from tests.limits import WAIT

pytestmark = LOST_LINES


class Teller:
    """Appends to one data set and knows where its history ends."""

    def __init__(self, bus: Bus) -> None:
        self._log = EventLog(bus)
        self._head = Head()

    async def say(self, *names: str) -> None:
        for name in names:
            fact = e.DatasetRenamed(name=name)
            stored = await self._log.append(
                draw_up("dataset", "ds_1", [fact], after=self._head, origin=origin()), self._head
            )
            self._head = head_of(stored)


async def take(batches: AsyncIterator[list[Stored]], last: int) -> Stored:
    """Reads on up to this sequence."""
    async with asyncio.timeout(WAIT):
        async for batch in batches:
            if batch[-1].sequence >= last:
                return batch[-1]
    raise AssertionError("it ended")


async def test_a_restarted_server_with_the_same_log_is_gone_on_with(bus_of: BusOf, server: EmbeddedServer) -> None:
    bus = await bus_of("catalog")
    teller = Teller(bus)
    await teller.say("one", "two")
    async with aclosing(Follower(bus, 0).batches()) as batches:
        await take(batches, 3)
        await server.restart()
        await teller.say("three")
        assert (await take(batches, 4)).commit.facts == (e.DatasetRenamed(name="three"),)


async def test_a_server_that_comes_back_with_an_older_copy_is_found_out_before_anything_is_told(
    bus_of: BusOf, server: EmbeddedServer, tmp_path: Path
) -> None:
    bus = await bus_of("catalog")
    teller = Teller(bus)
    await teller.say("one", "two")
    await server.stop()
    shutil.copytree(server.folder / "streams", tmp_path / "an hour ago")
    await server.start()
    then = Teller(bus)
    then._head = teller._head
    async with aclosing(Follower(bus, 0).batches()) as batches:
        await teller.say("three", "four")
        await take(batches, 5)
        await server.stop()
        shutil.rmtree(server.folder / "streams")
        shutil.copytree(tmp_path / "an hour ago", server.folder / "streams")
        await server.start()
        # Another writer is quicker than we are: the log is as long as it was, and longer.
        await then.say("never", "said", "before")
        with pytest.raises(LogDamaged, match="commit 5 of the log is not the one that was read") as caught:
            await take(batches, 6)
    assert caught.value.facts == {"first_bad": 5}


async def test_a_log_that_went_back_is_found_out_though_nothing_is_said(
    bus_of: BusOf, server: EmbeddedServer, tmp_path: Path
) -> None:
    bus = await bus_of("catalog")
    teller = Teller(bus)
    await teller.say("one")
    await server.stop()
    shutil.copytree(server.folder / "streams", tmp_path / "an hour ago")
    await server.start()
    async with aclosing(Follower(bus, 0).batches()) as batches:
        await teller.say("two", "three")
        await take(batches, 4)
        await server.stop()
        shutil.rmtree(server.folder / "streams")
        shutil.copytree(tmp_path / "an hour ago", server.folder / "streams")
        await server.start()
        with pytest.raises(LogDamaged, match="the log ends at 2, but commits up to 4") as caught:
            await take(batches, 5)
    assert caught.value.facts == {"first_bad": 3}


async def test_another_log_in_its_place_is_found_out(bus_of: BusOf, server: EmbeddedServer) -> None:
    bus = await bus_of("catalog")
    await Teller(bus).say("one")
    async with aclosing(Follower(bus, 0).batches()) as batches:
        await take(batches, 2)
        await server.stop()
        delete_log(server.folder)
        await server.start()
        await migrate(await bus_of("admin"), at=NOW, lease=LEASE)
        await Teller(bus).say("one", "two")
        with pytest.raises(LogDamaged, match="replaced"):
            await take(batches, 3)


async def test_a_hole_in_the_log_is_neither_skipped_nor_waited_for(bus_of: BusOf, server: EmbeddedServer) -> None:
    bus = await bus_of("catalog")
    await Teller(bus).say("one")
    await fill(bus, 70, size=LARGE)
    await server.stop()
    flip_in(blocks(server.folder)[0], b'"dataset.renamed","name":"one')
    await server.start()
    with pytest.raises(LogDamaged, match="commit 2 is missing from the log") as caught:
        async with aclosing(Follower(bus, 0).batches()) as batches:
            await take(batches, 2)
    assert caught.value.facts == {"first_bad": 2}


async def test_who_remembers_another_commit_is_told_nothing(bus_of: BusOf) -> None:
    bus = await bus_of("catalog")
    await Teller(bus).say("one", "two")
    with pytest.raises(LogDamaged, match="commit 2 of the log is not the one that was read"):
        async with aclosing(Follower(bus, 2, digest="0" * 64).batches()) as batches:
            await take(batches, 3)


async def test_what_waits_to_be_taken_is_bounded_in_bytes(bus_of: BusOf) -> None:
    bus, waiting = await bus_of("admin"), Waiting()
    message = Msg(bus, subject="evt.dataset.ds_1", data=bytes(WAITING_BYTES // 2))
    await waiting.put(message)
    await waiting.put(message)

    third = asyncio.create_task(waiting.put(message))
    await asyncio.sleep(0)
    assert not third.done()
    assert len(await waiting.take()) == 2

    await third
    assert len(await waiting.take()) == 1
