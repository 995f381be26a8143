"""The envelope: what one wish changed in one thing is one message of the log."""

from datetime import datetime

import msgspec

from contracts.events.datasets import DatasetFact
from contracts.events.facts import Fact
from contracts.events.jobs import JobFact
from contracts.events.presets import PresetFact
from contracts.events.tagging import TaggingFact
from contracts.ids import CommandId
from contracts.subjects import Kind


class LogCreated(Fact, frozen=True, tag="log.created"):
    """The first commit of a log. A cursor of another `log_id` is not understood here."""

    log_id: str
    format: int


class LogRestored(Fact, frozen=True, tag="log.restored"):
    """All commits before this one were put back from copies, each at its sequence, in a new log `log_id`.

    `before` is the log they stood in; `voided` counts those that no copy had any more (`log.voided`).
    """

    log_id: str
    before: str
    voided: int = 0


class LogVoided(Fact, frozen=True, tag="log.voided"):
    """At this sequence stood a commit that is lost; it keeps the place, so that no number is given twice."""

    reason: str


LogFact = LogCreated | LogRestored | LogVoided


AnyFact = LogFact | DatasetFact | PresetFact | JobFact | TaggingFact

FACTS_OF: dict[Kind, object] = {
    "log": LogFact,
    "dataset": DatasetFact,
    "preset": PresetFact,
    "job": JobFact,
    "tagging": TaggingFact,
}


def _no_answer() -> msgspec.Raw:
    return msgspec.Raw(b"null")


class Commit(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What one wish changed in one thing: one message of the log.

    `id` is `<command id>/<kind>.<thing id>/<n>`; `version` counts the thing's facts up to and with this commit's last;
    `fingerprint` is the hash of the request that asked (same key, other request → refused); `previous` is the sha256 of
    the body of the thing's previous commit, so that the history of each thing is a chain; `answer` is what the command
    answered, to be given again when it is repeated. `traceparent`: W3C Trace Context. `schema`: that of its facts when
    it was written; it is 1 where nothing is said (`contracts.events.evolution`).
    """

    id: str
    kind: Kind
    thing: str
    version: int
    at: datetime
    actor: str
    command: CommandId
    facts: tuple[AnyFact, ...]
    fingerprint: str = ""
    correlation: str = ""
    causation: str = ""
    traceparent: str | None = None
    schema: int = 1
    previous: str = ""
    answer: msgspec.Raw = msgspec.field(default_factory=_no_answer)


class Stored(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A commit with its place in the log. `body` is the message as stored, which hashes are made over."""

    sequence: int
    recorded: datetime
    commit: Commit
    body: bytes


def commit_id(command: CommandId, kind: Kind, thing: str, number: int = 0) -> str:
    """Message ids are deduplicated per stream, so they name the thing as well as the command."""
    return f"{command}/{kind}.{thing}/{number}"
