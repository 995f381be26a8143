"""The event log on JetStream: append with optimistic concurrency, load one aggregate. The only writer of `EVT`.

The append loop follows from how the server behaves (nats-server 2.15): repeating an append that was stored answers
10071 on one replica and `duplicate` on three; a publish that timed out may be stored, now or later. So an unclear
outcome is retried with the same id and the same expected sequence, and on a conflict the stored message is read back
and compared with ours.
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
from contracts.commands import CommandMetadata
from contracts.errors import Conflict, KeyReused, LogDamaged, LogFull, LoratoryError, TooLarge, Unavailable
from contracts.events import COMMIT_BYTES, SCHEMA, AnyEvent, Commit, RecordedCommit, commit_id
from contracts.events.evolution import decode_commit
from contracts.subjects import AggregateKind
from contracts.wire.publishing import MAX_BATCH_MESSAGES, PUBLISH_TIMEOUT_SECONDS, Ack, Draft, publish

APPEND_TIMEOUT_SECONDS = 20.0

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True)
class StreamRevision:
    """Sequence, version and hash of an aggregate's last commit: the base of its next append."""

    sequence: int = 0
    version: int = 0
    digest: str = ""


@dataclass(frozen=True)
class AggregateHistory:
    """All commits of one aggregate, oldest first."""

    commits: Sequence[RecordedCommit] = ()

    @property
    def revision(self) -> StreamRevision:
        return revision_of(self.commits[-1]) if self.commits else StreamRevision()

    def events(self) -> list[tuple[AnyEvent, int]]:
        """Each event with the sequence of its commit."""
        return [(event, recorded.sequence) for recorded in self.commits for event in recorded.commit.events]


def revision_of(recorded: RecordedCommit) -> StreamRevision:
    return StreamRevision(recorded.sequence, recorded.commit.version, hashlib.sha256(recorded.body).hexdigest())


def decode(sequence: int, recorded_at: datetime, body: bytes) -> RecordedCommit:
    """Decodes a message of the log. LogDamaged if it is no commit, or has a type or schema unknown to this version."""
    try:
        return RecordedCommit(sequence=sequence, recorded_at=recorded_at, commit=decode_commit(body), body=body)
    except msgspec.DecodeError as error:
        raise LogDamaged(f"commit {sequence} cannot be read: {error}") from error


def build_commit(  # noqa: PLR0913 - the fields of the envelope
    aggregate_kind: AggregateKind,
    aggregate_id: str,
    events: Sequence[AnyEvent],
    *,
    expected_revision: StreamRevision,
    metadata: CommandMetadata,
    number: int = 0,
    result: object = None,
) -> Commit:
    """The commit that records these events on top of `expected_revision`; `number` tells apart those of one command."""
    return Commit(
        id=commit_id(metadata.command_id, aggregate_kind, aggregate_id, number),
        aggregate_kind=aggregate_kind,
        aggregate_id=aggregate_id,
        version=expected_revision.version + len(events),
        at=metadata.at,
        actor=metadata.actor,
        command_id=metadata.command_id,
        events=tuple(events),
        fingerprint=metadata.fingerprint,
        correlation_id=metadata.correlation_id or metadata.command_id,
        causation_id=metadata.causation_id or metadata.command_id,
        traceparent=metadata.traceparent,
        schema=SCHEMA,
        previous_hash=expected_revision.digest,
        result=msgspec.Raw(_encode(result)),
    )


