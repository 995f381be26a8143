"""Computes which tags an image has and why, from human decisions and model predictions. Pure.

The latest decision of a person or an import always wins: a later model run neither removes a tag somebody asserted nor
restores one they rejected.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from contracts import tags
from contracts.events import Category, Prediction
from contracts.ids import RunId
from contracts.queries import TagView
from contracts.tags import Acceptance, Fixed

MAX_SUGGESTIONS = 20
"""Maximum number of predictions below the threshold that are shown, the most probable first."""

DEFAULT_THRESHOLDS: dict[Category, float] = {"general": 0.35, "character": 0.85}
"""Thresholds of a data set until others are set: the usual ones for WD models."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """A person or an import asserted or rejected a tag of one image."""

    tag: str
    asserted: bool
    source: str
    actor: str
    sequence: int


@dataclass(frozen=True, kw_only=True)
class ModelPredictions:
    """The predictions of one model run for one image; `sequence` of the commit that recorded them."""

    run: RunId
    sequence: int
    predictions: tuple[Prediction, ...]


@dataclass(frozen=True, kw_only=True)
class EffectiveTags:
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
    accepted = _accept(undecided, thresholds)
    below = sorted((-p.probability, tag) for tag, (_, p) in undecided.items() if tag not in accepted)
    return EffectiveTags(
        tags=(
            *(_decided_tag(decision, categories) for decision in decided.values() if decision.asserted),
            *(_predicted_tag(*undecided[tag]) for tag in accepted),
        ),
        rejected=tuple(tag for tag, decision in decided.items() if not decision.asserted),
        suggestions=tuple(_predicted_tag(*undecided[tag]) for _, tag in below[:MAX_SUGGESTIONS]),
        rating=_rating(predictions),
    )


def accepted_tags(predictions: Sequence[ModelPredictions], thresholds: dict[Category, float]) -> set[str]:
    """The tags above their thresholds, decisions ignored: as in `derive_effective_tags`, but unordered."""
    lowest = min(thresholds.values())
    best: dict[str, Prediction] = {}
    for run in predictions:
        for prediction in run.predictions:
            if prediction.probability > lowest and prediction.category != "rating":
                known = best.get(prediction.tag)
                if known is None or prediction.probability > known.probability:
                    best[prediction.tag] = prediction
    return {tag for tag, found in best.items() if found.probability > thresholds.get(found.category, 1.0)}


def _most_probable(predictions: Sequence[ModelPredictions]) -> dict[str, tuple[ModelPredictions, Prediction]]:
    """The highest probability of each tag and the run it comes from; the newest run in a tie."""
    best: dict[str, tuple[ModelPredictions, Prediction]] = {}
    for run in predictions:
        for prediction in run.predictions:
            if prediction.category == "rating":
                continue
            known = best.get(prediction.tag)
            if known is None or prediction.probability > known[1].probability:
                best[prediction.tag] = (run, prediction)
    return best


def _accept(
    candidates: dict[str, tuple[ModelPredictions, Prediction]], thresholds: dict[Category, float]
) -> dict[str, None]:
    acceptance = Acceptance(threshold=Fixed(above=thresholds))
    accepted = tags.accept((prediction for _, prediction in candidates.values()), acceptance)
    return dict.fromkeys(prediction.tag for prediction in accepted)


def _rating(predictions: Sequence[ModelPredictions]) -> str | None:
    """The rating of the newest run that has one."""
    return next(
        (found for run in predictions if (found := tags.most_probable_rating(run.predictions)) is not None), None
    )


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
