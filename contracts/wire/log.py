"""The event log on JetStream: append with a fence, load one thing, follow everything. The only writer of `EVT`.

The append loop follows from how the server behaves (nats-server 2.15): a stored append that is tried again answers
10071 on one replica and `duplicate` on three; a timed-out publish may be stored, now or later. So an unclear outcome
is tried again with the same id and the same expected sequence, and what is taken is read back: was it ours?
"""

import asyncio
import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
import nats.errors
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import Header, RawStreamMsg
from nats.js.errors import APIError, NotFoundError

from contracts import subjects
from contracts.commands import Origin
from contracts.errors import Conflict, KeyReused, LogDamaged, LogFull, LoratoryError, TooLarge, Unavailable
from contracts.events import COMMIT_BYTES, SCHEMA, AnyFact, Commit, Stored, commit_id
from contracts.events.evolution import read
from contracts.subjects import Kind
from contracts.wire.publishing import MOST_AT_ONCE, PUBLISH_SECONDS, Ack, Draft, publish

GIVE_UP_SECONDS = 20.0

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True)
class Head:
    """Where the history of a thing ends: what the next append must build on."""

    sequence: int = 0
    version: int = 0
    digest: str = ""


@dataclass(frozen=True)
class History:
    """All commits of one thing, oldest first."""

    commits: Sequence[Stored] = ()

    @property
    def head(self) -> Head:
        return head_of(self.commits[-1]) if self.commits else Head()

    def facts(self) -> list[tuple[AnyFact, int]]:
        return [(fact, stored.sequence) for stored in self.commits for fact in stored.commit.facts]


def head_of(stored: Stored) -> Head:
    return Head(stored.sequence, stored.commit.version, hashlib.sha256(stored.body).hexdigest())


def decode(sequence: int, recorded: datetime, body: bytes) -> Stored:
    """A message of the log as a commit; LogDamaged if it is none, or of a type or schema this version does not know."""
    try:
        return Stored(sequence=sequence, recorded=recorded, commit=read(body), body=body)
    except msgspec.DecodeError as error:
        raise LogDamaged(f"commit {sequence} cannot be read: {error}") from error


def draw_up(  # noqa: PLR0913 - it is the envelope, spelt out
    kind: Kind,
    thing: str,
    facts: Sequence[AnyFact],
    *,
    after: Head,
    origin: Origin,
    number: int = 0,
    answer: object = None,
) -> Commit:
    """The commit that says these facts happened, on top of `after`."""
    return Commit(
        id=commit_id(origin.command, kind, thing, number),
        kind=kind,
        thing=thing,
        version=after.version + len(facts),
        at=origin.at,
        actor=origin.actor,
        command=origin.command,
        facts=tuple(facts),
        fingerprint=origin.fingerprint,
        correlation=origin.correlation or origin.command,
        causation=origin.causation or origin.command,
        traceparent=origin.traceparent,
        schema=SCHEMA,
        previous=after.digest,
        answer=msgspec.Raw(_encode(answer)),
    )


