"""Computes which tags an image has and why, from human decisions and model predictions. Pure.

The latest decision of a person or an import always wins: a later model run neither removes a tag somebody asserted nor
restores one they rejected.
"""

from collections.abc import Iterable, Sequence

import msgspec

from contracts import tags
from contracts.events.base import Category
from contracts.events.tagging import Prediction
from contracts.ids import RunId
from contracts.queries.datasets import TagView
from contracts.tags import Acceptance, Fixed

MAX_SUGGESTIONS = 20
"""Maximum number of predictions below the threshold that are shown, the most probable first."""

DEFAULT_THRESHOLDS: dict[Category, float] = {"general": 0.35, "character": 0.85}
"""Thresholds of a data set until others are set: the usual ones for WD models."""


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """A person or an import asserted or rejected a tag of one image."""

    tag: str
    asserted: bool
    source: str
    actor: str
    sequence: int


class ModelPredictions(msgspec.Struct, frozen=True, kw_only=True):
    """The predictions of one model run for one image; `sequence` of the commit that recorded them."""

    run: RunId
    sequence: int
    predictions: tuple[Prediction, ...]


class EffectiveTags(msgspec.Struct, frozen=True, kw_only=True):
    """`tags` in caption order: decided ones as they were asserted, then characters, then general by probability."""

    tags: tuple[TagView, ...]
    rejected: tuple[str, ...]
    suggestions: tuple[TagView, ...]
    rating: str | None

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(tag.tag for tag in self.tags)


def latest_decisions(decisions: Iterable[Decision]) -> dict[str, Decision]:
    """The latest decision on each tag, given all decisions in order. A tag asserted again keeps its position."""
    latest: dict[str, Decision] = {}
    for decision in decisions:
        before = latest.get(decision.tag)
        if before is not None and before.asserted != decision.asserted:
            del latest[decision.tag]
        latest[decision.tag] = decision
    return latest


def derive_effective_tags(
    decisions: Iterable[Decision], predictions: Sequence[ModelPredictions], thresholds: dict[Category, float]
) -> EffectiveTags:
    """The tags of one image, from all decisions in order and the current runs (one per model, the newest run first)."""
    decided = latest_decisions(decisions)
    best = _most_probable(predictions)
    categories = {tag: prediction.category for tag, (_, prediction) in best.items()}
    undecided = {tag: found for tag, found in best.items() if tag not in decided}
    acceptance = Acceptance(threshold=Fixed(above=thresholds))
    accepted = {found.tag: None for found in tags.accept((found for _, found in undecided.values()), acceptance)}
    below = sorted((-p.probability, tag) for tag, (_, p) in undecided.items() if tag not in accepted)
    ratings = (tags.most_probable_rating(run.predictions) for run in predictions)  # that of the newest run with one
    return EffectiveTags(
        tags=(
            *(_decided_tag(decision, categories) for decision in decided.values() if decision.asserted),
            *(_predicted_tag(*undecided[tag]) for tag in accepted),
        ),
        rejected=tuple(tag for tag, decision in decided.items() if not decision.asserted),
        suggestions=tuple(_predicted_tag(*undecided[tag]) for _, tag in below[:MAX_SUGGESTIONS]),
        rating=next((rating for rating in ratings if rating is not None), None),
    )


def accepted_tags(predictions: Sequence[ModelPredictions], thresholds: dict[Category, float]) -> set[str]:
    """The tags above their thresholds, decisions ignored: as in `derive_effective_tags`, but unordered."""
    best = _most_probable(predictions, above=min(thresholds.values()))
    return {tag for tag, (_, found) in best.items() if found.probability > thresholds.get(found.category, 1.0)}


def _most_probable(
    predictions: Sequence[ModelPredictions], above: float = -1.0
) -> dict[str, tuple[ModelPredictions, Prediction]]:
    """The highest probability of each tag, if it is above a limit, and its run; the newest run in a tie."""
    best: dict[str, tuple[ModelPredictions, Prediction]] = {}
    for run in predictions:
        for prediction in run.predictions:
            if prediction.probability <= above or prediction.category == "rating":
                continue
            known = best.get(prediction.tag)
            if known is None or prediction.probability > known[1].probability:
                best[prediction.tag] = (run, prediction)
    return best


def _decided_tag(decision: Decision, categories: dict[str, Category]) -> TagView:
    return TagView(
        tag=decision.tag,
        source=decision.source,
        category=categories.get(decision.tag, "general"),
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
