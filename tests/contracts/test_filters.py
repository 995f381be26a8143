"""Filters and sort orders: their bounds, their two forms, and what a parser's error points at."""

import msgspec
import pytest
from hypothesis import given

from contracts.errors import Invalid, Rejected
from contracts.filter_parser import MAX_FILTER_CHARACTERS
from contracts.filter_text import canonical, parse_filter, parse_sort, read_filter, render, render_sort
from contracts.filters import (
    MAX_DEPTH,
    MAX_TERMS,
    AddedSince,
    And,
    Aspect,
    Captioned,
    Confidence,
    ContainsText,
    DuplicateOf,
    Filter,
    HasRejected,
    HasSource,
    HasTag,
    Not,
    Or,
    ReviewState,
    Size,
    Untagged,
    uses_text,
)
from contracts.ids import ImageId
from contracts.sorting import Sort, SortBy, SortByConfidence
from tests.contracts.filter_values import FILTERS, SORTS

HAT, CAP, SOLO = HasTag("hat"), HasTag("cap"), HasTag("solo")


@given(FILTERS)
def test_a_rendered_filter_is_read_as_the_same(filter_: Filter) -> None:
    assert parse_filter(render(filter_)) == filter_


@given(FILTERS)
def test_the_json_form_is_read_as_the_same(filter_: Filter) -> None:
    assert read_filter(msgspec.json.encode(filter_).decode()) == filter_


@given(FILTERS)
def test_every_filter_is_described_in_one_line(filter_: Filter) -> None:
    described = filter_.describe()
    assert described == described.strip() != ""
    assert "\n" not in described


@given(SORTS)
def test_a_rendered_sort_order_is_read_as_the_same(sort: Sort) -> None:
    assert parse_sort(render_sort(sort)) == sort
    assert msgspec.json.decode(msgspec.json.encode(sort), type=Sort) == sort


@pytest.mark.parametrize(
    ("text", "filter_"),
    [
        ("1girl -solo (hat | cap)", And((HasTag("1girl"), Not(SOLO), Or((HAT, CAP))))),
        ("hat solo | cap", Or((And((HAT, SOLO)), CAP))),
        ("((hat))", HAT),
        ("Long_Hair", HasTag("long_hair")),
        ('"Long  Hair"', HasTag("long_hair")),
        ("cat_(animal) hat", And((HasTag("cat_(animal)"), HAT))),
        ("(cat_(animal))", HasTag("cat_(animal)")),
        ("re:zero", HasTag("re:zero")),
        ("untagged", Untagged()),
        ('"untagged"', HasTag("untagged")),
        ("-captioned", Not(Captioned())),
        ("--hat", Not(Not(HAT))),
        ("-(hat cap)", Not(And((HAT, CAP)))),
        ("unreviewed", ReviewState(reviewed=False)),
        ('caption:"a \\"red\\" hat"', ContainsText('a "red" hat', "caption")),
        ("name:IMG_2 text:x", And((ContainsText("IMG_2", "name"), ContainsText("x", "any")))),
        ("aspect>1.5", Aspect(above=1.5)),
        ("width>=256<=512", Size(of="width", at_least=256, at_most=512)),
        ("bytes=1000", Size(of="bytes", at_least=1000, at_most=1000)),
        ("conf:hat>=0.6", Confidence(tag="hat", at_least=0.6)),
        ('conf:"<3"<0.5', Confidence(tag="<3", below=0.5)),
        ("rejected:hat", HasRejected("hat")),
        ("source:import", HasSource(source="import")),
        ("(source:model)", HasSource(source="model")),
        ("source:model:hat", HasSource(source="model", tag="hat")),
        ("duplicate:img_1", DuplicateOf(image=ImageId("img_1"))),
        ("duplicate:img_1<=0", DuplicateOf(image=ImageId("img_1"), distance=0)),
        ("since:17", AddedSince(sequence=17)),
    ],
)
def test_what_people_type_is_read(text: str, filter_: Filter) -> None:
    assert parse_filter(text) == filter_


def test_a_date_begins_at_midnight_utc() -> None:
    assert parse_filter("since:2026-11-21") == parse_filter("since:2026-11-21T00:00:00Z")


