"""Every way an append can end, on a real nats-server; what the line does is done by a proxy."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from nats.js.api import StreamConfig

from contracts import subjects
from contracts.errors import Conflict, KeyReused, LogDamaged, LogFull, LoratoryError, TooLarge, Unavailable
from contracts.events import Commit, DatasetCreated, DatasetRenamed, Stored
from contracts.wire import log as log_module
from contracts.wire import publishing
from contracts.wire.bus import Bus, connect
from contracts.wire.log import EventLog, Head, draw_up, head_of
from contracts.wire.publishing import Ack, Refusal
from contracts.wire.server import EmbeddedServer
from contracts.wire.streams import migrate
from tests.conftest import NOW, BusOf, origin
from tests.limits import WAIT
from tests.proxy import Proxy

Together = list[tuple[Commit, Head]]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "PUBLISH_SECONDS", 0.3)
    monkeypatch.setattr(log_module, "GIVE_UP_SECONDS", 4.0)


@pytest.fixture
async def admin(bus_of: BusOf) -> Bus:
    return await bus_of("admin")


@pytest.fixture
async def proxy(server: EmbeddedServer) -> AsyncIterator[Proxy]:
    async with Proxy(int(server.url.rpartition(":")[2])) as between:
        yield between


@pytest.fixture
async def bus(admin: Bus, server: EmbeddedServer, proxy: Proxy) -> AsyncIterator[Bus]:
    """The catalog's, through the proxy."""
    behind = await connect(f"nats://127.0.0.1:{proxy.port}", *server.credentials("catalog"), "test")
    yield behind
    await behind.close()


@pytest.fixture
def log(bus: Bus) -> EventLog:
    return EventLog(bus)


def born(thing: str, command: str = "c1", **more: str) -> tuple[Commit, Head]:
    return draw_up(
        "dataset", thing, [DatasetCreated(name="cats")], after=Head(), origin=origin(command, **more)
    ), Head()


def renamed(thing: str, after: Stored, command: str) -> tuple[Commit, Head]:
    head = head_of(after)
    return draw_up("dataset", thing, [DatasetRenamed(name="dogs")], after=head, origin=origin(command)), head


MANY = [[born("ds_1")], [born(f"ds_{number}") for number in range(5)]]
ONE_OR_MANY = pytest.mark.parametrize("together", MANY, ids=["one thing", "five things"])


async def settings(admin: Bus, **changes: Any) -> None:
    js = admin.jetstream()
    await js.update_stream(replace((await js.stream_info(subjects.FACTS)).config, **changes))


async def stored_once(admin: Bus, together: Together, answer: Sequence[Stored]) -> None:
    """Each is there, once, where the answer says, next to each other; and nothing else but the log's own beginning."""
    log = EventLog(admin)
    for (commit, _), stored in zip(together, answer, strict=True):
        (found,) = (await log.load("dataset", commit.thing)).commits
        assert (found.sequence, found.body) == (stored.sequence, stored.body)
        assert found.commit == commit
    first = answer[0].sequence
    assert [stored.sequence for stored in answer] == list(range(first, first + len(together)))
    assert (await log.end())[1] == 1 + len(together)


# --- what the line does


@ONE_OR_MANY
async def test_stored_and_the_answer_is_lost(log: EventLog, admin: Bus, proxy: Proxy, together: Together) -> None:
    proxy.hold("down")
    appending = asyncio.create_task(log.append_together(together))
    if len(together) == 1:
        async with asyncio.timeout(WAIT):
            while (await EventLog(admin).end())[1] == 1:  # noqa: ASYNC110 - the server tells nobody
                await asyncio.sleep(0.01)
    proxy.cut()
    proxy.release()
    await stored_once(admin, together, await appending)


@ONE_OR_MANY
async def test_it_never_arrived(log: EventLog, admin: Bus, proxy: Proxy, together: Together) -> None:
    proxy.hold("up")
    appending = asyncio.create_task(log.append_together(together))
    await asyncio.sleep(0.05)
    proxy.cut()
    assert (await EventLog(admin).end())[1] == 1
    proxy.release()
    await stored_once(admin, together, await appending)


@ONE_OR_MANY
async def test_it_arrives_long_after_it_was_given_up_and_again(
    log: EventLog, admin: Bus, proxy: Proxy, together: Together
) -> None:
    proxy.hold("up")
    appending = asyncio.create_task(log.append_together(together))
    await asyncio.sleep(1.2)  # several tries wait on the line now
    proxy.release()
    answer = await appending
    await stored_once(admin, together, answer)


