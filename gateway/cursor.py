"""Places in the log, and how clients hold them: opaque text with the log's id, so another log's cursor is noticed.

`<log id>.<sequence>` is after a whole commit, `<log id>.<index>.<sequence>` after one fact inside it.
"""

from typing import NamedTuple

from contracts.errors import Gone, Invalid

WHOLE = 1 << 31
"""The index of a place after all facts of a commit."""

LAST_SEQUENCE = 1 << 53
MOST_CHARACTERS = 200


class Place(NamedTuple):
    """After a fact (by its index) of commit `sequence`; places compare in the order of the log."""

    sequence: int
    fact: int = WHOLE

    @property
    def ask_after(self) -> int:
        """The sequence after which the catalog must be asked; what lies before this place is then dropped."""
        return self.sequence if self.fact == WHOLE else self.sequence - 1


START = Place(0)


def cursor_of(log_id: str, place: Place) -> str:
    middle = "" if place.fact == WHOLE else f"{place.fact}."
    return f"{log_id}.{middle}{place.sequence}"


def place_of(cursor: str, log_id: str) -> Place:
    """Empty and `0` are the start. Gone: it is a cursor of another log. Invalid: it is none at all."""
    if cursor in ("", "0"):
        return START
    theirs, *numbers = cursor.split(".")
    if (
        len(cursor) > MOST_CHARACTERS
        or len(numbers) not in (1, 2)
        or not all(number.isascii() and number.isdecimal() for number in numbers)
    ):
        raise Invalid("`after` is no cursor; take it from an answer or a frame, or start with 0")
    if theirs != log_id:
        raise Gone("this cursor belongs to another log; start again without it", log_id=log_id)
    *index, sequence = (int(number) for number in numbers)
    return Place(min(sequence, LAST_SEQUENCE), *(min(one, WHOLE) for one in index))
