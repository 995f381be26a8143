"""All outcomes of an append, on a real nats-server; a proxy simulates faults of the connection."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from nats.js.api import StreamConfig

from contracts import subjects
from contracts.commits import RecordedCommit, encode_commit
from contracts.errors import Conflict, LogDamaged, LogFull, TooLarge, Unavailable
from contracts.retry import RetryPolicy
from contracts.signatures import HEADER, Signer
from contracts.wire.log.event_log import EventLog, LogTimings
from contracts.wire.log.publishing import Ack, Refusal
from contracts.wire.server.embedded import EmbeddedServer
from contracts.wire.service.bus import Bus, connect
from tests.conftest import BusOf, last_sequence
from tests.contracts.builders import Drafts, build_creation
from tests.limits import WAIT
from tests.proxy import Proxy
from tests.signing import key_named

TIMINGS = LogTimings(publish=0.1, retries=RetryPolicy(first_delay=0.03, jitter=0.05, time_limit=WAIT))


@pytest.fixture
async def admin(bus_of: BusOf) -> Bus:
    return await bus_of("admin")


@pytest.fixture
async def proxy(server_in_use: EmbeddedServer) -> AsyncIterator[Proxy]:
    async with Proxy(int(server_in_use.url.rpartition(":")[2])) as running:
        yield running


@pytest.fixture
async def bus(admin: Bus, server_in_use: EmbeddedServer, proxy: Proxy) -> AsyncIterator[Bus]:
    """The catalog's connection, through the proxy."""
    proxied = await connect(f"nats://127.0.0.1:{proxy.port}", *server_in_use.credentials("catalog"), "test")
    yield proxied
    await proxied.close()


@pytest.fixture
def log(bus: Bus) -> EventLog:
    return EventLog(bus, timings=TIMINGS)


BATCHES = [[build_creation("ds_1")], [build_creation(f"ds_{number}") for number in range(5)]]
ONE_OR_MANY = pytest.mark.parametrize("batch", BATCHES, ids=["one aggregate", "five aggregates"])


async def update_event_stream(admin: Bus, **changes: Any) -> None:
    js = admin.jetstream()
    await js.update_stream(replace((await js.stream_info(subjects.EVENTS)).config, **changes))


async def assert_stored_once(admin: Bus, batch: Drafts, acknowledged: Sequence[RecordedCommit]) -> None:
    """Each commit is stored once, at its acknowledged sequence, contiguous; else only the log's first commit."""
    log = EventLog(admin)
    for (commit, _), recorded in zip(batch, acknowledged, strict=True):
        (found,) = (await log.load("dataset", commit.aggregate_id)).commits
        assert (found.sequence, found.body) == (recorded.sequence, recorded.body)
        assert found.commit == commit
    first = acknowledged[0].sequence
    assert [recorded.sequence for recorded in acknowledged] == list(range(first, first + len(batch)))
    assert (await log.end())[1] == 1 + len(batch)


# --- faults of the connection


@ONE_OR_MANY
async def test_a_commit_whose_acknowledgement_is_lost_is_stored_once(
    log: EventLog, admin: Bus, proxy: Proxy, batch: Drafts
) -> None:
    proxy.hold("down")
    appending = asyncio.create_task(log.append_atomically(batch))
    if len(batch) == 1:
        async with asyncio.timeout(WAIT):
            while await last_sequence(EventLog(admin)) == 1:  # noqa: ASYNC110 - the server does not announce it
                await asyncio.sleep(0.01)
    proxy.cut()
    proxy.release()
    await assert_stored_once(admin, batch, await appending)


@ONE_OR_MANY
async def test_a_commit_that_never_arrived_is_sent_again(
    log: EventLog, admin: Bus, proxy: Proxy, batch: Drafts
) -> None:
    proxy.hold("up")
    appending = asyncio.create_task(log.append_atomically(batch))
    await asyncio.sleep(0.05)
    proxy.cut()
    assert (await EventLog(admin).end())[1] == 1
    proxy.release()
    await assert_stored_once(admin, batch, await appending)


@ONE_OR_MANY
async def test_retries_that_arrive_together_after_a_delay_store_one_commit(
    log: EventLog, admin: Bus, proxy: Proxy, batch: Drafts
) -> None:
    proxy.hold("up")
    appending = asyncio.create_task(log.append_atomically(batch))
    await asyncio.sleep(0.5)  # the proxy holds several attempts now
    proxy.release()
    acknowledged = await appending
    await assert_stored_once(admin, batch, acknowledged)


@ONE_OR_MANY
async def test_an_append_while_the_server_is_unreachable_waits_for_it(
    log: EventLog, admin: Bus, proxy: Proxy, batch: Drafts
) -> None:
    proxy.go_offline()
    appending = asyncio.create_task(log.append_atomically(batch))
    await asyncio.sleep(0.3)
    proxy.go_online()
    await assert_stored_once(admin, batch, await appending)


@ONE_OR_MANY
async def test_an_append_that_times_out_can_be_repeated(bus: Bus, admin: Bus, proxy: Proxy, batch: Drafts) -> None:
    log = EventLog(bus, timings=msgspec.structs.replace(TIMINGS, retries=RetryPolicy(first_delay=0.05, time_limit=0.5)))
    proxy.hold("down")
    with pytest.raises(Unavailable):
        await log.append_atomically(batch)
    proxy.release()
    await assert_stored_once(admin, batch, await log.append_atomically(batch))


