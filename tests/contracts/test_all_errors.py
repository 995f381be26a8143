"""Every error of a body at once: the same as msgspec finds, one after the other, when the others are mended."""

from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from contracts.all_errors import MAX_ERRORS, MAX_INSPECTED, find_errors, pointer_to
from contracts.recipe import Recipe


class Steps(msgspec.Struct, frozen=True, tag="steps", forbid_unknown_fields=True):
    count: Annotated[int, Meta(ge=1)]


class Epochs(msgspec.Struct, frozen=True, tag="epochs", forbid_unknown_fields=True):
    epochs: Annotated[float, Meta(gt=0)]


class Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: Annotated[str, Meta(min_length=1, max_length=5)]
    length: Steps | Epochs | None = None
    labels: Annotated[tuple[Annotated[str, Meta(min_length=1)], ...], Meta(max_length=3)] = ()
    rates: dict[str, Annotated[float, Meta(ge=0)]] = {}
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.seed == 13:
            raise ValueError("13 is no seed")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"name": "cat"}, {}),
        ({}, {"/name": "name is required"}),
        (
            {"name": "", "labels": ["a", "", 1], "sed": 4, "rates": {"a/b~": -1}},
            {
                "/name": "name must not be empty",
                "/labels/1": "labels[1] must not be empty",
                "/labels/2": "labels[2] must be a string, not a whole number",
                "/rates/a~1b~0": "rates.a/b~ must be at least 0",
                "/sed": "sed is not a known field",
            },
        ),
        (
            {"name": "x", "length": {"type": "steps", "count": 0, "extra": 1}},
            {"/length/count": "length.count must be at least 1", "/length/extra": "length.extra is not a known field"},
        ),
        ({"name": "x", "length": {"type": "epochs"}}, {"/length/epochs": "length.epochs is required"}),
        ({"name": "x", "length": {"type": "years"}}, {"/length": "length.type cannot be 'years'"}),
        ({"name": "x", "labels": ["a"] * 4}, {"/labels": "labels must have at most 3 items"}),
        ({"name": "x", "seed": 13}, {"": "13 is no seed"}),
        ({"name": 1, "seed": 13}, {"/name": "name must be a string, not a whole number"}),
        ([], {"": "the body must be an object, not a list"}),
        (None, {"": "the body must be an object, not null"}),
    ],
)
def test_all_errors_are_found_with_their_places(value: object, expected: dict[str, str]) -> None:
    assert {error.pointer: error.message for error in find_errors(value, Body)} == expected


def test_there_is_a_limit() -> None:
    assert len(find_errors({"name": "x", "rates": {str(number): -1 for number in range(1000)}}, Body)) == MAX_ERRORS


def test_of_a_long_list_only_the_beginning_is_looked_at_one_by_one() -> None:
    rates = dict.fromkeys(map(str, range(MAX_INSPECTED)), 1) | {"late": -1, "later": -1}
    (error,) = find_errors({"name": "x", "rates": rates}, Body)
    assert error.pointer == "/rates"
    (long,) = find_errors({"name": "x", "labels": ["a"] * 500_000}, Body)
    assert long.message == "labels must have at most 3 items"


def test_pointers_are_those_of_rfc_6901() -> None:
    assert [pointer_to(place) for place in ((), ("",), ("a", 0), ("a/b", "m~n"))] == ["", "/", "/a/0", "/a~1b/m~0n"]


TEXTS = st.sampled_from(["", "steps", "epochs", "lora", "x"])
NAMES = st.sampled_from(
    ["type", "name", "length", "count", "epochs", "labels", "rates", "seed", "adapter", "rank", "data"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-3, 3) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize("kind", [Body, Recipe], ids=["a body", "the recipe"])
@given(value=JSON)
def test_there_is_an_error_exactly_where_msgspec_finds_one(kind: Any, value: object) -> None:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError:
        assert find_errors(value, kind)
    else:
        assert find_errors(value, kind) == []