class EventLog:
    """One service's access to the log."""

    def __init__(self, bus: Client, fence: Callable[[], None] = lambda: None) -> None:
        """`fence` is called before each append and raises when this process may no longer write."""
        self._bus = bus
        self.fence = fence
        self._js: JetStreamContext = bus.jetstream(timeout=PUBLISH_TIMEOUT_SECONDS)

    @property
    def bus(self) -> Client:
        """The connection it uses."""
        return self._bus

    async def append(self, commit: Commit, expected_revision: StreamRevision) -> RecordedCommit:
        """Appends a commit exactly once, if the aggregate is still at `expected_revision`.

        Conflict: another commit came first. KeyReused: its command id was used by another request. LogFull: no room.
        Unavailable: the log did not answer for APPEND_TIMEOUT_SECONDS; the commit may or may not be stored, and
        appending the same commit again is always safe.
        """
        (recorded,) = await self.append_atomically([(commit, expected_revision)])
        return recorded

    async def append_atomically(self, commits: Sequence[tuple[Commit, StreamRevision]]) -> list[RecordedCommit]:
        """Appends commits of several aggregates, all or none, contiguous in the log; otherwise like `append`."""
        drafts = [_draft(commit, expected_revision) for commit, expected_revision in commits]
        if len(drafts) > 1 and len({draft.subject for draft in drafts}) < len(drafts):
            raise ValueError("several commits of one aggregate must be one commit")
        if len(drafts) > MAX_BATCH_MESSAGES:
            raise TooLarge(
                f"{len(drafts)} aggregates in one transaction are more than {MAX_BATCH_MESSAGES}; split the request"
            )
        deadline = asyncio.get_running_loop().time() + APPEND_TIMEOUT_SECONDS
        unclear = False
        while True:
            self.fence()
            ack = await publish(self._bus, drafts)
            if ack.verdict == "stored" and not ack.duplicate:
                return _recorded_commits(drafts, ack)
            if ack.verdict != "unclear":
                recorded = await self._resolve(drafts, ack, unclear=unclear)
                if recorded is not None:
                    return recorded
            unclear = True
            if asyncio.get_running_loop().time() > deadline:
                raise Unavailable("the event log does not answer", service="nats")
            await asyncio.sleep(random.uniform(0.05, 0.25))

    async def _resolve(self, drafts: Sequence[Draft], ack: Ack, *, unclear: bool) -> list[RecordedCommit] | None:
        """Whether an earlier try stored the commits although this one did not. None: the log does not answer.

        A refusal is final only if no earlier try had an unclear outcome: if that one was stored it counts, whatever the
        server answers to the repetition.
        """
        if ack.verdict in ("stored", "conflict") or unclear:
            try:
                found = [await self._find_stored(draft, ack) for draft in drafts]
            except Unavailable:
                return None
            if None not in found:
                return [recorded for recorded in found if recorded is not None]
        raise _refusal(ack)

    async def _find_stored(self, draft: Draft, ack: Ack) -> RecordedCommit | None:
        """This very commit, if the log has it: then it directly follows its expected revision.

        `duplicate` says only that the stream has seen the id, and at which sequence: possibly at an older revision, by
        an earlier process.
        """
        if ack.duplicate:
            message = await self._message(seq=ack.seq)
            if message is None:
                raise LogDamaged(f"the log calls {draft.commit.id} a duplicate of {ack.seq}, but has no message there")
        else:
            message = await self._message(seq=draft.expected_sequence + 1, subject=draft.subject, next=True)
        if message is None or message.subject != draft.subject:
            return None
        if (message.headers or {}).get(Header.MSG_ID) != draft.commit.id:
            return None
        recorded = _decode_message(message)
        if recorded.commit.fingerprint != draft.commit.fingerprint:
            raise KeyReused
        return recorded

    async def load(
        self, aggregate_kind: AggregateKind, aggregate_id: str, since: AggregateHistory | None = None
    ) -> AggregateHistory:
        """The whole history of an aggregate (`since` and what came after it), as the stream's leader has it."""
        commits = list(since.commits) if since else []
        sequence = commits[-1].sequence if commits else 0
        subject = subjects.aggregate(aggregate_kind, aggregate_id)
        while message := await self._message(seq=sequence + 1, subject=subject, next=True):
            commits.append(_decode_message(message))
            sequence = commits[-1].sequence
        return AggregateHistory(commits)

    async def commit_at(self, sequence: int) -> RecordedCommit | None:
        """The commit at a sequence; None where the log has none."""
        message = await self._message(seq=sequence)
        return None if message is None else _decode_message(message)

    async def _message(self, **options: Any) -> RawStreamMsg | None:
        """Read from the leader, not from a replica that may lag."""
        try:
            return await self._js.get_msg(subjects.EVENTS, **options)
        except NotFoundError:
            return None
        except (nats.errors.Error, APIError, OSError) as error:
            raise Unavailable("the event log does not answer", service="nats") from error

    async def end(self) -> tuple[str, int]:
        """(log id, sequence of the newest commit). The id is in the stream's metadata, created once."""
        try:
            info = await self._js.stream_info(subjects.EVENTS)
        except NotFoundError as error:
            raise LogDamaged("there is no event log on this server; run the migrate step") from error
        except (nats.errors.Error, APIError, OSError) as error:
            raise Unavailable("the event log does not answer", service="nats") from error
        return (info.config.metadata or {}).get("log_id", ""), info.state.last_seq


def _decode_message(message: RawStreamMsg) -> RecordedCommit:
    return decode(message.seq or 0, message.time or datetime.now(UTC), message.data or b"")


def _draft(commit: Commit, expected_revision: StreamRevision) -> Draft:
    body = _encode(commit)
    if len(body) > COMMIT_BYTES:
        raise TooLarge(f"a commit of {len(body)} bytes is more than {COMMIT_BYTES}; split the request")
    return Draft(
        commit, expected_revision.sequence, body, subjects.aggregate(commit.aggregate_kind, commit.aggregate_id)
    )


def _recorded_commits(drafts: Sequence[Draft], ack: Ack) -> list[RecordedCommit]:
    """A batch gets consecutive sequences, in its order."""
    now, first = datetime.now(UTC), ack.seq - len(drafts) + 1
    return [
        RecordedCommit(sequence=sequence, recorded_at=now, commit=draft.commit, body=draft.body)
        for sequence, draft in enumerate(drafts, start=first)
    ]


def _refusal(ack: Ack) -> LoratoryError:
    """The error for a refused publish."""
    reason = f"{ack.error.err_code} {ack.error.description}" if ack.error else "its id belongs to another commit"
    match ack.verdict:
        case "conflict":
            return Conflict()
        case "full":
            return LogFull(reason)
        case "too large":
            return TooLarge(reason)
        case "wrong stream":
            return LogDamaged(f"another stream captures the subjects of the event log: {reason}")
        case _:
            return LoratoryError(f"the log refused a commit: {reason}")
