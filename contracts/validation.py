"""Turns msgspec's validation messages into sentences that name the field. Pure.

`` Expected `int` >= 1 - at `$.length.count` `` becomes `length.count must be at least 1`. Messages that are not in the
tables below are kept, with the field in front; the tables cover all messages of msgspec 0.22.
"""

import re
from collections.abc import Callable

_PATH = re.compile(r"^(?P<message>.*?)(?: - at (?:`(?P<key>key)` in )?`\$(?P<path>[^`]*)`)?$", re.DOTALL)
_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "decimal": "a decimal number",
    "str": "a string",
    "bytes": "base64 text",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
    "datetime": "a date and time (RFC 3339)",
    "date": "a date (RFC 3339)",
    "time": "a time of day (RFC 3339)",
    "duration": "a duration (ISO 8601)",
    "uuid": "a UUID",
}
_UNITS = {"str": "character", "bytes": "byte", "array": "item", "object": "entry"}
_COMPARISONS = {">=": "at least", "<=": "at most", ">": "greater than", "<": "less than"}
_COMPARISONS |= {"least": "at least", "most": "at most"}
_EMPTINESS = {("at least", 1): "must not be empty", ("at most", 0): "must be empty"}
_SENTENCES: tuple[tuple[str, Callable[[re.Match[str]], str]], ...] = (
    (r"Expected `(\w+)` (>=|<=|>|<) (.+)", lambda m: f"must be {_COMPARISONS[m[2]]} {_number(m[3])}"),
    (r"Expected `\w+` that's a multiple of (.+)", lambda m: f"must be a multiple of {_number(m[1])}"),
    (r"Expected `(\w+)` of length (>=|<=) (\d+)", lambda m: _length(m[1], m[2], int(m[3]))),
    (r"Expected `(\w+)` of at (least|most) length (\d+)(?:, got \d+)?", lambda m: _length(m[1], m[2], int(m[3]))),
    (r"Expected `(\w+)` of length (\d+) to (\d+)(?:, got \d+)?", lambda m: f"must have {m[2]} to {_count(m[1], m[3])}"),
    (r"Expected `(\w+)` of length (\d+)(?:, got \d+)?", lambda m: f"must have exactly {_count(m[1], m[2])}"),
    (r"Expected `str` matching regex (.+)", lambda m: f"must match the regular expression {m[1]}"),
    (r"Expected `\w+` with a timezone component", lambda _: "needs an offset or Z, as in 2026-11-21T12:00:00Z"),
    (r"Expected `\w+` with no timezone component", lambda _: "must not have a time zone"),
    (r"Expected `([\w |]+)`, got `([\w |]+)`", lambda m: f"must be {_type(m[1])}, not {_type(m[2])}"),
    (r"Expected `([\w |]+)`", lambda m: f"must be {_type(m[1])}"),
    (r"Invalid (?:enum )?value (.+)", lambda m: f"cannot be {m[1]}"),
    (r"Invalid RFC3339 encoded datetime", lambda _: "must be a date and time as in 2026-11-21T12:00:00Z (RFC 3339)"),
    (r"Invalid RFC3339 encoded date", lambda _: "must be a date as in 2026-11-21 (RFC 3339)"),
    (r"Invalid RFC3339 encoded time", lambda _: "must be a time as in 12:00:00 (RFC 3339)"),
    (r"Invalid ISO8601 duration", lambda _: "must be a duration as in PT1H30M (ISO 8601)"),
    (r"Invalid UUID(?: bytes)?", lambda _: "must be a UUID"),
    (r"Invalid base64 encoded string", lambda _: "must be base64 text"),
    (r"Invalid decimal string", lambda _: "must be a decimal number"),
    (r"Invalid epoch timestamp", lambda _: "must be a timestamp in seconds"),
    (r"(?:Integer value|Number|Duration is|Timestamp is) out of range ?", lambda _: "is out of range"),
)
_MEMBERS: tuple[tuple[str, str], ...] = (
    (r"Object missing required field `(.*)`", "is required"),
    (r"Object contains unknown field `(.*)`", "is not a known field"),
)
_SYNTAX: tuple[tuple[str, Callable[[re.Match[str]], str]], ...] = (
    (r"JSON is malformed: (.+) \(byte (\d+)\)", lambda m: f"malformed JSON at byte {m[2]}: {m[1]}"),
    (r"Input data was truncated", lambda _: "malformed JSON: it ends too early"),
)


def describe_decode_error(error: Exception, *, parent: str = "", whole: str = "the value") -> str:
    """The sentence for an error of `msgspec.json.decode` or `msgspec.convert`.

    `parent` is the field that the decoded value belongs to; `whole` names the decoded value where there is no field.
    """
    field, message = split_message(str(error))
    return describe_message(message, field=_join(parent, field) if field else parent, whole=whole)


def split_message(text: str) -> tuple[str, str]:
    """The field, as in `length.count` or `prompts[0]` (empty: the whole value), and msgspec's message about it."""
    found = _PATH.match(text)
    if found is None or found["path"] is None:
        return "", text
    path = found["path"].removeprefix(".").replace("[...]", ".*").removeprefix(".")
    return (f"keys of {path}" if path else "keys") if found["key"] else path, found["message"]


def describe_message(message: str, *, field: str = "", whole: str = "the value") -> str:
    """The sentence for msgspec's message (without its path) about a field."""
    for pattern, describe in _SYNTAX:
        if found := re.fullmatch(pattern, message, re.DOTALL):
            return describe(found)
    for pattern, sentence in _MEMBERS:
        if found := re.fullmatch(pattern, message, re.DOTALL):
            return f"{_join(field, found[1])} {sentence}"
    for pattern, describe in _SENTENCES:
        if found := re.fullmatch(pattern, message, re.DOTALL):
            return f"{field or whole} {describe(found)}"
    return f"{field}: {message}" if field else message


def _join(parent: str, member: str) -> str:
    return f"{parent}{'' if member.startswith('[') else '.'}{member}" if parent else member


def _type(names: str) -> str:
    return " or ".join(_TYPES.get(name, name) for name in names.split(" | "))


def _length(kind: str, comparison: str, length: int) -> str:
    limit = _COMPARISONS[comparison]
    return _EMPTINESS.get((limit, length), f"must have {limit} {_count(kind, length)}")


def _count(kind: str, length: int | str) -> str:
    unit = _UNITS.get(kind, "item")
    plural = "entries" if unit == "entry" else f"{unit}s"
    return f"{length} {unit if int(length) == 1 else plural}"


def _number(text: str) -> str:
    """`1.0` → `1`."""
    return text.removesuffix(".0")
