"""The envelope: a commit holds the events that one command caused in one aggregate; it is one message of the log."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, NamedTuple, Protocol

import msgspec

from contracts import subjects
from contracts.aggregates import REGISTRY, AnyEvent
from contracts.commands.base import CommandMetadata
from contracts.errors import LogDamaged, TooLarge
from contracts.events.base import SCHEMA, Event
from contracts.evolution import UPCASTERS, Upcasters, has_other_recipe, upcast, upcast_commit
from contracts.ids import CommandId
from contracts.log_message import LogMessage

Aggregate = tuple[str, str]
"""Kind and id of an aggregate."""
COMMIT_BYTES = 200 * 1024
"""Maximum size of a commit in bytes, checked before it is appended: bulk data belongs in blobs and bitmaps."""
SchemaNumber = Annotated[int, msgspec.Meta(ge=1)]
MAX_ATOMIC_COMMITS = 1000
"""Maximum commits appended together: nats-server accepts no more messages in one batch."""


class Commit(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The events that one command caused in one aggregate: one message of the log.

    `id` is `<command id>/<aggregate kind>.<aggregate id>/<n>`. `version` counts the aggregate's events, including those
    of this commit. `fingerprint` is the hash of the request behind the command (the same Idempotency-Key with another
    request is refused). `previous_hash` is the sha256 of the body of the aggregate's previous commit, so each history
    is a hash chain. `result` is the command's result, returned again when the command is repeated. `traceparent`: W3C
    Trace Context. `schema` is the schema version its events were written with, 1 if absent (`contracts.evolution`).
    """

    id: str
    aggregate_kind: str
    aggregate_id: str
    version: int
    at: datetime
    actor: str
    command_id: CommandId
    events: tuple[AnyEvent, ...]
    fingerprint: str = ""
    correlation_id: str = ""
    causation_id: str = ""
    traceparent: str | None = None
    schema: SchemaNumber = 1
    previous_hash: str = ""
    result: msgspec.Raw = msgspec.field(default_factory=lambda: msgspec.Raw(b"null"))


