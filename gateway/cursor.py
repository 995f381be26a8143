"""Log positions and their opaque text form (cursors).

A cursor contains the id of its log, so a cursor of another log is detected. `<log id>.<sequence>` is the position after
a whole commit, `<log id>.<index>.<sequence>` the position after one event inside it.
"""

from typing import NamedTuple

from contracts.errors import Gone, Invalid

END_OF_COMMIT = 1 << 31
"""The event index of a position after all events of a commit."""

MAX_SEQUENCE = 1 << 53
MAX_CURSOR_LENGTH = 200


class LogPosition(NamedTuple):
    """After an event (by its index) of commit `sequence`; positions compare in log order."""

    sequence: int
    event_index: int = END_OF_COMMIT

    @property
    def query_after(self) -> int:
        """The sequence after which the catalog must be queried; events up to this position are then dropped."""
        return self.sequence if self.event_index == END_OF_COMMIT else self.sequence - 1


START = LogPosition(0)


def encode_cursor(log_id: str, position: LogPosition) -> str:
    index = "" if position.event_index == END_OF_COMMIT else f"{position.event_index}."
    return f"{log_id}.{index}{position.sequence}"


def decode_cursor(cursor: str, log_id: str) -> LogPosition:
    """An empty cursor and `0` are the start. Gone: a cursor of another log. Invalid: not a cursor."""
    if cursor in ("", "0"):
        return START
    cursor_log_id, *numbers = cursor.split(".")
    if (
        len(cursor) > MAX_CURSOR_LENGTH
        or len(numbers) not in (1, 2)
        or not all(number.isascii() and number.isdecimal() for number in numbers)
    ):
        raise Invalid("`after` is not a cursor; use one from a response or a frame, or 0 for the start")
    if cursor_log_id != log_id:
        raise Gone("this cursor belongs to another event log; start again without it", log_id=log_id)
    *index, sequence = (int(number) for number in numbers)
    return LogPosition(min(sequence, MAX_SEQUENCE), *(min(one, END_OF_COMMIT) for one in index))
