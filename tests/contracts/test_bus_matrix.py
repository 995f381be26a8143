"""Every attack of `bus_attacks` with every service's key: refused or harmless, on one server and on a cluster of three.

The streams, their messages, configurations and consumers are compared before and after, and so is what others receive.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nats.errors
import pytest
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig
from nats.js.errors import NotFoundError

from contracts import subjects
from contracts.commits import Commit, StreamRevision
from contracts.subjects import Priority, WorkClass
from contracts.wire.log.event_log import EventLog, LogTimings
from contracts.wire.log.migration import migrate
from contracts.wire.server.accounts import SERVICES, Role, permissions
from contracts.wire.service.bus import Bus
from contracts.wire.workers.queue import QueueMessage, WorkQueue
from tests.conftest import NOW, BusOf
from tests.contracts.bus_attacks import (
    ATTACKS,
    FALSE_ACK,
    FOLLOWER,
    POTENT,
    STREAMS,
    VICTIM_APPENDS,
    Attack,
    Attacker,
    run_all,
    victim_commit,
)
from tests.contracts.cluster import Cluster
from tests.limits import WAIT


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with Cluster(tmp_path) as running:
        yield running


LEASE = 600.0
"""Seconds: no message of the queue is delivered again during a test."""
CONTROL_PUBLISH = ("evt.job.*", "met.job.*")
LAST = b"last"
"""Stored after all that was sent before it."""


def matches(pattern: str, subject: str) -> bool:
    expected, tokens = pattern.split("."), subject.split(".")
    if expected[-1] == ">":
        expected, tokens = expected[:-1], tokens[: len(expected) - 1]
    return len(expected) == len(tokens) and all(w in {"*", t} for w, t in zip(expected, tokens, strict=True))


def may_send(role: str, subject: str) -> bool:
    allowed = CONTROL_PUBLISH if role == "admin" else permissions(role).publish  # type: ignore[arg-type]  # of the bodies
    return any(matches(pattern, subject) for pattern in allowed)


def is_work(subject: str) -> bool:
    """A message that the workers of its class may take and end."""
    return subject.startswith(("jobs.train.low.", "jobs.tag.low."))


@dataclass(frozen=True)
class Store:
    """All that JetStream holds."""

    configs: dict[str, Any]
    consumers: dict[str, Any]
    messages: dict[tuple[str, int], tuple[str, bytes]]


async def read_store(admin: Bus) -> Store:
    js = admin.jetstream(timeout=10)
    configs, consumers, messages = {}, {}, {}
    for info in await js.streams_info():
        name = str(info.config.name)
        configs[name] = info.config.as_dict() | {"created": str(info.created)}
        with contextlib.suppress(KeyError):  # as nats-py fails for a stream whose consumers are just being deleted
            for consumer in await js.consumers_info(name):
                consumers[f"{name}.{consumer.name}"] = consumer.config.as_dict()
        for sequence in range(info.state.first_seq, info.state.last_seq + 1):
            with contextlib.suppress(NotFoundError):
                messages[name, sequence] = await read_message(js, name, sequence)
    return Store(configs, consumers, messages)


async def read_message(js: JetStreamContext, stream: str, sequence: int) -> tuple[str, bytes]:
    """Its subject and body."""
    for _ in range(3):
        with contextlib.suppress(KeyError):  # nats-py fails so if a message that an attack diverted is the answer
            message = await js.get_msg(stream, seq=sequence)
            return str(message.subject), message.data or b""
    raise AssertionError(f"three answers about message {sequence} of {stream} that are none")


def holes_in(before: Store, after: Store, genuine: set[bytes]) -> list[str]:
    """What nobody may have done: `genuine` are the bodies of others' appends in the meantime."""
    holes = [
        f"the configuration of {name} changed"
        for name in before.configs.keys() | after.configs.keys()
        if before.configs.get(name) != after.configs.get(name)
    ]
    holes += [
        f"the consumer {name} changed"
        for name in before.consumers.keys() | after.consumers.keys()
        if before.consumers.get(name) != after.consumers.get(name)
    ]
    holes += [
        f"{place} is gone or was replaced"
        for place, message in before.messages.items()
        if after.messages.get(place) != message and not (place not in after.messages and is_work(message[0]))
    ]
    for place in after.messages.keys() - before.messages.keys():
        subject, body = after.messages[place]
        own, _, role = body.decode(errors="replace").partition(" ")
        if not body:  # then the subject says whose it is
            own, role = "own", subject.rpartition(".")[2].partition("-")[0]
        if body not in genuine and not (own == "own" and may_send(role, subject)):
            holes.append(f"{place} stored under {subject}: {body[:60]!r}")
    return holes


