"""Log positions, what a client has of the log, and the opaque text of that (cursors).

A cursor contains the id of its log, so a cursor of another log is detected. `<log id>.<sequence>` is the position after
a whole commit, `<log id>.<index>.<sequence>` the position after one event inside it. In a frame that was sent while
events of some aggregates were late, the log id is followed by `,<position>` if that is not the position of the event,
and by `,<kind>:<id>:<position>` for each of these aggregates; a position is `<sequence>` or `<sequence>:<index>`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from contracts.commits import Aggregate
from contracts.errors import Gone, Invalid

END_OF_COMMIT = 1 << 31
"""The event index of a position after all events of a commit."""

MAX_SEQUENCE = 1 << 53
MAX_LATE = 8
"""Aggregates of which events may be late at a time: more would make long cursors."""
MAX_CURSOR_LENGTH = 200 + 100 * MAX_LATE
POSITION = "[0-9]+(?::[0-9]+)?"
CURSOR = re.compile(rf"([^.,]*)(,{POSITION})?((?:,[a-z]+:[^.,:]+:{POSITION})*)\.((?:[0-9]+\.)?[0-9]+)", re.ASCII)
LATE = re.compile(rf",([a-z]+):([^,:]+):({POSITION})", re.ASCII)


class LogPosition(NamedTuple):
    """After an event (by its index) of commit `sequence`; positions compare in log order."""

    sequence: int
    event_index: int = END_OF_COMMIT

    @property
    def query_after(self) -> int:
        """The sequence after which the catalog must be queried; events up to this position are then dropped."""
        return self.sequence if self.event_index == END_OF_COMMIT else self.sequence - 1


START = LogPosition(0)


@dataclass(frozen=True, slots=True)
class Received:
    """All events up to `position`; but of the aggregates in `late`, only those up to an earlier one.

    Events of a large data set in which the catalog still works come after later ones of others.
    """

    position: LogPosition
    late: Mapping[Aggregate, LogPosition] = field(default_factory=dict)

    def includes(self, aggregate: Aggregate, position: LogPosition) -> bool:
        return position <= self._up_to(aggregate)

    def joined(self, other: "Received") -> "Received":
        """What is in one of the two."""
        position = max(self.position, other.position)
        up_to = {one: max(self._up_to(one), other._up_to(one)) for one in {*self.late, *other.late}}
        return Received(position, {one: reached for one, reached in up_to.items() if reached < position})

    def covers(self, other: "Received") -> bool:
        """Whether everything in the other is here."""
        return self.position >= other.position and all(self._up_to(one) >= other._up_to(one) for one in self.late)

    def until(self, position: LogPosition) -> "Received":
        """The part of it up to a position."""
        late = {one: reached for one, reached in self.late.items() if reached < position}
        return self if position >= self.position else Received(position, late)

    @property
    def complete(self) -> LogPosition:
        """Nothing is missing up to here."""
        return min(self.position, *self.late.values()) if self.late else self.position

    def _up_to(self, aggregate: Aggregate) -> LogPosition:
        return self.late.get(aggregate, self.position)


NOTHING = Received(START)


def encode_cursor(log_id: str, received: Received, last: LogPosition | None = None) -> str:
    """`last`: the position of the event that was received last, if known; the cursor ends with it."""
    shown = received.position if last is None else last
    position = "" if shown == received.position else f",{_encode(received.position)}"
    late = "".join(f",{kind}:{name}:{_encode(reached)}" for (kind, name), reached in received.late.items())
    index = "" if shown.event_index == END_OF_COMMIT else f"{shown.event_index}."
    return f"{log_id}{position}{late}.{index}{shown.sequence}"


def decode_cursor(cursor: str, log_id: str) -> Received:
    """An empty cursor and `0` are the start. Gone: a cursor of another log. Invalid: not a cursor."""
    if cursor in ("", "0"):
        return NOTHING
    found = CURSOR.fullmatch(cursor) if len(cursor) <= MAX_CURSOR_LENGTH else None
    if found is None or len(late := LATE.findall(found[3])) > MAX_LATE:
        raise Invalid("`after` is not a cursor; use one from a response or a frame, or 0 for the start")
    if found[1] != log_id:
        raise Gone("this cursor belongs to another event log; start again without it", log_id=log_id)
    position = _position(found[2][1:] if found[2] else ":".join(reversed(found[4].split("."))))
    reached = {(kind, name): min(position, _position(text)) for kind, name, text in late}
    return Received(position, {one: earlier for one, earlier in reached.items() if earlier < position})


def _encode(position: LogPosition) -> str:
    index = "" if position.event_index == END_OF_COMMIT else f":{position.event_index}"
    return f"{position.sequence}{index}"


def _position(text: str) -> LogPosition:
    sequence, *index = map(int, text.split(":"))
    return LogPosition(min(sequence, MAX_SEQUENCE), *(min(one, END_OF_COMMIT) for one in index))
