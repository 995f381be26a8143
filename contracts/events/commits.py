"""The envelope: a commit holds the events that one command caused in one aggregate, and is one message of the log."""

from datetime import datetime

import msgspec

from contracts.events.base import Event
from contracts.events.datasets import DatasetEvent
from contracts.events.jobs import JobEvent
from contracts.events.presets import PresetEvent
from contracts.events.tagging import TaggingEvent
from contracts.ids import CommandId
from contracts.subjects import AggregateKind


class LogCreated(Event, frozen=True, tag="log.created"):
    """The first commit of a log: its id, and the format of the data folder. A cursor is valid for one `log_id` only."""

    log_id: str
    format: int


class LogRestored(Event, frozen=True, tag="log.restored"):
    """All earlier commits were restored from copies, each at its original sequence, into a new log `log_id`.

    `before` is the id of the log they came from; `voided` counts the commits of which no copy was left (`log.voided`).
    """

    log_id: str
    before: str
    voided: int = 0


class LogVoided(Event, frozen=True, tag="log.voided"):
    """Placeholder for a lost commit: it keeps the sequence occupied, so that no sequence is used twice."""

    reason: str


LogEvent = LogCreated | LogRestored | LogVoided


AnyEvent = LogEvent | DatasetEvent | PresetEvent | JobEvent | TaggingEvent

EVENTS_OF: dict[AggregateKind, object] = {
    "log": LogEvent,
    "dataset": DatasetEvent,
    "preset": PresetEvent,
    "job": JobEvent,
    "tagging": TaggingEvent,
}


def _no_result() -> msgspec.Raw:
    return msgspec.Raw(b"null")


class Commit(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The events that one command caused in one aggregate: one message of the log.

    `id` is `<command id>/<aggregate kind>.<aggregate id>/<n>`. `version` counts the aggregate's events, including those
    of this commit. `fingerprint` is the hash of the request behind the command (the same Idempotency-Key with another
    request is refused). `previous_hash` is the sha256 of the body of the aggregate's previous commit, so each history
    is a hash chain. `result` is the command's result, returned again when the command is repeated. `traceparent`: W3C
    Trace Context. `schema` is the schema version its events were written with, 1 if absent
    (`contracts.events.evolution`).
    """

    id: str
    aggregate_kind: AggregateKind
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
    schema: int = 1
    previous_hash: str = ""
    result: msgspec.Raw = msgspec.field(default_factory=_no_result)


class RecordedCommit(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A commit as the log recorded it. `body` is the stored message, the input of every hash."""

    sequence: int
    recorded_at: datetime
    commit: Commit
    body: bytes


def commit_id(command_id: CommandId, aggregate_kind: AggregateKind, aggregate_id: str, number: int = 0) -> str:
    """JetStream deduplicates message ids per stream, so the id names the aggregate as well as the command."""
    return f"{command_id}/{aggregate_kind}.{aggregate_id}/{number}"
