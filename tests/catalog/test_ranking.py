"""Which predictions become tags, and in which order: the arithmetic over columns agrees with the rule in words."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from catalog.domain.edits import Choice, Edit, latest_choices
from catalog.domain.effective_tags import (
    Predicted,
    decisions_of,
    derive_effective_tags,
    derive_tag_state,
    rules_of,
)
from catalog.views import pairs, ranking
from contracts.events.base import Category
from contracts.events.tagging import Prediction
from contracts.ids import RunId
from contracts.tags import Acceptance, accept, most_probable_rating

IDS = {"sky": 7, "cat": 2, "dog": 3, "ash": 9}
NAMES = {number: tag for tag, number in IDS.items()}
PROBABILITIES = st.sampled_from([0.1, 0.4, 0.5, 0.50001, 0.9])  # so that many are equal
CATEGORIES: tuple[Category, ...] = ("general", "character", "rating")
PREDICTIONS = st.lists(
    st.builds(
        lambda tag, probability, category: Prediction(tag=tag, probability=probability, category=category),
        st.sampled_from([*IDS]),
        PROBABILITIES,
        st.sampled_from(CATEGORIES),
    ),
    max_size=8,
)
IMAGES = st.lists(st.lists(PREDICTIONS, max_size=3), max_size=3)
"""Of each image the predictions of its runs, newest first."""
RULES = st.builds(
    lambda general, character, of_tag, deny: rules_of({"general": general, "character": character}, of_tag, deny),
    *(PROBABILITIES, PROBABILITIES),
    st.dictionaries(st.sampled_from([*IDS]), PROBABILITIES, max_size=1),
    st.sets(st.sampled_from([*IDS]), max_size=1),
)
CHOICES: tuple[Choice, ...] = ("asserted", "rejected", "withdrawn")
DECISIONS = st.lists(st.tuples(st.sampled_from([*IDS]), st.sampled_from(CHOICES)), max_size=6)


def by_age(runs: Sequence[Sequence[Prediction]]) -> list[list[Predicted]]:
    """Newest first."""
    return [
        [(IDS[one.tag], one.category, one.probability, RunId(f"run_{age}"), 9 - age) for one in run]
        for age, run in enumerate(runs)
    ]


@given(run=PREDICTIONS, rules=RULES)
def test_the_tags_of_an_image_are_what_its_rules_accept(run: Sequence[Prediction], rules: Acceptance) -> None:
    shown = derive_effective_tags({}, by_age([run]), pairs.rules_by_id(rules, IDS), NAMES)
    assert shown.names == tuple(one.tag for one in accept(run, rules) if one.category != "rating")
    assert shown.rating == most_probable_rating(run)
    named, best = {*shown.names, *rules.deny}, dict[str, float]()
    for one in run:
        if one.category != "rating" and one.tag not in named:
            best[one.tag] = max(one.probability, best.get(one.tag, 0.0))
    assert [(one.tag, one.probability) for one in shown.suggestions] == sorted(
        best.items(), key=lambda item: (-item[1], item[0])
    )


@given(images=IMAGES, rules=RULES)
def test_the_tags_of_many_images_are_ranked_as_those_of_one(
    images: Sequence[Sequence[Sequence[Prediction]]], rules: Acceptance
) -> None:
    rows = [(ordinal, pairs.pack(run, IDS)) for ordinal, runs in enumerate(images) for run in runs]
    expected = {}
    for ordinal, runs in enumerate(images):
        if names := derive_effective_tags({}, by_age(runs), pairs.rules_by_id(rules, IDS), NAMES).names:
            expected[ordinal] = [IDS[name] for name in names]
    assert ranking.tags_in(rows) <= NAMES.keys()
    assert ranking.ranked(rows, pairs.rules_by_id(rules, IDS), NAMES) == expected


@given(
    decided=DECISIONS,
    runs=st.lists(PREDICTIONS, max_size=3),
    rules=RULES,
    order=st.lists(st.sampled_from([*IDS]), max_size=3),
)
def test_edits_are_decided_from_the_tags_that_are_shown(
    decided: Sequence[tuple[str, Choice]],
    runs: Sequence[Sequence[Prediction]],
    rules: Acceptance,
    order: Sequence[str],
) -> None:
    edits = [Edit(at, 0, "person", "ann", **{choice: (IDS[tag],)}) for at, (tag, choice) in enumerate(decided)]
    known = (by_age(runs), pairs.rules_by_id(rules, IDS), NAMES)
    places = [IDS[tag] for tag in order]
    shown = derive_effective_tags(decisions_of(edits), *known, places)
    state = derive_tag_state(decisions_of(edits), *known, places)
    assert (state.effective, state.rejected) == (shown.names, frozenset(shown.rejected))
    assert state.asserted == {one.tag for one in shown.tags if one.source == "person"}
    assert state.predicted == set(derive_effective_tags({}, *known).names)
    assert {tag: one.choice for tag, one in decisions_of(edits).items()} == latest_choices(edits)
    assert [one.sequence for one in decisions_of(edits).values()] == sorted(
        one.sequence for one in decisions_of(edits).values()
    )
