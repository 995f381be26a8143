"""Commits told as events: one view for each fact, which stays the bytes it was stored as. Pure."""

from datetime import datetime

import msgspec

from contracts.ids import CommandId
from contracts.queries import EventView


class _Commit(msgspec.Struct, frozen=True, kw_only=True):
    """A commit whose facts are not looked into."""

    kind: str
    thing: str
    version: int
    at: datetime
    actor: str
    command: CommandId
    facts: tuple[msgspec.Raw, ...]
    correlation: str = ""
    causation: str = ""


class _Type(msgspec.Struct, frozen=True):
    type: str


_commit = msgspec.json.Decoder(_Commit).decode
_type = msgspec.json.Decoder(_Type).decode


def events_of(sequence: int, recorded: datetime, body: bytes) -> list[EventView]:
    """The facts of a commit in their order; each has a version of its own, so that a thing's have no hole."""
    commit = _commit(body)
    before = commit.version - len(commit.facts)
    return [
        EventView(
            sequence=sequence,
            index=index,
            type=_type(fact).type,
            kind=commit.kind,
            thing=commit.thing,
            version=before + index + 1,
            time=commit.at,
            recorded=recorded,
            actor=commit.actor,
            command=commit.command,
            correlation=commit.correlation,
            causation=commit.causation,
            data=fact,
        )
        for index, fact in enumerate(commit.facts)
    ]
