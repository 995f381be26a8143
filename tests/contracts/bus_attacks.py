"""What somebody with one service's key may try on the bus: each attack is a function, and names what it aims at.

What an attacker may store or send in its own name is its `body`; everything else that appears anywhere is a hole.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field

import nats.errors
from nats.aio.msg import Msg

from contracts import subjects
from contracts.aggregates import WORK_KINDS
from contracts.commits import Commit, StreamRevision, build_commit
from contracts.events.jobs import JobQueued
from contracts.subjects import IMPORTED_API, STORE_API
from contracts.wire.log.streams import CONSUMERS
from contracts.wire.server.accounts import Role
from contracts.wire.service.bus import Bus
from tests.conftest import command_metadata

FORGED = b"forged"
FALSE_ACK = b'{"stream":"EVT","seq":666}'
STREAMS = (subjects.EVENTS, subjects.QUEUE, subjects.METRICS, subjects.LEASES)
OWN_APPEND = {"catalog": "evt.dataset.{}", "tagger": "evt.tagging.{}", "trainer": "evt.job.{}"}
QUEUE_CONSUMERS = [f"{subjects.QUEUE}.{subjects.queue_consumer(*consumer)}" for consumer in CONSUMERS]
FOLLOWER = "follower"
"""A consumer of the log that somebody else uses."""
VICTIM_APPENDS = 20
ANSWER_SECONDS = 0.5
"""How long an attacker waits for an answer that it should not get."""


@dataclass
class Attacker:
    """One attack by one role. `leaks`: what it learnt and must not know."""

    bus: Bus
    role: Role
    name: str
    acks: dict[str, str]
    """Where a message of the queue that another worker holds is acknowledged, by class of work."""
    leaks: list[str] = field(default_factory=list)
    questions: list[asyncio.Task[bytes]] = field(default_factory=list)

    @property
    def id(self) -> str:
        return f"{self.role}-{self.name}".replace("_", "-")

    @property
    def body(self) -> bytes:
        return f"own {self.role}".encode()

    @property
    def foreign(self) -> str:
        """A subject that this role may not write."""
        return f"evt.{'log' if self.role == 'catalog' else 'dataset'}.{self.id}"

    @property
    def own(self) -> str:
        """A subject that this role may write; for the gateway one of the trainer."""
        return OWN_APPEND.get(self.role, "evt.job.{}").format(self.id)

    async def send(self, subject: str, body: bytes | None = None, /, *, reply: str = "", **headers: str) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        await self.bus.publish(subject, self.body if body is None else body, reply=reply, headers=named or None)

    def ask(self, subject: str, body: bytes = b"") -> asyncio.Task[bytes]:
        """The answer; empty if there is none."""
        self.questions.append(asyncio.create_task(self._ask(subject, body)))
        return self.questions[-1]

    async def _ask(self, subject: str, body: bytes) -> bytes:
        try:
            return (await self.bus.request(subject, body, timeout=ANSWER_SECONDS)).data
        except nats.errors.Error:
            return b""

    async def listen(self, subject: str, *, queue: str = "") -> None:
        """Whatever arrives is a leak, and is answered."""

        async def on_message(message: Msg) -> None:
            if message.data != self.body:
                self.leaks.append(f"{message.subject} {message.data[:40]!r}")
            if message.reply:
                await self.send(message.reply, FALSE_ACK)

        await self.bus.subscribe(subject, queue=queue, cb=on_message)


def victim_id(number: int) -> str:
    """The id of a command that the catalog executes while it is attacked, as a client may have announced it."""
    return f"victim-{number}"


def victim_commit(number: int) -> Commit:
    metadata = command_metadata(victim_id(number))
    return build_commit(
        "job", victim_id(number), [JobQueued(priority="low")], expected_revision=StreamRevision(), metadata=metadata
    )


Attack = Callable[[Attacker], Awaitable[None]]


def api(request: str) -> Iterator[str]:
    """By the name in the store's account, and by that in the others."""
    yield f"{STORE_API}.{request}"
    yield f"{IMPORTED_API}.{request}"


