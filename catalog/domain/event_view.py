"""Commits as the events API shows them: one view per event, which keeps the bytes it was stored as. Pure."""

from datetime import datetime

import msgspec

from contracts.descriptions import describe
from contracts.events.evolution import decode_commit
from contracts.ids import CommandId
from contracts.queries import EventView


class _Commit(msgspec.Struct, frozen=True, kw_only=True):
    """A commit whose events are not decoded."""

    aggregate_kind: str
    aggregate_id: str
    version: int
    at: datetime
    actor: str
    command_id: CommandId
    events: tuple[msgspec.Raw, ...]
    correlation_id: str = ""
    causation_id: str = ""


class _Type(msgspec.Struct, frozen=True):
    type: str


_decode_commit = msgspec.json.Decoder(_Commit).decode
_decode_type = msgspec.json.Decoder(_Type).decode


def event_views(sequence: int, recorded_at: datetime, body: bytes) -> list[EventView]:
    """The events of a commit in order. Each has its own version, so an aggregate's versions have no gaps."""
    commit = _decode_commit(body)
    descriptions = [describe(event) for event in decode_commit(body).events]
    before = commit.version - len(commit.events)
    return [
        EventView(
            sequence=sequence,
            index=index,
            type=_decode_type(event).type,
            aggregate_kind=commit.aggregate_kind,
            aggregate_id=commit.aggregate_id,
            version=before + index + 1,
            time=commit.at,
            recorded_at=recorded_at,
            actor=commit.actor,
            command_id=commit.command_id,
            correlation_id=commit.correlation_id,
            causation_id=commit.causation_id,
            description=descriptions[index],
            data=event,
        )
        for index, event in enumerate(commit.events)
    ]