@ONE_OR_MANY
async def test_said_while_nobody_is_there(log: EventLog, admin: Bus, proxy: Proxy, together: Together) -> None:
    proxy.leave()
    appending = asyncio.create_task(log.append_together(together))
    await asyncio.sleep(1.0)
    proxy.come_back()
    await stored_once(admin, together, await appending)


@ONE_OR_MANY
async def test_who_gives_up_says_so_and_may_ask_again(
    log: EventLog, admin: Bus, proxy: Proxy, together: Together, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "GIVE_UP_SECONDS", 0.5)
    proxy.hold("down")
    with pytest.raises(Unavailable):
        await log.append_together(together)
    proxy.release()
    await stored_once(admin, together, await log.append_together(together))


async def test_an_answer_that_is_lost_and_a_log_that_is_full_since(log: EventLog, admin: Bus, proxy: Proxy) -> None:
    together = [born("ds_1")]
    proxy.hold("down")
    appending = asyncio.create_task(log.append_together(together))
    async with asyncio.timeout(WAIT):
        while (await EventLog(admin).end())[1] == 1:  # noqa: ASYNC110 - the server tells nobody
            await asyncio.sleep(0.01)
    await settings(admin, max_bytes=1024)
    proxy.cut()
    proxy.release()
    await stored_once(admin, together, await appending)


async def test_a_closed_line_is_told_at_once(log: EventLog, bus: Bus, proxy: Proxy) -> None:
    proxy.hold("up")
    appending = asyncio.create_task(log.append(*born("ds_1")))
    await asyncio.sleep(0.05)
    await bus.close()
    for attempt in (appending, log.append(*born("ds_1"))):
        with pytest.raises(Unavailable, match="closed"):
            await asyncio.wait_for(attempt, 0.3)


# --- what the server says


@pytest.mark.parametrize(
    ("status", "code", "verdict"),
    [
        (400, 10071, "taken"),
        (400, 10164, "taken"),
        (400, 10201, "taken"),
        (503, 10077, "full"),
        (503, 10023, "full"),
        (500, 10047, "full"),
        (400, 10054, "too large"),
        (400, 10199, "too large"),
        (400, 10060, "wrong stream"),
        (400, 10176, "unclear"),
        (429, 10210, "unclear"),
        (503, 10008, "unclear"),
        (500, 10000, "unclear"),
        (400, 10174, "refused"),
    ],
)
def test_an_error_is_judged_by_its_code_before_its_status(status: int, code: int, verdict: str) -> None:
    assert Ack(error=Refusal(code=status, err_code=code)).verdict == verdict


def test_an_answer_that_names_no_place_says_nothing() -> None:
    assert (Ack().verdict, Ack(seq=7).verdict) == ("unclear", "stored")


async def test_a_batch_conflicts_as_a_whole(log: EventLog, admin: Bus) -> None:
    first = await log.append(*born("ds_1"))
    with pytest.raises(Conflict):
        await log.append_together([born("ds_2", "c2"), born("ds_1", "c2"), born("ds_3", "c2")])
    assert (await EventLog(admin).end())[1] == first.sequence
    stored = await log.append_together([born("ds_2", "c2"), renamed("ds_1", first, "c2"), born("ds_3", "c2")])
    assert [one.sequence for one in stored] == [first.sequence + 1, first.sequence + 2, first.sequence + 3]


async def test_a_batch_of_which_a_part_is_there_already_is_a_conflict(log: EventLog, admin: Bus) -> None:
    first = await log.append(*born("ds_1"))
    with pytest.raises(Conflict):
        await log.append_together([born("ds_1"), born("ds_2")])
    assert (await EventLog(admin).end())[1] == first.sequence


async def test_two_commits_of_one_thing_are_one_commit(log: EventLog) -> None:
    with pytest.raises(ValueError, match="one commit"):
        await log.append_together([born("ds_1"), born("ds_1", "c2")])


async def test_more_things_than_the_server_takes_at_once_are_refused(log: EventLog, admin: Bus) -> None:
    with pytest.raises(TooLarge):
        await log.append_together([born(f"ds_{number}") for number in range(publishing.MOST_AT_ONCE + 1)])
    assert (await EventLog(admin).end())[1] == 1


async def test_as_many_things_as_the_server_takes_at_once_are_stored(log: EventLog, admin: Bus) -> None:
    together = [born(f"ds_{number}") for number in range(publishing.MOST_AT_ONCE)]
    stored = await log.append_together(together)
    assert [one.sequence for one in stored] == list(range(2, publishing.MOST_AT_ONCE + 2))
    assert (await EventLog(admin).end())[1] == publishing.MOST_AT_ONCE + 1