async def each_request(attack: Attacker, reply: str, body: bytes | None = None) -> None:
    """Everything that somebody answers, with this reply subject."""
    requests = [
        ("INFO", b""),
        *((f"STREAM.INFO.{stream}", b"") for stream in STREAMS),
        *((f"STREAM.MSG.GET.{stream}", b'{"seq":1}') for stream in STREAMS),
        *((f"DIRECT.GET.{stream}", b'{"seq":1,"batch":10}') for stream in STREAMS),
        *((f"CONSUMER.MSG.NEXT.{consumer}", b'{"batch":1,"no_wait":true}') for consumer in QUEUE_CONSUMERS),
    ]
    for request, content in requests:
        for subject in api(request):
            await attack.send(subject, content, reply=reply)
    for subject in (attack.own, "qry.catalog.get_job", "cmd.catalog.dataset", "key.trainer", "key.tagger"):
        await attack.send(subject, body, reply=reply)
    for subject in ("$SRV.PING", "$SRV.INFO", "$SRV.STATS.loratory-catalog"):
        await attack.send(subject, b"", reply=reply)
    for subject in ("prog.train.j1", "prog.tag.t1", "wrk.trainer.w1", "wrk.tagger.w1", "ctl.train.j1", "news.applied"):
        await attack.send(subject, reply=reply)


# --- forged messages


async def direct_append(attack: Attacker) -> None:
    await attack.send(attack.foreign, FORGED)
    attack.ask(attack.foreign, FORGED)


async def reply_names_another_aggregate(attack: Attacker) -> None:
    await each_request(attack, attack.foreign)


async def reply_delivers_own_bytes(attack: Attacker) -> None:
    """Bytes of one's own choice in a stream, delivered from there under another subject."""
    stored = subjects.metrics(attack.id)
    attack.ask(stored, attack.body)
    attack.ask(attack.own, attack.body)
    for stream, subject in ((subjects.METRICS, stored), (subjects.EVENTS, attack.own)):
        for body in ({"last_by_subj": subject}, {"seq": 1, "batch": 1000, "next_by_subj": subject}):
            for request in (*api(f"DIRECT.GET.{stream}"), *api(f"STREAM.MSG.GET.{stream}")):
                await attack.send(request, json.dumps(body).encode(), reply=attack.foreign)


async def catalog_as_deputy(attack: Attacker) -> None:
    """The catalog of this test answers with the body and headers of the request."""
    for subject in ("qry.catalog.get_job", "cmd.catalog.dataset", "key.trainer", "key.tagger"):
        await attack.send(subject, FORGED, reply=attack.foreign, Nats_Msg_Id=attack.id)


async def self_permitted_reply(attack: Attacker) -> None:
    inbox = f"{subjects.inbox(attack.role)}.{attack.id}"

    async def answer(message: Msg) -> None:
        await attack.send(message.reply, FORGED)

    for subject in (inbox, f"prog.train.{attack.id}", f"news.{attack.id}", f"$SRV.{attack.id}", attack.own):
        await attack.bus.subscribe(subject, cb=answer)
    for subject in (inbox, f"prog.train.{attack.id}", f"$SRV.{attack.id}", attack.own):
        await attack.send(subject, reply=attack.foreign)


async def push_consumer(attack: Attacker) -> None:
    for deliver in (attack.foreign, f"lit.{attack.id}", f"ctl.train.{attack.id}", subjects.inbox("catalog")):
        for stream in STREAMS:
            config = {"deliver_subject": deliver, "deliver_policy": "all", "ack_policy": "none"}
            body = json.dumps({"stream_name": stream, "config": config}).encode()
            for request in (*api(f"CONSUMER.CREATE.{stream}"), *api(f"CONSUMER.CREATE.{stream}.{attack.id}")):
                attack.ask(request, body)


