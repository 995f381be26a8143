"""Which predictions become tags, and in which order: the arithmetic over columns agrees with the rule in words."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from catalog.domain.edits import Choice
from catalog.domain.effective_tags import (
    Decision,
    ModelPredictions,
    derive_effective_tags,
    derive_tag_state,
    rules_of,
)
from catalog.views import pairs, ranking
from contracts.events.base import Category
from contracts.events.tagging import Prediction
from contracts.ids import RunId
from contracts.tags import Acceptance

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


def by_age(runs: Sequence[Sequence[Prediction]]) -> list[ModelPredictions]:
    """Newest first."""
    return [
        ModelPredictions(run=RunId(f"run_{age}"), sequence=9 - age, predictions=tuple(run))
        for age, run in enumerate(runs)
    ]


@given(images=IMAGES, rules=RULES)
def test_the_tags_of_many_images_are_ranked_as_those_of_one(
    images: Sequence[Sequence[Sequence[Prediction]]], rules: Acceptance
) -> None:
    rows = [(ordinal, pairs.pack(run, IDS)) for ordinal, runs in enumerate(images) for run in runs]
    expected = {}
    for ordinal, runs in enumerate(images):
        if names := derive_effective_tags((), by_age(runs), rules).names:
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
    decisions = [
        Decision(tag=tag, choice=choice, source="person", actor="ann", sequence=at)
        for at, (tag, choice) in enumerate(decided)
    ]
    shown = derive_effective_tags(decisions, by_age(runs), rules, order)
    state = derive_tag_state(decisions, by_age(runs), rules, order)
    assert (state.effective, state.rejected) == (shown.names, set(shown.rejected))
    assert state.asserted == {one.tag for one in shown.tags if one.source == "person"}
    assert state.predicted == set(derive_effective_tags((), by_age(runs), rules).names)
