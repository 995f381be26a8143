"""The event log on JetStream: append with a fence, load one thing, follow everything. The only writer of `EVT`.

The append loop follows from how the server behaves (nats-server 2.15): a stored append that is tried again answers
10071 on one replica and `duplicate` on three; a timed-out publish may be stored, now or later. So an ambiguous outcome
is tried again with the same id and the same expected sequence, and a conflict reads back whether it was ours.
"""

import asyncio
import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec
import nats.errors
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import Header, RawStreamMsg
from nats.js.errors import APIError, NoStreamResponseError, NotFoundError, ServerError

from contracts import subjects
from contracts.commands import Origin
from contracts.errors import Conflict, LogDamaged, LogFull, LoratoryError, TooLarge, Unavailable
from contracts.events import COMMIT_BYTES, AnyFact, Commit, Stored, commit_id
from contracts.subjects import Kind

WRONG_SEQUENCE = frozenset({10071, 10164})
FULL = frozenset({10077, 10023, 10047})
DEFINITE = frozenset({10054, 10060})
PUBLISH_SECONDS = 2.0
GIVE_UP_SECONDS = 20.0
SCAN_LIMIT = 1000
"""So many commits of other writers are looked through for one's own before an append counts as lost."""

_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(Commit)


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
    """A message of the log as a commit; LogDamaged if it is none, or of a type this version does not know."""
    try:
        return Stored(sequence=sequence, recorded=recorded, commit=_decoder.decode(body), body=body)
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

        Conflict: somebody else was first. LogFull: nothing more fits. Unavailable: the log did not answer for
        GIVE_UP_SECONDS; the commit may or may not be stored, and appending the same commit again is safe.
        """
        body = _encode(commit)
        if len(body) > COMMIT_BYTES:
            raise TooLarge(f"a commit of {len(body)} bytes is more than {COMMIT_BYTES}; ask for less at a time")
        deadline = asyncio.get_running_loop().time() + GIVE_UP_SECONDS
        while True:
            self.fence()
            sequence = await self._try(commit, after, body)
            if sequence is not None:
                return Stored(sequence=sequence, recorded=datetime.now(UTC), commit=commit, body=body)
            if asyncio.get_running_loop().time() > deadline:
                raise Unavailable("the event log does not answer", service="nats")
            await asyncio.sleep(random.uniform(0.05, 0.25))

    async def _try(self, commit: Commit, after: Head, body: bytes) -> int | None:
        """One try: the sequence, or None where the outcome is unknown."""
        subject = subjects.fact(commit.kind, commit.thing)
        headers: dict[str, str] = {
            Header.MSG_ID: commit.id,
            Header.EXPECTED_LAST_SUBJECT_SEQUENCE: str(after.sequence),
        }
        try:
            ack = await self._js.publish(subject, body, timeout=PUBLISH_SECONDS, stream=subjects.FACTS, headers=headers)
            if ack.duplicate:
                return await self._stored_as(commit, subject, ack.seq)
            return ack.seq
        except APIError as error:
            if error.err_code in WRONG_SEQUENCE:
                return await self._found_again(commit, subject, after)
            if error.err_code in FULL:
                raise LogFull(error.description or "") from error
            if isinstance(error, ServerError | NoStreamResponseError) or error.code == 503:
                return None
            raise LoratoryError(f"the log refused a commit: {error.err_code} {error.description}") from error
        except (nats.errors.TimeoutError, NoStreamResponseError, nats.errors.ConnectionReconnectingError, OSError):
            return None

    async def _stored_as(self, commit: Commit, subject: str, sequence: int) -> int:
        """`duplicate` means only that the id was seen in the stream: was it this very commit?"""
        message = await self._message(sequence)
        if message.subject == subject and (message.headers or {}).get(Header.MSG_ID) == commit.id:
            return sequence
        raise Conflict(f"the id {commit.id} is taken by another commit")

    async def _found_again(self, commit: Commit, subject: str, after: Head) -> int | None:
        """The expected sequence was wrong: because an earlier try of ours was stored, or because another was first?"""
        sequence = after.sequence
        try:
            for _ in range(SCAN_LIMIT):
                message = await self._js.get_msg(subjects.FACTS, seq=sequence + 1, subject=subject, next=True)
                sequence = message.seq or 0
                if (message.headers or {}).get(Header.MSG_ID) == commit.id:
                    return sequence
        except NotFoundError:
            pass  # the end of its history: our commit is not in it
        except (nats.errors.TimeoutError, ServerError, APIError):
            return None
        raise Conflict

    async def _message(self, sequence: int) -> RawStreamMsg:
        return await self._js.get_msg(subjects.FACTS, seq=sequence)

    async def load(self, kind: Kind, thing: str, since: History | None = None) -> History:
        """The whole history of a thing (or `since` and what came after it), as the stream's leader has it."""
        subject = subjects.fact(kind, thing)
        commits = list(since.commits) if since else []
        sequence = commits[-1].sequence if commits else 0
        while True:
            try:
                message = await self._js.get_msg(subjects.FACTS, seq=sequence + 1, subject=subject, next=True)
            except NotFoundError:
                return History(commits)
            except (nats.errors.Error, APIError, OSError) as error:
                raise Unavailable("the event log does not answer", service="nats") from error
            sequence = message.seq or 0
            commits.append(decode(sequence, message.time or datetime.now(UTC), message.data or b""))

    async def stored(self, sequence: int) -> Stored | None:
        """One commit by its place; None where the log has nothing there."""
        try:
            message = await self._message(sequence)
        except NotFoundError:
            return None
        except (nats.errors.Error, APIError, OSError) as error:
            raise Unavailable("the event log does not answer", service="nats") from error
        return decode(sequence, message.time or datetime.now(UTC), message.data or b"")

    async def end(self) -> tuple[str, int]:
        """(log id, sequence of the newest commit). The id stands in the stream's metadata, made once."""
        try:
            info = await self._js.stream_info(subjects.FACTS)
        except NotFoundError as error:
            raise LogDamaged("there is no event log on this server; run the migrate step") from error
        except (nats.errors.Error, APIError, OSError) as error:
            raise Unavailable("the event log does not answer", service="nats") from error
        return (info.config.metadata or {}).get("log_id", ""), info.state.last_seq