async def trace_and_schedule_headers(attack: Attacker) -> None:
    schedule = {"Nats_Schedule": "@at 2020-01-01T00:00:00Z", "Nats_Schedule_Target": attack.foreign}
    for subject in (
        attack.own,
        subjects.metrics(attack.id),
        "jobs.train.high.x",
        subjects.WRITER,
        "qry.catalog.get_job",
    ):
        if subject not in {"jobs.train.high.x", subjects.WRITER} or attack.role != "catalog":
            await attack.send(subject, Nats_Trace_Dest=attack.foreign)
            await attack.send(subject, Nats_Trace_Dest=attack.foreign, Nats_Trace_Only="true")
            await attack.send(subject, traceparent=f"00-{'1' * 32}-{'2' * 16}-01", Nats_Trace_Dest=attack.foreign)
            await attack.send(subject, **schedule)
            await attack.send(subject, Nats_Rollup="all")
            await attack.send(subject, Nats_Rollup="sub")
            await attack.send(subject, Nats_TTL="1s")
            await attack.send(subject, Nats_Incr="1")


async def batch_with_a_foreign_member(attack: Attacker) -> None:
    """An atomic batch that begins under one's own subject."""
    for number, subject in enumerate((attack.own, attack.foreign, attack.own), start=1):
        commit = {"Nats_Batch_Commit": "1"} if number == 3 else {}
        batch = {"Nats_Batch_Id": attack.id, "Nats_Batch_Sequence": str(number)}
        await attack.send(subject, None if subject == attack.own else FORGED, **batch, **commit)


async def taken_message_ids(attack: Attacker) -> None:
    """A stream swallows a message whose id it has seen, and says that it has it."""
    for number in range(VICTIM_APPENDS):
        for message_id in (victim_commit(number).id, victim_id(number)):
            await attack.send(attack.own, Nats_Msg_Id=message_id)
            await attack.send(subjects.metrics(attack.id), Nats_Msg_Id=message_id)


async def subjects_with_wildcards(attack: Attacker) -> None:
    """A server that is not pedantic takes a wildcard in the subject of a message literally."""
    kind = "log" if attack.role == "catalog" else "dataset"
    for subject in (f"evt.*.{attack.id}", "evt.*.*", "evt.>", ">", f"evt.{kind}.*", f"evt.{kind}.>", "$JS.API.>"):
        await attack.send(subject, FORGED, reply=attack.foreign)


async def reserved_replies(attack: Attacker) -> None:
    for reply in (f"$JS.ACK.{attack.id}", f"_R_.{attack.id}", f"_GR_.{attack.id}", "$JS.API.INFO"):
        try:
            await each_request(attack, reply)
        except nats.errors.Error:  # the server ends the connection of whoever names one of these
            return


# --- streams, consumers, the lease


async def destroying_replies(attack: Attacker) -> None:
    """The server refuses such a request if it has a content, so an empty message is stored first."""
    stored = [(subjects.METRICS, subjects.metrics(attack.id)), (subjects.EVENTS, attack.own)]
    await asyncio.gather(*(attack.ask(subject) for _, subject in stored))
    for stream in STREAMS:
        for verb in ("DELETE", "PURGE"):
            reply = f"{STORE_API}.STREAM.{verb}.{stream}"
            await each_request(attack, reply, b"")
            for source, subject in stored:
                last = json.dumps({"last_by_subj": subject}).encode()
                for request in (*api(f"DIRECT.GET.{source}"), *api(f"STREAM.MSG.GET.{source}")):
                    await attack.send(request, last, reply=reply)


async def lease(attack: Attacker) -> None:
    for key in ("$KV.catalog.other", *(() if attack.role == "catalog" else (subjects.WRITER,))):
        await attack.send(key, FORGED)
        attack.ask(key, FORGED)
        await each_request(attack, key)


async def consumers(attack: Attacker) -> None:
    for stream in STREAMS:
        for ack in ("explicit", "none"):
            config = {"durable_name": attack.id, "ack_policy": ack, "deliver_policy": "all"}
            body = json.dumps({"stream_name": stream, "config": config}).encode()
            for request in (f"CONSUMER.DURABLE.CREATE.{stream}.{attack.id}", f"CONSUMER.CREATE.{stream}.{attack.id}"):
                for subject in api(request):
                    attack.ask(subject, body)
        attack.ask(f"{STORE_API}.CONSUMER.MSG.NEXT.{stream}.{attack.id}", b'{"batch":10,"no_wait":true}')


