"""Tags: canonical form, acceptance of predictions, merging of edits."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import Rejected
from contracts.events.base import Category
from contracts.events.tagging import Prediction
from contracts.tags import (
    MAX_TAG_CHARACTERS,
    Acceptance,
    Delta,
    Fixed,
    MCut,
    ThresholdRule,
    accept,
    canonicalize,
    diff,
    most_probable_rating,
)
from contracts.texts.writing import write_tags

NAMES = st.sampled_from(["a", "b", "c", "d", "e", "f"])
TAGS = st.lists(NAMES, unique=True)
CATEGORIES = st.sampled_from(["general", "character", "rating"])
PREDICTIONS = st.lists(
    st.builds(Prediction, tag=NAMES, category=CATEGORIES, probability=st.floats(0.05, 1)),
    max_size=12,
    unique_by=lambda prediction: (prediction.tag, prediction.category),
)
THRESHOLD_RULES = st.one_of(
    st.builds(Fixed, above=st.dictionaries(st.sampled_from(["general", "character"]), st.floats(0, 1))),
    st.builds(MCut, floors=st.dictionaries(st.sampled_from(["general", "character"]), st.floats(0, 1))),
)
ACCEPTANCES = st.builds(
    Acceptance, threshold=THRESHOLD_RULES, deny=st.frozensets(NAMES), max_tags=st.none() | st.integers(1, 5)
)


def general(**probabilities: float) -> list[Prediction]:
    return [Prediction(tag=tag, probability=p) for tag, p in probabilities.items()]


def build_prediction(category: Category, tag: str, p: float) -> Prediction:
    return Prediction(tag=tag, category=category, probability=p)


def accepted_tags(predictions: Iterable[Prediction], rule: ThresholdRule) -> list[str]:
    return [prediction.tag for prediction in accept(predictions, Acceptance(threshold=rule))]


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("long hair", "long_hair"),
        ("  Long   Hair ", "long_hair"),
        ("_long__hair_", "long_hair"),
        ("cafe\u0301", "caf\u00e9"),
        ("\uff34\uff21\uff27", "\uff54\uff41\uff47"),
        ("@ @", "@_@"),
        ("O_O", "o_o"),
        ("(long hair:1.2)", "long_hair"),
        ("((smile:1.1):1.3)", "smile"),
        ("saber_(fate)", "saber_(fate)"),
        (":d", ":d"),
        (";)", ";)"),
        ("\\m/", "\\m/"),
        ('"quoted"', '"quoted"'),
    ],
)
def test_tags_have_one_canonical_form(text: str, tag: str) -> None:
    assert canonicalize(text) == tag


@pytest.mark.parametrize(
    "text", ["", "   ", "___", "a,b", "a;;;b", "a|||b", "a\nb", "a\u2028b", "a\x00b", "a\u202eb", "\ud800", "x" * 201]
)
def test_invalid_tags_are_rejected_with_a_reason(text: str) -> None:
    with pytest.raises(Rejected, match="tag"):
        canonicalize(text)


def test_a_text_that_is_too_long_is_rejected() -> None:
    with pytest.raises(Rejected, match=str(MAX_TAG_CHARACTERS)):
        canonicalize("a" + " " * 5000 + "b")


@given(st.text(max_size=40))
def test_canonicalization_is_idempotent(text: str) -> None:
    try:
        tag = canonicalize(text)
    except Rejected:
        return
    assert canonicalize(tag) == tag
    assert canonicalize(write_tags([tag])) == tag
    assert not set(tag) & set(",\n\r ")


def test_a_fixed_threshold_is_exclusive_and_per_category() -> None:
    predictions = [*general(on=0.35, over=0.351), build_prediction("character", "miku", 0.8)]
    assert accepted_tags(predictions, Fixed(above={"general": 0.35, "character": 0.85})) == ["over"]
    assert accepted_tags(predictions, Fixed(above={"character": 0.5})) == ["miku"]


def test_characters_come_first_then_general_by_probability_then_by_name() -> None:
    predictions = [
        *general(b=0.5, c=0.9, a=0.5),
        build_prediction("character", "z", 0.2),
        build_prediction("rating", "y", 1.0),
    ]
    rule = Fixed(above={"general": 0, "character": 0, "rating": 0})
    assert accepted_tags(predictions, rule) == ["z", "c", "a", "b", "y"]


def test_mcut_cuts_in_the_middle_of_the_widest_gap() -> None:
    predictions = general(a=0.9, b=0.8, c=0.3, d=0.25)
    assert accepted_tags(predictions, MCut(floors={"general": 0.0})) == ["a", "b"]


def test_mcut_has_a_floor_for_characters_against_noise() -> None:
    assert accepted_tags([build_prediction("character", "who", 0.12)], MCut()) == []


def test_mcut_of_a_single_tag_keeps_it() -> None:
    assert accepted_tags(general(a=0.3), MCut()) == ["a"]


@given(st.lists(st.floats(0.05, 1), min_size=1, max_size=12))
def test_mcut_keeps_the_most_probable_of_a_category(probabilities: list[float]) -> None:
    predictions = [build_prediction("general", f"tag_{i}", max(p, 0.06)) for i, p in enumerate(probabilities)]
    highest = max(p.probability for p in predictions)
    accepted = accept(predictions, Acceptance(threshold=MCut()))
    assert max(p.probability for p in accepted) == highest


def test_denied_tags_do_not_count_toward_the_maximum() -> None:
    predictions = general(a=0.9, b=0.8, c=0.7)
    accepted = accept(predictions, Acceptance(deny=frozenset({"a"}), max_tags=1))
    assert [prediction.tag for prediction in accepted] == ["b"]


@given(PREDICTIONS, ACCEPTANCES)
def test_accepted_tags_are_limited_unique_allowed_and_independent_of_input_order(
    predictions: list[Prediction], acceptance: Acceptance
) -> None:
    accepted = accept(predictions, acceptance)
    assert accepted == accept(reversed(predictions), acceptance)
    tags = [prediction.tag for prediction in accepted]
    assert len(set(tags)) == len(tags) <= (acceptance.max_tags or 99)
    assert not set(tags) & acceptance.deny
    assert set(accepted) <= set(predictions)


@given(PREDICTIONS, st.floats(0, 1), st.floats(0, 1))
def test_a_lower_threshold_never_loses_a_tag(predictions: list[Prediction], first: float, second: float) -> None:
    low, high = sorted((first, second))
    assert set(accepted_tags(predictions, Fixed(above={"general": high}))) <= set(
        accepted_tags(predictions, Fixed(above={"general": low}))
    )


def test_the_rating_is_the_most_probable_and_ties_go_by_name() -> None:
    assert (
        most_probable_rating(
            [
                build_prediction("rating", "b", 0.4),
                build_prediction("rating", "a", 0.4),
                build_prediction("general", "c", 0.9),
            ]
        )
        == "a"
    )
    assert most_probable_rating(general(a=0.9)) is None


def test_an_edit_names_only_what_differs_from_what_was_seen() -> None:
    assert diff(seen=["a", "b"], proposed=["a", "b", "mine"]) == Delta(add=("mine",))


@given(TAGS, TAGS)
def test_an_edit_makes_what_was_proposed_of_what_was_seen(before: list[str], after: list[str]) -> None:
    edit = diff(before, after)
    assert {*before} - {*edit.remove} | {*edit.add} == {*after}
    assert {*edit.add, *edit.remove} == {*before} ^ {*after}