class EventLog:
    """One service's door to the log."""

    def __init__(self, bus: Client, fence: Callable[[], None] = lambda: None) -> None:
        """`fence` is asked before each try of an append, and raises when this process may write no longer."""
        self._bus = bus
        self.fence = fence
        self._js: JetStreamContext = bus.jetstream(timeout=PUBLISH_SECONDS)

    @property
    def bus(self) -> Client:
        """The connection it stands on."""
        return self._bus

    async def append(self, commit: Commit, after: Head) -> Stored:
        """Store a commit exactly once, if nothing was added to its thing since `after`.

        Conflict: somebody else was first. KeyReused: its command was another request before. LogFull: nothing more
        fits. Unavailable: the log did not answer for GIVE_UP_SECONDS; the commit may or may not be stored, and
        appending the same commit again is safe, for ever.
        """
        (stored,) = await self.append_together([(commit, after)])
        return stored

    async def append_together(self, commits: Sequence[tuple[Commit, Head]]) -> list[Stored]:
        """Store commits of several things, all or none of them, one after the other in the log; else as `append`."""
        drafts = [_draft(commit, after) for commit, after in commits]
        if len(drafts) > 1 and len({draft.subject for draft in drafts}) < len(drafts):
            raise ValueError("two commits of one thing are one commit")
        if len(drafts) > MOST_AT_ONCE:
            raise TooLarge(f"{len(drafts)} things at once are more than {MOST_AT_ONCE}; ask for less at a time")
        until = asyncio.get_running_loop().time() + GIVE_UP_SECONDS
        unclear = False
        while True:
            self.fence()
            ack = await publish(self._bus, drafts)
            if ack.verdict == "stored" and not ack.duplicate:
                return _stored(drafts, ack)
            if ack.verdict != "unclear":
                settled = await self._settled(drafts, ack, unclear=unclear)
                if settled is not None:
                    return settled
            unclear = True
            if asyncio.get_running_loop().time() > until:
                raise Unavailable("the event log does not answer", service="nats")
            await asyncio.sleep(random.uniform(0.05, 0.25))

    async def _settled(self, drafts: Sequence[Draft], ack: Ack, *, unclear: bool) -> list[Stored] | None:
        """The commits were not stored by this try: because an earlier one had stored them? None: the log is silent.

        What refuses is believed at once only if no earlier try is unclear: one that was stored counts, whatever the
        server says of its repetition.
        """
        if ack.verdict in ("stored", "taken") or unclear:
            try:
                found = [await self._found(draft, ack) for draft in drafts]
            except Unavailable:
                return None
            if None not in found:
                return [stored for stored in found if stored is not None]
        raise _refusal(ack)

    async def _found(self, draft: Draft, ack: Ack) -> Stored | None:
        """This very commit, if the log has it. Stored on its `after`, it can stand only right behind that.

        `duplicate` says only that the stream has seen the id, and where: perhaps on an older head, by an earlier life.
        """
        if ack.duplicate:
            message = await self._message(seq=ack.seq)
            if message is None:
                raise LogDamaged(f"the log calls {draft.commit.id} a duplicate of {ack.seq}, where nothing is")
        else:
            message = await self._message(seq=draft.after + 1, subject=draft.subject, next=True)
        if message is None or message.subject != draft.subject:
            return None
        if (message.headers or {}).get(Header.MSG_ID) != draft.commit.id:
            return None
        stored = _decoded(message)
        if stored.commit.fingerprint != draft.commit.fingerprint:
            raise KeyReused
        return stored

    async def load(self, kind: Kind, thing: str, since: History | None = None) -> History:
        """The whole history of a thing (or `since` and what came after it), as the stream's leader has it."""
        commits = list(since.commits) if since else []
        sequence = commits[-1].sequence if commits else 0
        subject = subjects.fact(kind, thing)
        while message := await self._message(seq=sequence + 1, subject=subject, next=True):
            commits.append(_decoded(message))
            sequence = commits[-1].sequence
        return History(commits)

    async def stored(self, sequence: int) -> Stored | None:
        """One commit by its place; None where the log has nothing there."""
        message = await self._message(seq=sequence)
        return None if message is None else _decoded(message)

    async def _message(self, **wanted: Any) -> RawStreamMsg | None:
        """From the leader, not from a replica that may be behind."""
        try:
            return await self._js.get_msg(subjects.FACTS, **wanted)
        except NotFoundError:
            return None
        except (nats.errors.Error, APIError, OSError) as error:
            raise Unavailable("the event log does not answer", service="nats") from error

    async def end(self) -> tuple[str, int]:
        """(log id, sequence of the newest commit). The id stands in the stream's metadata, made once."""
        try:
            info = await self._js.stream_info(subjects.FACTS)
        except NotFoundError as error:
            raise LogDamaged("there is no event log on this server; run the migrate step") from error
        except (nats.errors.Error, APIError, OSError) as error:
            raise Unavailable("the event log does not answer", service="nats") from error
        return (info.config.metadata or {}).get("log_id", ""), info.state.last_seq


def _decoded(message: RawStreamMsg) -> Stored:
    return decode(message.seq or 0, message.time or datetime.now(UTC), message.data or b"")


def _draft(commit: Commit, after: Head) -> Draft:
    body = _encode(commit)
    if len(body) > COMMIT_BYTES:
        raise TooLarge(f"a commit of {len(body)} bytes is more than {COMMIT_BYTES}; ask for less at a time")
    return Draft(commit, after.sequence, body, subjects.fact(commit.kind, commit.thing))


def _stored(drafts: Sequence[Draft], ack: Ack) -> list[Stored]:
    """A batch takes sequences without a gap, in its order."""
    now, first = datetime.now(UTC), ack.seq - len(drafts) + 1
    return [
        Stored(sequence=sequence, recorded=now, commit=draft.commit, body=draft.body)
        for sequence, draft in enumerate(drafts, start=first)
    ]


def _refusal(ack: Ack) -> LoratoryError:
    """What to raise for an answer that says no."""
    said = f"{ack.error.err_code} {ack.error.description}" if ack.error else "its id is taken by another commit"
    match ack.verdict:
        case "taken":
            return Conflict()
        case "full":
            return LogFull(said)
        case "too large":
            return TooLarge(said)
        case "wrong stream":
            return LogDamaged(f"another stream takes what belongs into the event log: {said}")
        case _:
            return LoratoryError(f"the log refused a commit: {said}")
