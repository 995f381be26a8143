"""Events as the text of their frames, and the positions after them. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from contracts import subjects
from contracts.commits import Aggregate, Commit, RecordedCommit
from contracts.events.base import Event
from contracts.frames import EventImages, Frame, event_frame
from contracts.queries.log import EventView
from gateway.cursor import END_OF_COMMIT, LogPosition, Received, encode_cursor


@dataclass(frozen=True, slots=True)
class EncodedEvent:
    """An event ready to be sent, encoded once for all sockets.

    `received`: what a client has that has received this event and all that were sent before it.
    """

    position: LogPosition
    received: Received
    aggregate: Aggregate
    type: str
    cursor: str
    before_cursor: str
    after_cursor: str

    @property
    def size(self) -> int:
        return len(self.before_cursor) + len(self.after_cursor)

    def text(self, received: Received, log_id: str) -> str:
        """Its frame for a client that then has received this."""
        is_usual = received == self.received
        cursor = self.cursor if is_usual else encode_cursor(log_id, received, self.position)
        return f"{self.before_cursor}{cursor}{self.after_cursor}"


def encode_frame(frame: Frame) -> str:
    return msgspec.json.encode(frame).decode()


def positions_in(recorded: RecordedCommit) -> list[LogPosition]:
    """The position after each event of a commit."""
    last = len(recorded.commit.events) - 1
    return [LogPosition(recorded.sequence, END_OF_COMMIT if index == last else index) for index in range(last + 1)]


def encode_event(  # noqa: PLR0913 - what a frame says beside the event itself
    event: Event,
    source: Commit | EventView,
    *,
    position: LogPosition,
    received: Received,
    images: EventImages | None,
    log_id: str,
) -> EncodedEvent:
    """`source`: who caused it and when. `received`: see `EncodedEvent`."""
    cursor = encode_cursor(log_id, received, position)
    frame = event_frame(
        event,
        seq=cursor,
        subject=subjects.aggregate(source.aggregate_kind, source.aggregate_id),
        time=source.at if isinstance(source, Commit) else source.time,
        actor=source.actor,
        command_id=source.command_id,
        images=images,
    )
    before, _, after = encode_frame(frame).partition(cursor)
    aggregate = source.aggregate_kind, source.aggregate_id
    return EncodedEvent(position, received, aggregate, event.type_name, cursor, before, after)


def positions_after(events: Sequence[EventView]) -> list[LogPosition]:
    """The position after each event. `events` are whole commits, or all matching events of each commit."""
    next_sequences = [*(event.sequence for event in events[1:]), 0]
    return [
        LogPosition(event.sequence, END_OF_COMMIT if event.sequence != next_sequence else event.index)
        for event, next_sequence in zip(events, next_sequences, strict=False)  # without events there is still the 0
    ]