async def test_a_lost_acknowledgement_is_resolved_even_if_the_log_is_full_by_then(
    log: EventLog, admin: Bus, proxy: Proxy
) -> None:
    batch = [build_creation("ds_1")]
    proxy.hold("down")
    appending = asyncio.create_task(log.append_atomically(batch))
    async with asyncio.timeout(WAIT):
        while await last_sequence(EventLog(admin)) == 1:  # noqa: ASYNC110 - the server does not announce it
            await asyncio.sleep(0.01)
    await update_event_stream(admin, max_bytes=1024)
    proxy.cut()
    proxy.release()
    await assert_stored_once(admin, batch, await appending)


async def test_an_append_on_a_closed_connection_fails_at_once(log: EventLog, bus: Bus, proxy: Proxy) -> None:
    proxy.hold("up")
    appending = asyncio.create_task(log.append(*build_creation("ds_1")))
    await asyncio.sleep(0.05)
    await bus.close()
    for attempt in (appending, log.append(*build_creation("ds_1"))):
        with pytest.raises(Unavailable, match="closed"):
            await asyncio.wait_for(attempt, 0.3)


# --- answers of the server


@pytest.mark.parametrize(
    ("status", "code", "verdict"),
    [
        (400, 10071, "conflict"),
        (400, 10164, "conflict"),
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
def test_the_error_code_takes_precedence_over_the_status(status: int, code: int, verdict: str) -> None:
    assert Ack(error=Refusal(code=status, err_code=code)).verdict == verdict


def test_an_acknowledgement_without_a_sequence_is_unclear() -> None:
    assert (Ack().verdict, Ack(seq=7).verdict) == ("unclear", "stored")


@ONE_OR_MANY
async def test_a_full_log_refuses_commits_until_there_is_room(log: EventLog, admin: Bus, batch: Drafts) -> None:
    await update_event_stream(admin, max_bytes=1)
    with pytest.raises(LogFull):
        await log.append_atomically(batch)
    await update_event_stream(admin, max_bytes=1024**2)
    await assert_stored_once(admin, batch, await log.append_atomically(batch))


@ONE_OR_MANY
async def test_a_message_larger_than_the_server_accepts_is_refused(log: EventLog, admin: Bus, batch: Drafts) -> None:
    await update_event_stream(admin, max_msg_size=100)
    with pytest.raises(TooLarge):
        await log.append_atomically(batch)
    assert (await EventLog(admin).end())[1] == 1


async def test_another_stream_with_the_same_subjects_is_not_written_to(log: EventLog, admin: Bus) -> None:
    js = admin.jetstream()
    await js.delete_stream(subjects.EVENTS)
    await js.add_stream(StreamConfig(name="OTHER", subjects=[subjects.ALL_EVENTS]))
    with pytest.raises(LogDamaged, match="another stream"):
        await log.append(*build_creation("ds_1"))
    assert (await js.stream_info("OTHER")).state.messages == 0


@ONE_OR_MANY
async def test_an_append_waits_for_a_log_that_does_not_exist_yet(log: EventLog, admin: Bus, batch: Drafts) -> None:
    js = admin.jetstream()
    config = (await js.stream_info(subjects.EVENTS)).config
    await js.delete_stream(subjects.EVENTS)
    appending = asyncio.create_task(log.append_atomically(batch))
    await asyncio.sleep(0.5)
    assert not appending.done()
    await js.add_stream(config)
    assert [recorded.sequence for recorded in await appending] == list(range(1, len(batch) + 1))
    assert (await log.end())[1] == len(batch)


@ONE_OR_MANY
async def test_an_append_survives_a_restart_of_the_server(
    log: EventLog, admin: Bus, server: EmbeddedServer, proxy: Proxy, batch: Drafts
) -> None:
    proxy.hold("up")
    appending = asyncio.create_task(log.append_atomically(batch))
    await asyncio.sleep(0.05)
    await server.restart()
    proxy.release()
    await assert_stored_once(admin, batch, await appending)


async def test_a_message_id_taken_by_somebody_else_is_no_obstacle(log: EventLog, admin: Bus) -> None:
    commit, _ = build_creation("ds_1")
    body = encode_commit(commit)
    await admin.jetstream().publish(subjects.aggregate("dataset", "ds_9"), body, headers={"Nats-Msg-Id": commit.id})
    assert (await log.append(*build_creation("ds_1"))).sequence == 3
    batch = [build_creation("ds_2"), build_creation("ds_3")]
    assert [one.sequence for one in await log.append_atomically(batch)] == [4, 5]


async def test_a_forged_commit_with_our_id_is_not_taken_for_ours(log: EventLog, admin: Bus) -> None:
    log.signer = Signer(key_named("catalog"), (await log.end())[0])
    commit, _ = build_creation("ds_1")
    forged = Signer(key_named("trainer"), log.signer.log_id).sign("evt.dataset.ds_1", encode_commit(commit))
    await admin.jetstream().publish("evt.dataset.ds_1", encode_commit(commit), headers={HEADER: forged})
    with pytest.raises(Conflict):
        await log.append(*build_creation("ds_1"))


# --- repeated commits, without a time limit


@ONE_OR_MANY
async def test_a_repeated_commit_is_found_after_a_restart_of_the_server(
    log: EventLog, server: EmbeddedServer, batch: Drafts
) -> None:
    acknowledged = await log.append_atomically(batch)
    await log.append(*build_creation("ds_x", "c2"))
    await server.restart()
    again = await log.append_atomically(batch)
    assert [(one.sequence, one.body) for one in again] == [(one.sequence, one.body) for one in acknowledged]
