"""Following a log across restarts of its server: it continues where it was, or detects that the history differs."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
from nats.aio.msg import Msg

from contracts.commits import RecordedCommit
from contracts.errors import LogDamaged
from contracts.events.datasets import DatasetRenamed
from contracts.wire.log.event_log import EventLog
from contracts.wire.log.flow_control import MAX_BUFFERED_BYTES, LogSubscription
from contracts.wire.log.follow import Follower
from contracts.wire.log.migration import migrate
from contracts.wire.server.embedded import EmbeddedServer
from tests.conftest import LEASE, NOW, BusOf
from tests.contracts.builders import DatasetWriter
from tests.contracts.test_scan import LARGE, publish_messages
from tests.damage import IGNORE_UNCLOSED_SOCKETS, block_files, delete_log, flip_bit_in_text
from tests.limits import WAIT

QUICK = 0.2
"""Seconds of a follower without a message until it compares its position with the log."""

pytestmark = IGNORE_UNCLOSED_SOCKETS


async def read_until(batches: AsyncIterator[list[RecordedCommit]], sequence: int) -> RecordedCommit:
    """Reads up to this sequence; returns the last commit read."""
    async with asyncio.timeout(WAIT):
        async for batch in batches:
            if batch[-1].sequence >= sequence:
                return batch[-1]
    raise AssertionError("the follower ended")


async def test_following_continues_after_a_restart_with_the_same_log(bus_of: BusOf, server: EmbeddedServer) -> None:
    bus = await bus_of("catalog")
    writer = DatasetWriter(EventLog(bus))
    await writer.rename("one", "two")
    async with aclosing(Follower(bus, 0, receive_timeout=QUICK).batches()) as batches:
        await read_until(batches, 3)
        await server.restart()
        await writer.rename("three")
        assert (await read_until(batches, 4)).commit.events == (DatasetRenamed(name="three"),)


async def test_a_rolled_back_log_with_new_commits_is_detected_before_any_is_yielded(
    bus_of: BusOf, server: EmbeddedServer, tmp_path: Path
) -> None:
    bus = await bus_of("catalog")
    writer = DatasetWriter(EventLog(bus))
    await writer.rename("one", "two")
    await server.stop()
    shutil.copytree(server.folder / "streams", tmp_path / "backup")
    await server.start()
    writer_of_the_copy = DatasetWriter(EventLog(bus), revision=writer.revision)
    async with aclosing(Follower(bus, 0, receive_timeout=QUICK).batches()) as batches:
        await writer.rename("three", "four")
        await read_until(batches, 5)
        await server.stop()
        shutil.rmtree(server.folder / "streams")
        shutil.copytree(tmp_path / "backup", server.folder / "streams")
        await server.start()
        # Another writer appends before the follower reconnects: the log is longer than before.
        await writer_of_the_copy.rename("three again", "four again", "five")
        with pytest.raises(LogDamaged, match="commit 5 of the log is not the one that was read") as caught:
            await read_until(batches, 6)
    assert caught.value.extra == {"first_bad": 5}


async def test_a_rolled_back_log_is_detected_without_new_commits(
    bus_of: BusOf, server: EmbeddedServer, tmp_path: Path
) -> None:
    bus = await bus_of("catalog")
    writer = DatasetWriter(EventLog(bus))
    await writer.rename("one")
    await server.stop()
    shutil.copytree(server.folder / "streams", tmp_path / "backup")
    await server.start()
    async with aclosing(Follower(bus, 0, receive_timeout=QUICK).batches()) as batches:
        await writer.rename("two", "three")
        await read_until(batches, 4)
        await server.stop()
        shutil.rmtree(server.folder / "streams")
        shutil.copytree(tmp_path / "backup", server.folder / "streams")
        await server.start()
        with pytest.raises(LogDamaged, match="the log ends at 2, but commits up to 4") as caught:
            await read_until(batches, 5)
    assert caught.value.extra == {"first_bad": 3}


async def test_a_replaced_log_is_detected(bus_of: BusOf, server: EmbeddedServer) -> None:
    bus = await bus_of("catalog")
    await DatasetWriter(EventLog(bus)).rename("one")
    async with aclosing(Follower(bus, 0, receive_timeout=QUICK).batches()) as batches:
        await read_until(batches, 2)
        await server.stop()
        delete_log(server.folder)
        await server.start()
        await migrate(await bus_of("admin"), at=NOW, lease=LEASE)
        await DatasetWriter(EventLog(bus)).rename("one", "two")
        with pytest.raises(LogDamaged, match="replaced"):
            await read_until(batches, 3)


async def test_a_gap_in_the_log_is_an_error(bus_of: BusOf, server: EmbeddedServer) -> None:
    bus = await bus_of("catalog")
    await DatasetWriter(EventLog(bus)).rename("one")
    await publish_messages(bus, 70, size=LARGE)
    await server.stop()
    flip_bit_in_text(block_files(server.folder)[0], b'"dataset.renamed","name":"one')
    await server.start()
    with pytest.raises(LogDamaged, match="commit 2 is missing from the log") as caught:
        async with aclosing(Follower(bus, 0, receive_timeout=QUICK).batches()) as batches:
            await read_until(batches, 2)
    assert caught.value.extra == {"first_bad": 2}


async def test_a_different_last_commit_is_detected_before_any_is_yielded(bus_of: BusOf) -> None:
    bus = await bus_of("catalog")
    await DatasetWriter(EventLog(bus)).rename("one", "two")
    with pytest.raises(LogDamaged, match="commit 2 of the log is not the one that was read"):
        async with aclosing(Follower(bus, 2, digest="0" * 64, receive_timeout=QUICK).batches()) as batches:
            await read_until(batches, 3)


async def test_the_receive_buffer_is_bounded_in_bytes(bus_of: BusOf) -> None:
    bus = await bus_of("admin")
    buffer = LogSubscription(bus, max_batch=10, max_unconfirmed=10, receive_timeout=QUICK)
    reply, body = "$JS.ACK.EVT.c.1.7.7.1000.0", bytes(MAX_BUFFERED_BYTES // 2)
    message = Msg(bus, subject="evt.dataset.ds_1", reply=reply, data=body)
    await buffer.put(message)
    await buffer.put(message)

    third = asyncio.create_task(buffer.put(message))
    await asyncio.sleep(0)
    assert not third.done()
    assert len(await buffer.take_batch()) == 2

    await third
    assert len(await buffer.take_batch()) == 1