async def consumers_of_others(attack: Attacker) -> None:
    for consumer in (f"{subjects.EVENTS}.{FOLLOWER}", *QUEUE_CONSUMERS):
        for verb in ("DELETE", "PAUSE", "UNPIN", "RESET", "LEADER.STEPDOWN"):
            body = {"PAUSE": b'{"pause_until":"2099-01-01T00:00:00Z"}', "RESET": b'{"seq":1}'}.get(verb, b"")
            for subject in api(f"CONSUMER.{verb}.{consumer}"):
                attack.ask(subject, body)


async def acks_of_others(attack: Attacker) -> None:
    for work, subject in attack.acks.items():
        if (attack.role, work) not in {("trainer", "train"), ("tagger", "tag")}:
            for word in (b"+ACK", b"+TERM", b"-NAK"):
                await attack.send(subject, word)
    await attack.send(f"$JS.ACK.{subjects.EVENTS}.{FOLLOWER}.1.1.1.1.1", b"+ACK")
    await attack.send(f"$JS.FC.{subjects.EVENTS}.{FOLLOWER}.x")


async def acknowledged_with_a_request_for_more(attack: Attacker) -> None:
    """`+NXT` acknowledges a message and asks for the next, to be delivered to the reply subject."""
    for work in WORK_KINDS:
        consumer = f"{subjects.QUEUE}.{subjects.queue_consumer(work, 'low')}"
        try:
            request = f"{attack.bus.api}.CONSUMER.MSG.NEXT.{consumer}"
            message = await attack.bus.request(request, b"1", timeout=ANSWER_SECONDS, old_style=True)
            subject = message.reply or f"$JS.ACK.{consumer}.1.1.1.1.1"
        except nats.errors.Error:
            subject = f"$JS.ACK.{consumer}.1.1.1.1.1"
        await attack.send(subject, b'+NXT {"batch":1}', reply=attack.foreign)


async def changed_streams(attack: Attacker) -> None:
    for stream in STREAMS:
        republish = {"src": ">", "dest": f"evt.{attack.id}.>"}
        config = {"name": stream, "subjects": [f"mine.{attack.id}"], "republish": republish, "storage": "file"}
        bodies = {"UPDATE": json.dumps(config), "CREATE": json.dumps(config), "MSG.DELETE": '{"seq":1}'}
        verbs = ["UPDATE", "CREATE", "DELETE", "MSG.DELETE", "SNAPSHOT", "RESTORE", "LEADER.STEPDOWN", "PEER.REMOVE"]
        if not (attack.role == "catalog" and stream == subjects.QUEUE):
            verbs.append("PURGE")
        for verb in verbs:
            body = bodies.get(verb, json.dumps({"deliver_subject": attack.foreign, "peer": "n2"})).encode()
            for subject in api(f"STREAM.{verb}.{stream}"):
                attack.ask(subject, body)


async def new_streams(attack: Attacker) -> None:
    name = attack.id.upper()
    sources = [{"name": stream} for stream in STREAMS]
    for config in ({"subjects": [f"{attack.id}.>", "evt.>"]}, {"sources": sources}, {"mirror": sources[0]}):
        body = json.dumps({"name": name, "storage": "file"} | config).encode()
        for subject in api(f"STREAM.CREATE.{name}"):
            attack.ask(subject, body)


async def the_server_itself(attack: Attacker) -> None:
    for request in ("META.LEADER.STEPDOWN", "SERVER.REMOVE", "ACCOUNT.PURGE.LORATORY", "STREAM.TEMPLATE.CREATE.t"):
        for subject in api(request):
            attack.ask(subject, b"{}")
    for subject in ("$SYS.REQ.SERVER.PING", "$SYS.REQ.ACCOUNT.LORATORY.CONNZ", "$SYS.REQ.USER.INFO"):
        if await attack.ask(subject) and not subject.endswith("USER.INFO"):  # that one is about oneself
            attack.leaks.append(f"{subject} answered")


# --- hearing and speaking for others


