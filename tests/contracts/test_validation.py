"""Validation messages of msgspec as sentences: one example of each message, produced by msgspec itself."""

import datetime as dt
import decimal
import uuid
from typing import Annotated, Any, Literal

import msgspec
import pytest
from msgspec import Meta

from contracts.validation import describe_decode_error, describe_message, split_message


class Steps(msgspec.Struct, tag="steps", forbid_unknown_fields=True):
    count: Annotated[int, Meta(ge=1)] = 1


class Epochs(msgspec.Struct, tag="epochs"):
    count: int = 1


class Point(msgspec.Struct, array_like=True):
    x: int
    y: int = 0


class Body(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    length: Steps | Epochs = msgspec.field(default_factory=Steps)
    captions: dict[str, Annotated[str, Meta(max_length=2)]] = {}
    pairs: list[tuple[int, int]] = []
    ordinals: dict[int, int] = {}


ROWS: list[tuple[Any, bytes, str]] = [
    (Body, b"{}", "name is required"),
    (Body, b'{"nmae":"x"}', "nmae is not a known field"),
    (Body, b'{"name":7}', "name must be a string, not a whole number"),
    (Body, b'{"name":"x","length":{"type":"steps","count":0}}', "length.count must be at least 1"),
    (Body, b'{"name":"x","length":{"type":"steps","cuont":1}}', "length.cuont is not a known field"),
    (Body, b'{"name":"x","length":{"type":"miles"}}', "length.type cannot be 'miles'"),
    (Body, b'{"name":"x","length":{}}', "length.type is required"),
    (Body, b'{"name":"x","length":{"type":1}}', "length.type must be a string"),
    (Body, b'{"name":"x","captions":{"a":"long"}}', "captions.* must have at most 2 characters"),
    (Body, b'{"name":"x","pairs":[[1,"a"]]}', "pairs[0][1] must be a whole number, not a string"),
    (Body, b'{"name":"x","pairs":[[1]]}', "pairs[0] must have exactly 2 items"),
    (Body, b'{"name":"x","ordinals":{"a":1}}', "keys of ordinals must be a whole number, not a string"),
    (dict[int, int], b'{"a":1}', "keys must be a whole number, not a string"),
    (list[int], b'["a"]', "[0] must be a whole number, not a string"),
    (Body, b"[]", "the value must be an object, not a list"),
    (int | None, b'"x"', "the value must be a whole number or null, not a string"),
    (bool, b'"x"', "the value must be true or false, not a string"),
    (Annotated[int, Meta(le=5)], b"6", "the value must be at most 5"),
    (Annotated[float, Meta(gt=0)], b"0", "the value must be greater than 0"),
    (Annotated[float, Meta(lt=0.5)], b"1", "the value must be less than 0.5"),
    (Annotated[int, Meta(multiple_of=8)], b"7", "the value must be a multiple of 8"),
    (Annotated[str, Meta(min_length=1)], b'""', "the value must not be empty"),
    (Annotated[str, Meta(min_length=2)], b'""', "the value must have at least 2 characters"),
    (Annotated[str, Meta(max_length=1)], b'"ab"', "the value must have at most 1 character"),
    (Annotated[str, Meta(pattern="^x$")], b'"ab"', "the value must match the regular expression '^x$'"),
    (Annotated[bytes, Meta(min_length=2)], b'""', "the value must have at least 2 bytes"),
    (Annotated[list[int], Meta(min_length=2)], b"[]", "the value must have at least 2 items"),
    (Annotated[list[int], Meta(max_length=0)], b"[1]", "the value must be empty"),
    (Annotated[dict[str, int], Meta(min_length=2)], b"{}", "the value must have at least 2 entries"),
    (Point, b"[]", "the value must not be empty"),
    (Literal["a", "b"], b'"c"', "the value cannot be 'c'"),
    (Literal[1, 2], b"3", "the value cannot be 3"),
    (dt.datetime, b'"x"', "the value must be a date and time as in 2026-11-21T12:00:00Z (RFC 3339)"),
    (dt.date, b'"x"', "the value must be a date as in 2026-11-21 (RFC 3339)"),
    (dt.time, b'"x"', "the value must be a time as in 12:00:00 (RFC 3339)"),
    (dt.timedelta, b'"x"', "the value must be a duration as in PT1H30M (ISO 8601)"),
    (
        Annotated[dt.datetime, Meta(tz=True)],
        b'"2026-01-01T00:00:00"',
        "the value needs an offset or Z, as in 2026-11-21T12:00:00Z",
    ),
    (Annotated[dt.datetime, Meta(tz=False)], b'"2026-01-01T00:00:00Z"', "the value must not have a time zone"),
    (uuid.UUID, b'"x"', "the value must be a UUID"),
    (decimal.Decimal, b'"x"', "the value must be a decimal number"),
    (bytes, b'"x"', "the value must be base64 text"),
    (float, b"1e999", "the value is out of range"),
    (Body, b"{", "malformed JSON: it ends too early"),
    (Body, b"{x}", "malformed JSON at byte 1: object keys must be strings"),
    (list[int], b"[1}", "malformed JSON at byte 2: expected ',' or ']'"),
]


@pytest.mark.parametrize(("type_", "text", "sentence"), ROWS, ids=[row[2] for row in ROWS])
def test_each_message_becomes_a_sentence_that_names_the_field(type_: Any, text: bytes, sentence: str) -> None:
    with pytest.raises(msgspec.DecodeError) as caught:
        msgspec.json.decode(text, type=type_)
    assert describe_decode_error(caught.value) == sentence


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        ("Expected `array` of length 1 to 2, got 3", "x must have 1 to 2 items"),
        ("Expected `array` of at least length 2, got 1", "x must have at least 2 items"),
        ("Expected `array` of at most length 2, got 3", "x must have at most 2 items"),
        ("Expected `array` of length 2, got 3", "x must have exactly 2 items"),
        ("Integer value out of range", "x is out of range"),
        ("Timestamp is out of range ", "x is out of range"),
        ("a message that msgspec may add one day", "x: a message that msgspec may add one day"),
    ],
)
def test_other_messages_of_msgspec_become_sentences(message: str, sentence: str) -> None:
    assert describe_message(message, field="x") == sentence


def test_the_decoded_value_itself_can_be_named() -> None:
    inner = msgspec.ValidationError("Expected `int` >= 1 - at `$.count`")
    outer = msgspec.ValidationError("Expected `object`, got `int`")
    assert describe_decode_error(inner, parent="length") == "length.count must be at least 1"
    assert describe_decode_error(outer, parent="captions") == "captions must be an object, not a whole number"
    assert describe_decode_error(outer, whole="the body") == "the body must be an object, not a whole number"
    assert describe_message("Object missing required field `name`", whole="the body") == "name is required"


@pytest.mark.parametrize("text", ["", "`", "Expected", "a - at b", "Invalid value ' - at `$.x`'", "x - at `$.`"])
def test_any_text_can_be_split_and_described(text: str) -> None:
    split_message(text)
    assert isinstance(describe_decode_error(ValueError(text)), str)