@pytest.mark.parametrize(
    ("text", "position", "sentence"),
    [
        ("", 1, "a term is missing here"),
        ("   ", 4, "a term is missing here"),
        ("hat |", 6, "a term is missing here"),
        ("hat ()", 6, "a term is missing here"),
        ("hat (cap", 5, "this parenthesis is never closed"),
        ("hat) cap", 4, "there is no parenthesis that this one closes"),
        ("hat - cap", 5, "a minus stands directly before what it excludes"),
        ('hat "cap', 5, 'this quote is never closed, or a backslash is not before " or another one'),
        ('"a\\b"', 1, 'this quote is never closed, or a backslash is not before " or another one'),
        ("hat aspect>", 11, "a comparison with a number is expected here, as in >=0.5"),
        ("width>=5px", 9, "a space is missing after the number"),
        ("width>=5>=6", 9, "this bound is given twice"),
        ("width>5<=3", 1, "no number is at least 5 and at most 3"),
        ("hat score>5", 5, "score is nothing that can be compared; put quotes around a tag"),
        ('title:"x"', 1, "title: is no field of a filter; put quotes around a whole tag"),
        ("source:me", 8, "a source is person, import or model"),
        ("conf:hat", 9, "a comparison with a number is expected here, as in >=0.5"),
        ('caption:""', 9, "the text to search for has 1 to 200 characters"),
        ("caption: red", 9, "a word is expected here"),
        ("duplicate:img_1<=17", 16, "the distance of duplicates is at most 16"),
        ("since:yesterday", 7, "a time or a sequence is expected here"),
        ("since:2026-13-01", 7, "this is no time as in 2026-11-21T12:00:00Z and no sequence"),
        ("since:2026-11-01T10:00:00", 7, "the time needs an offset or Z, as in 2026-11-21T12:00:00Z"),
        ("a,b", 1, "a tag cannot contain ',', or it would become two tags: 'a,b'"),
        ("-" * MAX_DEPTH + "hat", MAX_DEPTH + 1, "a filter nests at most 8 levels"),
        ("(" * 500 + "hat", MAX_DEPTH + 1, "a filter nests at most 8 levels"),
        (" ".join("x" * (MAX_TERMS + 1)), 1, "a filter has at most 64 terms"),
        ("x" * (MAX_FILTER_CHARACTERS + 1), MAX_FILTER_CHARACTERS + 1, "has at most 4000 characters"),
    ],
)
def test_an_error_says_what_is_wrong_and_where(text: str, position: int, sentence: str) -> None:
    with pytest.raises(Invalid) as raised:
        parse_filter(text)
    assert raised.value.extra["position"] == position
    assert raised.value.detail == f"filter, character {position}: {sentence}"
    assert raised.value.extra["errors"] == [{"pointer": "/filter", "message": raised.value.detail}]


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        ("{", "malformed JSON: it ends too early"),
        ('{"type": "tagged"}', "filter.type cannot be 'tagged'"),
        ('{"type": "tag"}', "filter.tag is required"),
        ('{"type": "tag", "tag": "a", "or": 1}', "filter.or is not a known field"),
        ('{"type": "tag", "tag": "a,b"}', "a tag cannot contain ',', or it would become two tags: 'a,b'"),
        ('{"type":"not","term":' * 9 + '{"type":"untagged"}' + "}" * 9, "a filter nests at most 8 levels"),
        ('{"type": "and", "terms": [{"type": "untagged"}]}', "filter.terms must have at least 2 items"),
        ('{"type": "aspect"}', "a range needs at least one of at_least, above, at_most and below"),
    ],
)
def test_errors_of_the_json_form_name_the_field(text: str, detail: str) -> None:
    with pytest.raises(Invalid) as raised:
        read_filter(text)
    assert detail in raised.value.detail


def test_deep_json_is_refused() -> None:
    with pytest.raises(Invalid):
        read_filter('{"type":"not","term":' * 100_000)


@pytest.mark.parametrize(
    ("text", "sort"),
    [
        ("added", SortBy()),
        ("-name", SortBy(key="name", descending=True)),
        ("conf:hat", SortByConfidence(tag="hat")),
        ('-conf:"long hair"', SortByConfidence(tag="long_hair", descending=True)),
    ],
)
def test_sort_orders_are_read(text: str, sort: Sort) -> None:
    assert parse_sort(text) == sort


@pytest.mark.parametrize("text", ["", "-", "--name", "colour", "conf:", "conf:a b"])
def test_unknown_sort_orders_are_refused(text: str) -> None:
    with pytest.raises(Invalid, match="sort"):
        parse_sort(text)


def test_a_filter_that_is_too_large_cannot_be_built() -> None:
    deep: Filter = HAT
    for _ in range(MAX_DEPTH - 1):
        deep = Not(deep)
    with pytest.raises(ValueError, match="at most 8 levels"):
        Not(deep)
    wide = Or((HAT,) * MAX_TERMS)
    with pytest.raises(ValueError, match="at most 64 terms"):
        And((wide, HAT))


def test_tags_of_values_become_canonical() -> None:
    assert canonical(Not(And((HasTag("Long Hair"), Captioned())))) == Not(And((HasTag("long_hair"), Captioned())))
    with pytest.raises(Rejected):
        canonical(HasTag("a,b"))


def test_filters_say_whether_they_search_texts() -> None:
    assert uses_text(parse_filter("hat -(name:x | cap)"))
    assert not uses_text(parse_filter("hat -(untagged | cap)"))


def test_a_filter_is_described_in_words() -> None:
    described = parse_filter("1girl -(solo | hat) conf:cap>=0.5<0.9").describe()
    assert described == (
        "tagged 1girl and not (tagged solo or tagged hat) and with a confidence of cap at least 0.5 and below 0.9"
    )