@ONE_OR_MANY
async def test_a_full_log_says_so_and_takes_it_when_there_is_room(
    log: EventLog, admin: Bus, together: Together
) -> None:
    await settings(admin, max_bytes=1)
    with pytest.raises(LogFull):
        await log.append_together(together)
    await settings(admin, max_bytes=1024**2)
    await stored_once(admin, together, await log.append_together(together))


@ONE_OR_MANY
async def test_what_the_server_finds_too_large_is_refused(log: EventLog, admin: Bus, together: Together) -> None:
    await settings(admin, max_msg_size=100)
    with pytest.raises(TooLarge):
        await log.append_together(together)
    assert (await EventLog(admin).end())[1] == 1


async def test_nothing_is_written_into_another_stream(log: EventLog, admin: Bus) -> None:
    js = admin.jetstream()
    await js.delete_stream(subjects.FACTS)
    await js.add_stream(StreamConfig(name="OTHER", subjects=[subjects.ALL_FACTS]))
    with pytest.raises(LogDamaged, match="another stream"):
        await log.append(*born("ds_1"))
    assert (await js.stream_info("OTHER")).state.messages == 0


@ONE_OR_MANY
async def test_a_log_that_is_not_there_yet_is_waited_for(log: EventLog, admin: Bus, together: Together) -> None:
    js = admin.jetstream()
    config = (await js.stream_info(subjects.FACTS)).config
    await js.delete_stream(subjects.FACTS)
    appending = asyncio.create_task(log.append_together(together))
    await asyncio.sleep(0.5)
    assert not appending.done()
    await js.add_stream(config)
    assert [stored.sequence for stored in await appending] == list(range(1, len(together) + 1))
    assert (await log.end())[1] == len(together)


@ONE_OR_MANY
async def test_the_server_is_restarted_meanwhile(
    log: EventLog, admin: Bus, server: EmbeddedServer, proxy: Proxy, together: Together
) -> None:
    proxy.hold("up")
    appending = asyncio.create_task(log.append_together(together))
    await asyncio.sleep(0.05)
    await server.restart()
    proxy.release()
    await stored_once(admin, together, await appending)


async def test_an_id_that_another_commit_has_is_not_taken_for_ours(log: EventLog, admin: Bus) -> None:
    commit, _ = born("ds_1")
    body = log_module._encode(commit)
    await admin.jetstream().publish(subjects.fact("dataset", "ds_9"), body, headers={"Nats-Msg-Id": commit.id})
    with pytest.raises(LoratoryError, match="taken by another"):
        await log.append(*born("ds_1"))
    with pytest.raises(Conflict):
        await log.append_together([born("ds_1"), born("ds_2")])
    assert (await EventLog(admin).end())[1] == 2


# --- for ever


@pytest.fixture
async def forgetful(admin: Bus) -> float:
    """The server forgets the ids of messages after so many seconds."""
    await migrate(admin, at=NOW, lease=2, duplicate_window=0.1)
    return 0.1


@ONE_OR_MANY
async def test_a_commit_is_the_same_place_also_when_the_server_has_forgotten_its_id(
    log: EventLog, admin: Bus, server: EmbeddedServer, forgetful: float, together: Together
) -> None:
    answer = await log.append_together(together)
    await log.append(*born("ds_x", "c2"))
    await asyncio.sleep(forgetful * 5)
    await server.restart()
    # The window is over: the same id would be taken again.
    probe = await admin.jetstream().publish("evt.dataset.ds_y", b"{}", headers={"Nats-Msg-Id": together[0][0].id})
    assert not probe.duplicate
    again = await log.append_together(together)
    assert [(one.sequence, one.body) for one in again] == [(one.sequence, one.body) for one in answer]


async def test_a_command_that_was_decided_otherwise_before_stays_what_it_was(log: EventLog) -> None:
    first = await log.append(*born("ds_1"))
    later = draw_up("dataset", "ds_1", [DatasetCreated(name="cats again")], after=Head(), origin=origin("c1"))
    again = await log.append(later, Head())
    assert (again.sequence, again.body, again.commit) == (first.sequence, first.body, first.commit)
    assert head_of(again) == head_of(first)


async def test_a_command_id_of_another_request_is_told(log: EventLog) -> None:
    await log.append(*born("ds_1", fingerprint="one"))
    with pytest.raises(KeyReused):
        await log.append(*born("ds_1", fingerprint="another"))


async def test_a_commit_that_stands_on_an_older_head_is_found(log: EventLog) -> None:
    """Decided and stored, never answered; decided anew by another life, on what it had itself stored."""
    first = await log.append(*born("ds_1"))
    second = await log.append(*renamed("ds_1", first, "c2"))
    assert (await log.append(*renamed("ds_1", second, "c2"))).sequence == second.sequence
