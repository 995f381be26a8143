from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import Rejected
from contracts.events import Category, Prediction
from contracts.tags import (
    KAOMOJI,
    LONGEST,
    Acceptance,
    Bar,
    Delta,
    Fixed,
    MCut,
    accepted,
    canonical,
    delta,
    escaped,
    merged,
    rating,
    render,
)

NAMES = st.sampled_from(["a", "b", "c", "d", "e", "f"])
TAGS = st.lists(NAMES, unique=True)
CATEGORIES = st.sampled_from(["general", "character", "rating"])
GUESSES = st.lists(
    st.builds(Prediction, tag=NAMES, category=CATEGORIES, probability=st.floats(0.05, 1)),
    max_size=12,
    unique_by=lambda guess: (guess.tag, guess.category),
)
BARS = st.one_of(
    st.builds(Fixed, above=st.dictionaries(st.sampled_from(["general", "character"]), st.floats(0, 1))),
    st.builds(MCut, floors=st.dictionaries(st.sampled_from(["general", "character"]), st.floats(0, 1))),
)
ACCEPTANCES = st.builds(Acceptance, bar=BARS, deny=st.frozensets(NAMES), most=st.none() | st.integers(1, 5))


def general(**chances: float) -> list[Prediction]:
    return [Prediction(tag=tag, probability=p) for tag, p in chances.items()]


def guess(category: Category, tag: str, p: float) -> Prediction:
    return Prediction(tag=tag, category=category, probability=p)


def names(predictions: Iterable[Prediction], bar: Bar) -> list[str]:
    return [guess.tag for guess in accepted(predictions, Acceptance(bar=bar))]


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
def test_a_tag_is_stored_in_one_form(text: str, tag: str) -> None:
    assert canonical(text) == tag


@pytest.mark.parametrize(
    "text", ["", "   ", "___", "a,b", "a;;;b", "a|||b", "a\nb", "a\u2028b", "a\x00b", "a\u202eb", "\ud800", "x" * 201]
)
def test_what_cannot_be_a_tag_is_refused_with_a_reason(text: str) -> None:
    with pytest.raises(Rejected, match="tag"):
        canonical(text)


def test_a_text_too_long_is_not_cut_to_a_tag() -> None:
    with pytest.raises(Rejected, match=str(LONGEST)):
        canonical("a" + " " * 5000 + "b")


@given(st.text(max_size=40))
def test_the_stored_form_of_the_stored_form_is_itself(text: str) -> None:
    try:
        tag = canonical(text)
    except Rejected:
        return
    assert canonical(tag) == tag
    assert canonical(render(tag)) == tag
    assert not set(tag) & set(",\n\r ")


@pytest.mark.parametrize("face", sorted(KAOMOJI))
def test_faces_keep_their_underscore(face: str) -> None:
    assert canonical(face) == face
    assert render(face) == face


def test_there_are_nineteen_faces() -> None:
    assert len(KAOMOJI) == 19


def test_captions_have_spaces_and_escape_only_when_asked() -> None:
    assert render("saber_(fate)") == "saber (fate)"
    assert escaped(render("saber_(fate)")) == "saber \\(fate\\)"
    assert escaped("\\(^o^)/") == "\\\\\\(^o^\\)/"


def test_a_fixed_bar_is_strict_and_per_category() -> None:
    predictions = [*general(on=0.35, over=0.351), guess("character", "miku", 0.8)]
    assert names(predictions, Fixed(above={"general": 0.35, "character": 0.85})) == ["over"]
    assert names(predictions, Fixed(above={"character": 0.5})) == ["miku"]


def test_characters_come_first_then_general_by_probability_then_by_name() -> None:
    predictions = [*general(b=0.5, c=0.9, a=0.5), guess("character", "z", 0.2), guess("rating", "y", 1.0)]
    bar = Fixed(above={"general": 0, "character": 0, "rating": 0})
    assert names(predictions, bar) == ["z", "c", "a", "b", "y"]


def test_mcut_cuts_in_the_middle_of_the_widest_gap() -> None:
    predictions = general(a=0.9, b=0.8, c=0.3, d=0.25)
    assert names(predictions, MCut(floors={"general": 0.0})) == ["a", "b"]


def test_mcut_has_a_floor_for_characters_against_noise() -> None:
    assert names([guess("character", "who", 0.12)], MCut()) == []


def test_mcut_of_a_single_tag_keeps_it() -> None:
    assert names(general(a=0.3), MCut()) == ["a"]


@given(st.lists(st.floats(0.05, 1), min_size=1, max_size=12))
def test_mcut_keeps_the_most_probable_of_a_category(chances: list[float]) -> None:
    guesses = [guess("general", f"tag_{i}", max(p, 0.06)) for i, p in enumerate(chances)]
    best = max(p.probability for p in guesses)
    kept = accepted(guesses, Acceptance(bar=MCut()))
    assert max(p.probability for p in kept) == best


def test_denied_tags_do_not_count_toward_the_most() -> None:
    predictions = general(a=0.9, b=0.8, c=0.7)
    chosen = accepted(predictions, Acceptance(deny=frozenset({"a"}), most=1))
    assert [guess.tag for guess in chosen] == ["b"]


@given(GUESSES, ACCEPTANCES)
def test_accepted_tags_are_few_unique_allowed_and_in_order_whatever_order_they_came_in(
    guesses: list[Prediction], acceptance: Acceptance
) -> None:
    chosen = accepted(guesses, acceptance)
    assert chosen == accepted(reversed(guesses), acceptance)
    tags = [chosen_one.tag for chosen_one in chosen]
    assert len(set(tags)) == len(tags) <= (acceptance.most or 99)
    assert not set(tags) & acceptance.deny
    assert set(chosen) <= set(guesses)


@given(GUESSES, st.floats(0, 1), st.floats(0, 1))
def test_a_lower_bar_never_loses_a_tag(guesses: list[Prediction], one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert set(names(guesses, Fixed(above={"general": high}))) <= set(names(guesses, Fixed(above={"general": low})))


def test_the_rating_is_the_most_probable_and_ties_go_by_name() -> None:
    assert rating([guess("rating", "b", 0.4), guess("rating", "a", 0.4), guess("general", "c", 0.9)]) == "a"
    assert rating(general(a=0.9)) is None


def test_edits_of_different_tags_both_stand() -> None:
    mine = delta(seen=["a", "b"], proposed=["a", "b", "mine"])
    assert merged(["a", "theirs"], mine) == ("a", "theirs", "mine")


def test_what_is_removed_stays_removed_under_its_alias_too() -> None:
    assert merged(["a"], Delta(add=("old",), remove=("new",)), {"old": "new"}) == ("a",)


@given(TAGS, TAGS)
def test_an_edit_nobody_crossed_gives_just_what_was_proposed(before: list[str], after: list[str]) -> None:
    assert set(merged(before, delta(before, after))) == set(after)


@given(TAGS, TAGS, TAGS)
def test_an_edit_touches_only_what_it_names_and_twice_is_once(base: list[str], to: list[str], now: list[str]) -> None:
    edit = delta(base, to)
    once = merged(now, edit)
    assert merged(once, edit) == once
    assert set(once) ^ set(now) <= {*edit.add, *edit.remove}


@given(TAGS, TAGS, TAGS)
def test_edits_of_two_people_who_saw_the_same_commute_where_they_do_not_clash(
    base: list[str], mine: list[str], theirs: list[str]
) -> None:
    one, other = delta(base, mine), delta(base, theirs)
    assert set(merged(merged(base, one), other)) == set(merged(merged(base, other), one))