class RecordedCommit(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A commit as the log recorded it. `body` is the stored message, the input of every hash."""

    sequence: int
    recorded_at: datetime
    commit: Commit
    body: bytes
    signature: str = ""

    @property
    def subject(self) -> str:
        return subjects.aggregate(self.commit.aggregate_kind, self.commit.aggregate_id)

    @property
    def aggregate(self) -> Aggregate:
        return self.commit.aggregate_kind, self.commit.aggregate_id


class ForeignMessage(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A message that no known writer may have appended: it keeps its place in the log and changes nothing."""

    sequence: int
    recorded_at: datetime
    subject: str
    body: bytes
    signature: str
    reason: str

    @property
    def aggregate(self) -> Aggregate:
        """Kind and id of the aggregate on whose subject it landed."""
        kind, _, aggregate_id = self.subject.removeprefix("evt.").partition(".")
        return kind, aggregate_id


LogEntry = RecordedCommit | ForeignMessage
"""A message of the log after it was verified (`contracts.verification`)."""


class StreamRevision(NamedTuple):
    """Where an aggregate's history stands: the base of its next append.

    `sequence`: of the last message on its subject, also a foreign one. `version` and `digest`: of its last commit.
    """

    sequence: int = 0
    version: int = 0
    digest: str = ""


@dataclass(frozen=True)
class AggregateHistory:
    """All commits of one aggregate, oldest first. `last_foreign`: sequence of the newest foreign message among them."""

    commits: Sequence[RecordedCommit] = ()
    last_foreign: int = 0

    @property
    def revision(self) -> StreamRevision:
        last = revision_of(self.commits[-1]) if self.commits else StreamRevision()
        return last._replace(sequence=max(last.sequence, self.last_foreign))

    def with_commit(self, recorded: RecordedCommit) -> "AggregateHistory":
        return AggregateHistory([*self.commits, recorded], self.last_foreign)

    def events(self) -> list[tuple[Event, int]]:
        """Each event with the sequence of its commit."""
        return [(event, recorded.sequence) for recorded in self.commits for event in recorded.commit.events]


class CommitLog(Protocol):
    """The event log: on JetStream `contracts.wire.log.event_log.EventLog`, in memory `contracts.testing.MemoryLog`."""

    fence: Callable[[], None]
    """Called before each append; raises when this process may no longer write."""

    async def append(self, commit: Commit, expected_revision: StreamRevision) -> RecordedCommit:
        """Appends a commit exactly once, if the aggregate is still at `expected_revision`.

        Conflict: another commit came first. KeyReused: its command id was used by another request. LogFull: no room.
        Unavailable: the log does not answer; the commit may or may not be stored, and appending the same commit again
        is always safe.
        """
        (recorded,) = await self.append_atomically([(commit, expected_revision)])
        return recorded

    async def append_atomically(self, commits: Sequence[tuple[Commit, StreamRevision]]) -> list[RecordedCommit]:
        """Appends commits of several aggregates, all or none, contiguous in the log; otherwise like `append`."""
        ...

    async def load(
        self, aggregate_kind: str, aggregate_id: str, since: AggregateHistory | None = None
    ) -> AggregateHistory:
        """The whole history of an aggregate (`since` and what came after it)."""
        ...

    async def confirm(self, recorded: RecordedCommit) -> None:
        """Returns once it is certain that a commit counts. Fenced: it does not. Unavailable: nobody knows yet."""
        ...

    async def commit_at(self, sequence: int) -> RecordedCommit | None:
        """The commit at a sequence; None where the log has none."""
        ...

    async def end(self) -> tuple[str, int]:
        """(log id, sequence of the newest commit)."""
        ...


def revision_of(recorded: RecordedCommit) -> StreamRevision:
    return StreamRevision(recorded.sequence, recorded.commit.version, hashlib.sha256(recorded.body).hexdigest())


def commit_id(command_id: CommandId, aggregate_kind: str, aggregate_id: str, number: int = 0) -> str:
    """JetStream deduplicates message ids per stream, so the id names the aggregate as well as the command."""
    return f"{command_id}/{aggregate_kind}.{aggregate_id}/{number}"


def build_commit(  # noqa: PLR0913 - the fields of the envelope
    aggregate_kind: str,
    aggregate_id: str,
    events: Sequence[Event],
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
        result=msgspec.Raw(msgspec.json.encode(result)),
    )


def decode_event(data: bytes, schema: int) -> Event:
    """An event as stored, written with this schema version."""
    event: Event = msgspec.convert(upcast(msgspec.json.decode(data), schema), AnyEvent)
    return event


def encode_commit(commit: Commit) -> bytes:
    """TooLarge beyond COMMIT_BYTES."""
    body = _encoder.encode(commit)
    if len(body) > COMMIT_BYTES:
        raise TooLarge(f"a commit of {len(body)} bytes is more than {COMMIT_BYTES}; split the request")
    return body


def check_atomic(commits: Sequence[Commit]) -> None:
    """TooLarge: more than one transaction may have. ValueError: two of one aggregate."""
    if len({(commit.aggregate_kind, commit.aggregate_id) for commit in commits}) < len(commits):
        raise ValueError("several commits of one aggregate must be one commit")
    if len(commits) > MAX_ATOMIC_COMMITS:
        raise TooLarge(
            f"{len(commits)} aggregates in one transaction are more than {MAX_ATOMIC_COMMITS}; split the request"
        )


def decode(sequence: int, recorded_at: datetime, body: bytes, signature: str = "") -> RecordedCommit:
    """Decodes a commit of the log. LogDamaged if it is none, or has a type or schema unknown to this version."""
    try:
        commit = decode_commit(body)
    except msgspec.DecodeError as error:
        raise LogDamaged(f"commit {sequence} cannot be read: {error}") from error
    return RecordedCommit(sequence=sequence, recorded_at=recorded_at, commit=commit, body=body, signature=signature)


def decode_message(message: LogMessage) -> RecordedCommit:
    """`decode` of a message as read from the log."""
    return decode(message.sequence, message.recorded_at, message.body, message.signature)


def decode_commit(body: bytes, upcasters: Upcasters = UPCASTERS, schema: int = SCHEMA) -> Commit:
    """A commit with its events upcast to `schema`; msgspec.DecodeError if it is none, or of an unknown kind.

    A commit of the current schema is decoded once, unless it has a recipe of another version. `commit.schema` remains
    the schema it was written with.
    """
    other_recipe = has_other_recipe(body)
    try:
        commit = _decoder.decode(body)
    except msgspec.ValidationError:
        if _schema_decoder.decode(body).schema == schema and not other_recipe:
            raise
        commit = None
    if commit is None or commit.schema != schema or other_recipe:
        commit = _decoder.decode(upcast_commit(body, upcasters, schema))
    if commit.aggregate_kind not in REGISTRY.by_name:
        raise msgspec.ValidationError(
            f"no aggregate kind of this version of Loratory is called {commit.aggregate_kind!r}"
        )
    return commit


class _SchemaOnly(msgspec.Struct):
    schema: SchemaNumber = 1


def written_schema(body: bytes) -> int:
    """The schema that a commit says it was written with; 0: it is no commit."""
    try:
        return _schema_decoder.decode(body).schema
    except msgspec.DecodeError:
        return 0


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Commit)
_schema_decoder = msgspec.json.Decoder(_SchemaOnly)