@dataclass
class Witness:
    """What was received in one account that should not have been."""

    bus: Bus
    holes: list[str] = field(default_factory=list)

    async def start(self) -> None:
        everything = [">"] if self.bus.role == "admin" else permissions(self.bus.role).subscribe  # type: ignore[arg-type]
        for subject in everything:
            if not subject.startswith(("cmd.", "qry.", "key.", "$SRV.")):
                await self.bus.subscribe(subject, cb=self._on_message)
        await self.bus.flush()

    async def _on_message(self, message: Msg) -> None:
        own, _, role = message.data.decode(errors="replace").partition(" ")
        if message.data == FALSE_ACK and message.subject.startswith("_INBOX"):
            self.holes.append(f"{self.bus.role} received a false acknowledgement at {message.subject}")
        is_reply = message.subject.startswith("_R_.")  # to the request of whoever asked, in its own account
        if own == "own" and not is_reply and not may_send(role, message.subject):
            self.holes.append(f"{self.bus.role} received {message.subject} from {role}")
        # Who receives telemetry replies to none, so a reply subject matters only where streams are.
        if self.bus.role == "admin" and message.reply.startswith(("evt.", "$KV.", "$JS.API.", "jobs.", "lit.")):
            self.holes.append(f"{self.bus.role} was to reply to {message.reply} for {message.subject}")


async def serve_as_catalog(bus: Bus) -> None:
    """The worst deputy: it replies with whatever it was sent."""

    async def answer(request: Msg) -> None:
        if request.reply:
            await bus.publish(request.reply, request.data, headers=request.headers)

    for subject in ("cmd.catalog.*", "qry.catalog.*", "key.tagger", "key.trainer"):
        await bus.subscribe(subject, queue="catalog", cb=answer)
    await bus.flush()


async def seed(admin: Bus, catalog: Bus) -> dict[str, str]:
    """Something to attack in every stream; where the messages of the queue are acknowledged, which `admin` holds."""
    acks: dict[str, str] = {}
    works: tuple[tuple[WorkClass, str], ...] = (("train", "j1"), ("tag", "t1"))
    priorities: tuple[Priority, ...] = ("high", "low")
    for work, job in works:
        await WorkQueue(catalog, work).put(QueueMessage(id=f"{job}-more", dispatch=1), "low")
        for priority in priorities:
            queue = WorkQueue(catalog, work)
            await queue.put(QueueMessage(id=f"{job}-{priority}", dispatch=1), priority)
        delivery = await WorkQueue(admin, work).fetch()
        assert delivery is not None
        acks[work] = delivery._raw.reply
    await append_as(catalog, victim_commit(VICTIM_APPENDS))
    await admin.jetstream().publish(subjects.metrics("j1"), b"{}")
    await catalog.request(subjects.WRITER, b'{"holder":"somebody"}', timeout=WAIT)
    config = ConsumerConfig(durable_name=FOLLOWER, ack_policy="all")  # type: ignore[arg-type]
    await admin.jetstream().add_consumer(subjects.EVENTS, config)
    return acks


