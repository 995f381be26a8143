"""Events as the text of their frames, and the positions after them. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from contracts import subjects
from contracts.commits import Commit, RecordedCommit
from contracts.events.base import Event
from contracts.frames import EventImages, Frame, event_frame
from contracts.queries.log import EventView
from gateway.cursor import END_OF_COMMIT, LogPosition, encode_cursor


@dataclass(frozen=True, slots=True)
class EncodedEvent:
    """An event ready to be sent, encoded once for all sockets."""

    position: LogPosition
    aggregate_kind: str
    aggregate_id: str
    type: str
    text: str


def encode_frame(frame: Frame) -> str:
    return msgspec.json.encode(frame).decode()


def encode_commit(recorded: RecordedCommit, images: Sequence[EventImages | None], log_id: str) -> list[EncodedEvent]:
    """The events of a commit in order; `images` has those of each."""
    events = recorded.commit.events
    last = len(events) - 1
    return [
        encode_event(
            event,
            recorded.commit,
            position=LogPosition(recorded.sequence, END_OF_COMMIT if index == last else index),
            images=images[index],
            log_id=log_id,
        )
        for index, event in enumerate(events)
    ]


def encode_event(
    event: Event, source: Commit | EventView, *, position: LogPosition, images: EventImages | None, log_id: str
) -> EncodedEvent:
    """`source`: who caused it and when."""
    frame = event_frame(
        event,
        seq=encode_cursor(log_id, position),
        subject=subjects.aggregate(source.aggregate_kind, source.aggregate_id),
        time=source.at if isinstance(source, Commit) else source.time,
        actor=source.actor,
        command_id=source.command_id,
        images=images,
    )
    kind, aggregate_id = source.aggregate_kind, source.aggregate_id
    return EncodedEvent(position, kind, aggregate_id, event.type_name, encode_frame(frame))


def positions_after(events: Sequence[EventView]) -> list[LogPosition]:
    """The position after each event. `events` are whole commits, or all matching events of each commit."""
    next_sequences = [*(event.sequence for event in events[1:]), 0]
    return [
        LogPosition(event.sequence, END_OF_COMMIT if event.sequence != next_sequence else event.index)
        for event, next_sequence in zip(events, next_sequences, strict=False)  # without events there is still the 0
    ]
