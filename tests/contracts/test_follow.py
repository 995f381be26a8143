"""Following a log across restarts of its server: it continues where it was, or detects that the history differs."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from contracts.commits import RecordedCommit, decode_message
from contracts.errors import LogDamaged
from contracts.events.datasets import DatasetRenamed
from contracts.log_message import LogMessage
from contracts.wire.log.event_log import EventLog
from contracts.wire.log.follow import Follower, FollowPolicy
from contracts.wire.log.migration import migrate
from contracts.wire.server.embedded import EmbeddedServer
from contracts.wire.service.direct import BatchLimits
from tests.conftest import LEASE, NOW, BusOf
from tests.contracts.builders import DatasetWriter
from tests.contracts.lossy_bus import LosesOnce, connect_lossy
from tests.contracts.test_scan import LARGE, publish_messages
from tests.damage import IGNORE_UNCLOSED_SOCKETS, block_files, delete_log, flip_bit_in_text
from tests.limits import WAIT

QUICK = FollowPolicy(poll=0.2)
"""Compares its position with the log soon after the last announcement."""

pytestmark = IGNORE_UNCLOSED_SOCKETS


async def read_until(batches: AsyncIterator[list[LogMessage]], sequence: int) -> RecordedCommit:
    """Reads up to this sequence; returns the last commit read."""
    async with asyncio.timeout(WAIT):
        async for batch in batches:
            if batch[-1].sequence >= sequence:
                return decode_message(batch[-1])
    raise AssertionError("the follower ended")


async def test_following_continues_after_a_restart_with_the_same_log(bus_of: BusOf, server: EmbeddedServer) -> None:
    bus = await bus_of("catalog")
    writer = DatasetWriter(EventLog(bus))
    await writer.rename("one", "two")
    async with aclosing(Follower(bus, 0, policy=QUICK).batches()) as batches:
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
    async with aclosing(Follower(bus, 0, policy=QUICK).batches()) as batches:
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
    async with aclosing(Follower(bus, 0, policy=QUICK).batches()) as batches:
        await writer.rename("two", "three")
        await read_until(batches, 4)
        await server.stop()
        shutil.rmtree(server.folder / "streams")
        shutil.copytree(tmp_path / "backup", server.folder / "streams")
        await server.start()
        with pytest.raises(LogDamaged, match="the log ends at 2, but commits up to 4") as caught:
            await read_until(batches, 5)
    assert caught.value.extra == {"first_bad": 3}


async def test_a_log_that_is_gone_after_a_restart_is_detected(bus_of: BusOf, server: EmbeddedServer) -> None:
    bus = await bus_of("catalog")
    await DatasetWriter(EventLog(bus)).rename("one")
    async with aclosing(Follower(bus, 0, policy=QUICK).batches()) as batches:
        await read_until(batches, 2)
        await server.stop()
        delete_log(server.folder)
        await server.start()
        with pytest.raises(LogDamaged, match="there is no event log on this server"):
            await read_until(batches, 3)


async def test_a_replaced_log_is_detected(bus_of: BusOf, server: EmbeddedServer) -> None:
    bus = await bus_of("catalog")
    await DatasetWriter(EventLog(bus)).rename("one")
    async with aclosing(Follower(bus, 0, policy=QUICK).batches()) as batches:
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
        async with aclosing(Follower(bus, 0, policy=QUICK).batches()) as batches:
            await read_until(batches, 2)
    assert caught.value.extra == {"first_bad": 2}


async def test_a_different_last_commit_is_detected_before_any_is_yielded(bus_of: BusOf) -> None:
    bus = await bus_of("catalog")
    await DatasetWriter(EventLog(bus)).rename("one", "two")
    with pytest.raises(LogDamaged, match="commit 2 of the log is not the one that was read"):
        async with aclosing(Follower(bus, 2, digest="0" * 64, policy=QUICK).batches()) as batches:
            await read_until(batches, 3)


NEVER = FollowPolicy(poll=3600)
"""Reads only what is announced."""


async def test_an_append_over_the_same_connection_is_read_at_once(bus_of: BusOf) -> None:
    bus = await bus_of("catalog")
    async with aclosing(Follower(bus, 0, policy=NEVER).batches()) as batches:
        await read_until(batches, 1)
        following = asyncio.ensure_future(read_until(batches, 3))
        await DatasetWriter(EventLog(bus)).rename("one", "two")
        assert (await following).commit.events == (DatasetRenamed(name="two"),)
    assert not bus.append_listeners


async def test_what_is_announced_while_it_waits_is_requested_before_the_announcement_ends(bus_of: BusOf) -> None:
    bus = await bus_of("catalog")
    follower = Follower(bus, 0, policy=NEVER)
    async with aclosing(follower.batches()) as batches:
        await read_until(batches, 1)
        following = asyncio.ensure_future(read_until(batches, 3))
        await follower._idle.wait()
        requests = bus.stats["out_msgs"]
        await follower.wake(2)
        await follower.wake(2)  # the request is on its way
        assert bus.stats["out_msgs"] == requests + 1
        await DatasetWriter(EventLog(bus)).rename("one", "two")
        assert (await following).sequence == 3


async def test_an_announced_commit_is_read_at_once_and_a_false_announcement_does_no_harm(bus_of: BusOf) -> None:
    bus, other = await bus_of("catalog"), await bus_of("admin")
    follower = Follower(bus, 0, policy=NEVER)
    async with aclosing(follower.batches()) as batches:
        await read_until(batches, 1)
        following = asyncio.ensure_future(read_until(batches, 2))
        await follower.wake(10**15)
        await bus.flush()
        await follower.wake(await DatasetWriter(EventLog(other)).rename("one"))
        assert (await following).sequence == 2


async def test_a_commit_that_nobody_announced_is_read_by_polling(bus_of: BusOf) -> None:
    bus, other = await bus_of("catalog"), await bus_of("admin")
    async with aclosing(Follower(bus, 0, policy=QUICK).batches()) as batches:
        await read_until(batches, 1)
        following = asyncio.ensure_future(read_until(batches, 2))
        await DatasetWriter(EventLog(other)).rename("one")
        assert (await following).sequence == 2


@pytest.mark.parametrize("lost", [[5], [1], [40], [5, 6, 30]], ids=str)
async def test_messages_lost_in_transit_are_read_again(
    bus_of: BusOf, server_in_use: EmbeddedServer, lost: list[int]
) -> None:
    await publish_messages(await bus_of("catalog"), 39)
    bus = await connect_lossy(server_in_use.url, *server_in_use.credentials("catalog"))
    bus.loses = LosesOnce(*lost)
    policy = FollowPolicy(poll=0.2, limits=BatchLimits(messages=10))
    read: list[int] = []
    async with asyncio.timeout(WAIT), aclosing(Follower(bus, 0, policy=policy).batches()) as batches:
        async for batch in batches:
            read += [message.sequence for message in batch]
            if read[-1] == 40:
                break
    assert read == list(range(1, 41))
    await bus.close()


async def test_one_batch_is_read_ahead_and_no_more(bus_of: BusOf, server_in_use: EmbeddedServer) -> None:
    await publish_messages(await bus_of("catalog"), 99)
    bus = await connect_lossy(server_in_use.url, *server_in_use.credentials("catalog"))
    policy = FollowPolicy(poll=0.2, limits=BatchLimits(messages=10))
    async with aclosing(Follower(bus, 0, policy=policy).batches()) as batches:
        await anext(batches)
        assert [(ask["seq"], ask["batch"]) for ask in bus.asked if "batch" in ask] == [(1, 10), (11, 10)]
    await bus.close()