async def names_of_streams(attack: Attacker) -> None:
    for request in (
        "STREAM.NAMES",
        "STREAM.LIST",
        *(f"CONSUMER.{verb}.{s}" for s in STREAMS for verb in ("NAMES", "LIST")),
    ):
        for subject in api(request):
            if b'"total"' in (answer := await attack.ask(subject)) and b'"total":0' not in answer.replace(b" ", b""):
                attack.leaks.append(f"{subject} answered {answer[:80]!r}")


async def messages_of_foreign_streams(attack: Attacker) -> None:
    readable = {subjects.EVENTS, *((subjects.QUEUE, subjects.LEASES) if attack.role == "catalog" else ())}
    foreign = [request for stream in STREAMS if stream not in readable for request in api(f"STREAM.MSG.GET.{stream}")]
    asked = {request: attack.ask(request, b'{"seq":1}') for request in foreign}
    for request, answer in asked.items():
        if b'"message"' in await answer:
            attack.leaks.append(f"{request} answered")


async def eavesdropping(attack: Attacker) -> None:
    wide = ["evt.>", "jobs.>", "$KV.>", "met.>", "_INBOX.>", "_INBOX_admin.>", ">", "$JS.>", "_R_.>", "$SRV.>", "lit.>"]
    wide += [f"_INBOX_{role}.>" for role in ("catalog", "gateway", "tagger", "trainer") if role != attack.role]
    if attack.role != "catalog":
        wide += ["cmd.>", "qry.>", "key.>"]
    for subject in wide:
        await attack.listen(subject)


async def hijacked_queue_group(attack: Attacker) -> None:
    """Requests are shared out to the members of the catalog's group: one more would get its part of them."""
    if attack.role != "catalog":
        for subject in ("cmd.catalog.dataset", "cmd.catalog.*", "qry.catalog.get_job", "qry.catalog.*", "key.trainer"):
            await attack.listen(subject, queue="catalog")


async def false_acknowledgement(attack: Attacker) -> None:
    for role in ("admin", "catalog", "gateway", "tagger", "trainer"):
        if role != attack.role:
            for number in range(20):
                await attack.send(f"{subjects.inbox(role)}.{number}", FALSE_ACK)
                await attack.send(f"{subjects.inbox(role)}.victim.{number}", FALSE_ACK)


async def messages_in_anothers_name(attack: Attacker) -> None:
    spoken = ["prog.train.j1", "prog.tag.t1", "wrk.trainer.w1", "wrk.tagger.w1", "ctl.train.j1", "ctl.tag.t1"]
    for subject in (*spoken, "news.applied", "news.erased", "news.appended.trainer", "news.appended.tagger"):
        await attack.send(subject)


POTENT: Sequence[Attack] = (
    direct_append,
    reply_names_another_aggregate,
    reply_delivers_own_bytes,
    catalog_as_deputy,
    push_consumer,
    trace_and_schedule_headers,
    batch_with_a_foreign_member,
    destroying_replies,
    lease,
    consumers,
    consumers_of_others,
    acks_of_others,
    acknowledged_with_a_request_for_more,
    changed_streams,
    new_streams,
    names_of_streams,
    messages_of_foreign_streams,
    eavesdropping,
    self_permitted_reply,
    subjects_with_wildcards,
)
"""Attacks that succeed for whoever may publish and subscribe to everything: so a test can see that they are attacks."""
ATTACKS: Sequence[Attack] = (
    *POTENT,
    reserved_replies,
    the_server_itself,
    hijacked_queue_group,
    false_acknowledgement,
    messages_in_anothers_name,
    taken_message_ids,
)


async def run_all(attackers: Sequence[tuple[Attacker, Attack]]) -> None:
    """All at once; a connection that the server ends is the end of that attack."""

    async def run(attacker: Attacker, attack: Attack) -> None:
        try:
            await attack(attacker)
            await asyncio.gather(*attacker.questions)
            await attacker.bus.flush()
        except nats.errors.Error:
            pass

    await asyncio.gather(*(run(attacker, attack) for attacker, attack in attackers))
