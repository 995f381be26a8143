"""Computes which tags an image has and why, from decisions, model predictions and the rules of its data set. Pure.

The latest decision of a person or an import always wins: a later model run neither removes a tag somebody asserted nor
restores one they rejected. A withdrawn decision leaves the tag to the models again.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from catalog.domain.edits import Choice
from contracts import tags
from contracts.events.base import Category
from contracts.events.datasets import ThresholdsSet
from contracts.events.tagging import Prediction
from contracts.ids import RunId
from contracts.queries.datasets import TagView
from contracts.tags import Acceptance, Fixed

MAX_SUGGESTIONS = 20
"""Maximum number of predictions below the threshold that are shown, the most probable first."""

DEFAULT_THRESHOLDS = ThresholdsSet(categories={"general": 0.35, "character": 0.85})
"""Those of a data set until others are set: the usual ones for WD models."""

T = TypeVar("T")
Found = tuple["ModelPredictions", Prediction]
"""A prediction, and the run that made it."""


class Decision(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A person or an import asserted or rejected a tag of one image, or withdrew an earlier decision."""

    tag: str
    choice: Choice
    source: str
    actor: str
    sequence: int


class ModelPredictions(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The predictions of one model run for one image; `sequence` of the commit that recorded them."""

    run: RunId
    sequence: int
    predictions: tuple[Prediction, ...]


class EffectiveTags(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """`tags` in caption order: as ordered, decided ones as asserted, characters, then general by probability."""

    tags: tuple[TagView, ...]
    rejected: tuple[str, ...]
    suggestions: tuple[TagView, ...]
    rating: str | None

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(tag.tag for tag in self.tags)


def rules_of(thresholds: dict[Category, float], of_tags: dict[str, float], deny: Iterable[str] = ()) -> Acceptance:
    """Which predictions become tags of the images of a data set with these thresholds."""
    return Acceptance(threshold=Fixed(above=thresholds, tags=of_tags), deny=frozenset(deny))


def latest_decisions(decisions: Iterable[Decision]) -> dict[str, Decision]:
    """The latest decision on each tag that was not withdrawn since, in the order they were made; given all in order."""
    latest: dict[str, Decision] = {}
    for decision in decisions:
        latest.pop(decision.tag, None)
        latest[decision.tag] = decision
    return {tag: decision for tag, decision in latest.items() if decision.choice != "withdrawn"}


def derive_effective_tags(
    decisions: Iterable[Decision],
    predictions: Sequence[ModelPredictions],
    rules: Acceptance,
    order: Sequence[str] = (),
) -> EffectiveTags:
    """The tags of one image, from the decisions that hold, in order, and the current predictions of each model.

    The newest run comes first. `order`: these tags first, as far as the image has them.
    """
    decided = latest_decisions(decisions)
    best = _most_probable(predictions)
    passing = {tag: found for tag, found in _accepted(predictions, rules).items() if tag not in decided}
    below = sorted(
        [
            (-found.probability, tag)
            for tag, (_, found) in best.items()
            if not (tag in decided or tag in passing or tag in rules.deny)
        ]
    )
    ratings = (tags.most_probable_rating(run.predictions) for run in predictions)  # that of the newest run with one
    names = in_caption_order({tag: one.choice for tag, one in decided.items()}, _ranked(passing, rules), order)
    return EffectiveTags(
        tags=tuple(
            [_decided_tag(decided[tag], best) if tag in decided else _predicted_tag(*passing[tag]) for tag in names]
        ),
        rejected=tuple([tag for tag, decision in decided.items() if decision.choice == "rejected"]),
        suggestions=tuple([_predicted_tag(*best[tag]) for _, tag in below[:MAX_SUGGESTIONS]]),
        rating=next((rating for rating in ratings if rating is not None), None),
    )


@dataclass(frozen=True)
class TagState:
    """What edits of an image's tags are decided from: tags shown, decided, and claimed by models.

    `predicted`: the tags that the image would have without any decisions.
    """

    effective: tuple[str, ...]
    asserted: frozenset[str]
    rejected: frozenset[str]
    predicted: frozenset[str]


def derive_tag_state(
    decisions: Iterable[Decision],
    predictions: Sequence[ModelPredictions],
    rules: Acceptance,
    order: Sequence[str] = (),
) -> TagState:
    """Of the same as `derive_effective_tags`; `effective` are the names that it finds."""
    choices: dict[str, Choice] = {tag: decision.choice for tag, decision in latest_decisions(decisions).items()}
    accepted = _accepted(predictions, rules)
    passing = {tag: found for tag, found in accepted.items() if tag not in choices}
    return TagState(
        effective=tuple(in_caption_order(choices, _ranked(passing, rules), order)),
        asserted=frozenset(tag for tag, choice in choices.items() if choice == "asserted"),
        rejected=frozenset(tag for tag, choice in choices.items() if choice == "rejected"),
        predicted=frozenset(_ranked(accepted, rules)),
    )


def in_caption_order(decided: Mapping[T, Choice], ranked: Iterable[T], order: Sequence[T] = ()) -> list[T]:
    """The tags of one image: as ordered, then as asserted, then what the models give it and nobody decided, as ranked.

    `decided`: the latest decisions, in the order they were made. Tags are names, or ids.
    """
    shown = [tag for tag, choice in decided.items() if choice == "asserted"]
    shown += [tag for tag in ranked if tag not in decided]
    if not order:
        return shown
    present = set(shown)
    first = [tag for tag in dict.fromkeys(order) if tag in present]
    return [*first, *(tag for tag in shown if tag not in set(first))]


def _accepted(predictions: Sequence[ModelPredictions], rules: Acceptance) -> dict[str, Found]:
    """The tags that some run predicts above their threshold, decisions ignored."""
    accepted = [msgspec.structs.replace(run, predictions=tags.accept(run.predictions, rules)) for run in predictions]
    return _most_probable(accepted)


def _ranked(found: dict[str, Found], rules: Acceptance) -> list[str]:
    """Accepted tags in the order of captions."""
    return [prediction.tag for prediction in tags.accept([prediction for _, prediction in found.values()], rules)]


def _most_probable(predictions: Iterable[ModelPredictions]) -> dict[str, Found]:
    """The highest probability of each tag, and its run; the newest run in a tie. Ratings are no tags."""
    best: dict[str, Found] = {}
    for run in predictions:
        for prediction in run.predictions:
            known = best.get(prediction.tag)
            if prediction.category != "rating" and (known is None or prediction.probability > known[1].probability):
                best[prediction.tag] = (run, prediction)
    return best


def _decided_tag(decision: Decision, best: dict[str, Found]) -> TagView:
    """`best`: what is predicted, with the categories of tags."""
    found = best.get(decision.tag)
    return TagView(
        tag=decision.tag,
        source=decision.source,
        category="general" if found is None else found[1].category,
        actor=decision.actor,
        sequence=decision.sequence,
    )


def _predicted_tag(run: ModelPredictions, prediction: Prediction) -> TagView:
    return TagView(
        tag=prediction.tag,
        source="model",
        category=prediction.category,
        probability=prediction.probability,
        run=run.run,
        sequence=run.sequence,
    )
