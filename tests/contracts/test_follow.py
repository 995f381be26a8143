"""Following a log across restarts of its server: it continues where it was, or detects that the history differs."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
from nats.aio.msg import Msg

from contracts import events as e
from contracts.errors import LogDamaged
from contracts.events import RecordedCommit
from contracts.wire.bus import Bus
from contracts.wire.follow import MAX_BUFFERED_BYTES, Follower, _ReceiveBuffer
from contracts.wire.log import EventLog, StreamRevision, build_commit, revision_of
from contracts.wire.server import EmbeddedServer
from contracts.wire.streams import migrate
from tests.conftest import LEASE, NOW, BusOf, command_metadata
from tests.contracts.test_scan import LARGE, publish_messages
from tests.damage import IGNORE_UNCLOSED_SOCKETS, block_files, delete_log, flip_bit_in_text
from tests.limits import WAIT

pytestmark = IGNORE_UNCLOSED_SOCKETS


class DatasetWriter:
    """Appends to one data set and keeps its revision."""

    def __init__(self, bus: Bus) -> None:
        self._log = EventLog(bus)
        self._revision = StreamRevision()

    async def rename(self, *names: str) -> None:
        for name in names:
            event = e.DatasetRenamed(name=name)
            recorded = await self._log.append(
                build_commit("dataset", "ds_1", [event], expected_revision=self._revision, metadata=command_metadata()),
                self._revision,
            )
            self._revision = revision_of(recorded)


async def read_until(batches: AsyncIterator[list[RecordedCommit]], sequence: int) -> RecordedCommit:
    """Reads up to this sequence; returns the last commit read."""
    async with asyncio.timeout(WAIT):
        async for batch in batches:
            if batch[-1].sequence >= sequence:
                return batch[-1]
    raise AssertionError("the follower ended")


async def test_following_continues_after_a_restart_with_the_same_log(bus_of: BusOf, server: EmbeddedServer) -> None:
    bus = await bus_of("catalog")
    writer = DatasetWriter(bus)
    await writer.rename("one", "two")
    async with aclosing(Follower(bus, 0).batches()) as batches:
        await read_until(batches, 3)
        await server.restart()
        await writer.rename("three")
        assert (await read_until(batches, 4)).commit.events == (e.DatasetRenamed(name="three"),)


async def test_a_rolled_back_log_with_new_commits_is_detected_before_any_is_yielded(
    bus_of: BusOf, server: EmbeddedServer, tmp_path: Path
) -> None:
    bus = await bus_of("catalog")
    writer = DatasetWriter(bus)
    await writer.rename("one", "two")
    await server.stop()
    shutil.copytree(server.folder / "streams", tmp_path / "backup")
    await server.start()
    writer_of_the_copy = DatasetWriter(bus)
    writer_of_the_copy._revision = writer._revision
    async with aclosing(Follower(bus, 0).batches()) as batches:
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
    writer = DatasetWriter(bus)
    await writer.rename("one")
    await server.stop()
    shutil.copytree(server.folder / "streams", tmp_path / "backup")
    await server.start()
    async with aclosing(Follower(bus, 0).batches()) as batches:
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
    await DatasetWriter(bus).rename("one")
    async with aclosing(Follower(bus, 0).batches()) as batches:
        await read_until(batches, 2)
        await server.stop()
        delete_log(server.folder)
        await server.start()
        await migrate(await bus_of("admin"), at=NOW, lease=LEASE)
        await DatasetWriter(bus).rename("one", "two")
        with pytest.raises(LogDamaged, match="replaced"):
            await read_until(batches, 3)


async def test_a_gap_in_the_log_is_an_error(bus_of: BusOf, server: EmbeddedServer) -> None:
    bus = await bus_of("catalog")
    await DatasetWriter(bus).rename("one")
    await publish_messages(bus, 70, size=LARGE)
    await server.stop()
    flip_bit_in_text(block_files(server.folder)[0], b'"dataset.renamed","name":"one')
    await server.start()
    with pytest.raises(LogDamaged, match="commit 2 is missing from the log") as caught:
        async with aclosing(Follower(bus, 0).batches()) as batches:
            await read_until(batches, 2)
    assert caught.value.extra == {"first_bad": 2}


async def test_a_different_last_commit_is_detected_before_any_is_yielded(bus_of: BusOf) -> None:
    bus = await bus_of("catalog")
    await DatasetWriter(bus).rename("one", "two")
    with pytest.raises(LogDamaged, match="commit 2 of the log is not the one that was read"):
        async with aclosing(Follower(bus, 2, digest="0" * 64).batches()) as batches:
            await read_until(batches, 3)


async def test_the_receive_buffer_is_bounded_in_bytes(bus_of: BusOf) -> None:
    bus, buffer = await bus_of("admin"), _ReceiveBuffer()
    message = Msg(bus, subject="evt.dataset.ds_1", data=bytes(MAX_BUFFERED_BYTES // 2))
    await buffer.put(message)
    await buffer.put(message)

    third = asyncio.create_task(buffer.put(message))
    await asyncio.sleep(0)
    assert not third.done()
    assert len(await buffer.take_batch()) == 2

    await third
    assert len(await buffer.take_batch()) == 1
