"""Commits as the events API shows them: one view per event, which keeps the bytes it was stored as. Pure."""

from datetime import datetime

import msgspec

from catalog.domain.compose import compose
from contracts.commits import decode_commit
from contracts.queries.log import EventView


class _StoredEvents(msgspec.Struct, frozen=True):
    """The events of a commit, not decoded."""

    events: tuple[msgspec.Raw, ...]


class _Type(msgspec.Struct, frozen=True):
    type: str


_decode_events = msgspec.json.Decoder(_StoredEvents).decode
_decode_type = msgspec.json.Decoder(_Type).decode


def event_views(sequence: int, recorded_at: datetime, body: bytes) -> list[EventView]:
    """The events of a commit in order. Each has its own version, so an aggregate's versions have no gaps."""
    commit = decode_commit(body)
    first = commit.version - len(commit.events) + 1
    return [
        compose(
            EventView,
            commit,
            sequence=sequence,
            index=index,
            type=_decode_type(stored).type,
            version=first + index,
            time=commit.at,
            recorded_at=recorded_at,
            description=event.describe(),
            data=stored,
        )
        for index, (event, stored) in enumerate(zip(commit.events, _decode_events(body).events, strict=True))
    ]