async def append_as(catalog: Bus, commit: Commit) -> bytes:
    """A genuine append, whose acknowledgement must be genuine as well. The body that was stored."""
    log = EventLog(catalog, timings=LogTimings(publish=WAIT))  # the server is busy with attacks
    recorded = await log.append(commit, StreamRevision())
    stored = await log.commit_at(recorded.sequence)
    assert stored is not None and stored.body == recorded.body
    return recorded.body


async def use_meanwhile(catalog: Bus, gateway: Bus) -> set[bytes]:
    """What services do while they are attacked; the bodies of their appends."""
    bodies = set()
    for number in range(VICTIM_APPENDS):
        bodies.add(await append_as(catalog, victim_commit(number)))
        question = f"question {number}".encode()
        reply = await gateway.request("qry.catalog.get_job", question, timeout=WAIT)
        assert reply.data == question
        await asyncio.sleep(0.05)
    return bodies


async def find_holes(connect_as: BusOf, roles: Sequence[Role], attacks: Sequence[Attack]) -> str:
    """Prepares the streams, attacks them, and compares; what was done or learnt, a line each."""
    admin, catalog, gateway = await connect_as("admin"), await connect_as("catalog"), await connect_as("gateway")
    await serve_as_catalog(catalog)
    if "admin" in roles:
        await serve_as_catalog(admin)
    acks = await seed(admin, catalog)
    before = await read_store(admin)
    witnesses = [Witness(await connect_as(role)) for role in ("admin", *SERVICES)]
    for witness in witnesses:
        await witness.start()
    attackers = [
        (Attacker(await connect_as(role), role, attack.__name__, acks), attack) for role in roles for attack in attacks
    ]
    genuine: set[bytes] = set()
    if "admin" in roles:  # whoever may do everything also ends what the others do
        await run_all(attackers)
    else:
        genuine, _ = await asyncio.gather(use_meanwhile(catalog, gateway), run_all(attackers))
    with contextlib.suppress(nats.errors.Error):  # the log may be gone
        await admin.jetstream().publish("evt.log.last", LAST, timeout=1)
    for witness in witnesses:
        await witness.bus.flush()
    holes = holes_in(before, await read_store(admin), genuine | {LAST})
    holes += [hole for witness in witnesses for hole in witness.holes]
    holes += [f"{attacker.id} learnt {leak}" for attacker, _ in attackers for leak in attacker.leaks]
    return "\n".join(sorted(set(holes)))


@pytest.mark.slow
async def test_no_service_can_do_what_is_not_its_own(bus_of: BusOf) -> None:
    await migrate(await bus_of("admin"), at=NOW, lease=LEASE)
    assert await find_holes(bus_of, SERVICES, ATTACKS) == ""


@pytest.mark.slow
@pytest.mark.parametrize("attack", POTENT, ids=lambda attack: attack.__name__)
async def test_the_same_attack_succeeds_for_who_may_do_everything(bus_of: BusOf, attack: Attack) -> None:
    """Otherwise it would prove nothing."""
    await migrate(await bus_of("admin"), at=NOW, lease=LEASE)
    assert await find_holes(bus_of, ["admin"], [attack]) != ""


@asynccontextmanager
async def connections(open_as: Callable[[Role], Any]) -> AsyncIterator[BusOf]:
    async with AsyncExitStack() as stack:

        async def connect_as(role: Role) -> Bus:
            bus: Bus = await open_as(role)
            return await stack.enter_async_context(bus)

        yield connect_as


@pytest.mark.slow
async def test_nor_on_a_cluster_of_three_whichever_server_it_connects_to(cluster: Cluster) -> None:
    async with connections(cluster.connect) as connect_as:
        admin = await connect_as("admin")
        await migrate(admin, at=NOW, lease=LEASE)
        await cluster.replicate(admin, STREAMS)
        assert await find_holes(connect_as, SERVICES, ATTACKS) == ""
