"""Which tags an image has, and why: what people decided stands over what models saw. Pure.

The latest decision of a person or an import wins, whenever a model speaks: a late run neither deletes a tag somebody
asserted nor brings back one they rejected.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from contracts import tags
from contracts.events import Category, Prediction
from contracts.ids import RunId
from contracts.queries import TagView
from contracts.tags import Acceptance, Fixed

SUGGESTIONS = 20
"""So many predictions under the threshold are shown, the most probable first."""

DEFAULTS: dict[Category, float] = {"general": 0.35, "character": 0.85}
"""Thresholds of a data set until somebody sets others: the community's for WD models."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Somebody asserted or rejected a tag of one image."""

    tag: str
    asserted: bool
    source: str
    actor: str
    sequence: int


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What one run of a model saw in one image; `sequence` of the commit that says so."""

    run: RunId
    sequence: int
    predictions: tuple[Prediction, ...]


@dataclass(frozen=True, kw_only=True)
class Standing:
    """`tags` that hold: decided ones in the order they were asserted, then characters, then general by probability."""

    tags: tuple[TagView, ...]
    rejected: tuple[str, ...]
    suggestions: tuple[TagView, ...]
    rating: str | None

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(tag.tag for tag in self.tags)


def latest(decisions: Iterable[Decision]) -> dict[str, Decision]:
    """The decisions that count, from all in the order they were made. A tag asserted again keeps its place."""
    current: dict[str, Decision] = {}
    for decision in decisions:
        before = current.get(decision.tag)
        if before is not None and before.asserted != decision.asserted:
            del current[decision.tag]
        current[decision.tag] = decision
    return current


def standing(decisions: Iterable[Decision], seen: Sequence[Seen], thresholds: dict[Category, float]) -> Standing:
    """The tags of one image, from all decisions in order and the current runs (one a model, the newest run first)."""
    decided = latest(decisions)
    best = _most_probable(seen)
    categories = {tag: prediction.category for tag, (_, prediction) in best.items()}
    open_ones = {tag: sight for tag, sight in best.items() if tag not in decided}
    accepted = _accepted(open_ones, thresholds)
    under = sorted((-p.probability, tag) for tag, (_, p) in open_ones.items() if tag not in accepted)
    return Standing(
        tags=(
            *(_decided(choice, categories) for choice in decided.values() if choice.asserted),
            *(_predicted(*open_ones[tag]) for tag in accepted),
        ),
        rejected=tuple(tag for tag, choice in decided.items() if not choice.asserted),
        suggestions=tuple(_predicted(*open_ones[tag]) for _, tag in under[:SUGGESTIONS]),
        rating=_rating(seen),
    )


def accepted(seen: Sequence[Seen], thresholds: dict[Category, float]) -> set[str]:
    """The tags that hold by what models saw, where nobody decided: those of `standing` without its order."""
    low = min(thresholds.values())
    best: dict[str, Prediction] = {}
    for sight in seen:
        for guess in sight.predictions:
            if guess.probability > low and guess.category != "rating":
                known = best.get(guess.tag)
                if known is None or guess.probability > known.probability:
                    best[guess.tag] = guess
    return {tag for tag, guess in best.items() if guess.probability > thresholds.get(guess.category, 1.0)}


def _most_probable(seen: Sequence[Seen]) -> dict[str, tuple[Seen, Prediction]]:
    """Each tag with the model that is surest of it; the newest run where two are as sure."""
    best: dict[str, tuple[Seen, Prediction]] = {}
    for sight in seen:
        for prediction in sight.predictions:
            if prediction.category == "rating":
                continue
            known = best.get(prediction.tag)
            if known is None or prediction.probability > known[1].probability:
                best[prediction.tag] = (sight, prediction)
    return best


def _accepted(sights: dict[str, tuple[Seen, Prediction]], thresholds: dict[Category, float]) -> dict[str, None]:
    chosen = tags.accepted((guess for _, guess in sights.values()), Acceptance(bar=Fixed(above=thresholds)))
    return dict.fromkeys(guess.tag for guess in chosen)


def _rating(seen: Sequence[Seen]) -> str | None:
    """What the newest run that rates says."""
    return next((found for sight in seen if (found := tags.rating(sight.predictions)) is not None), None)


def _decided(choice: Decision, categories: dict[str, Category]) -> TagView:
    return TagView(
        tag=choice.tag,
        source=choice.source,
        category=categories.get(choice.tag, "general"),
        actor=choice.actor,
        sequence=choice.sequence,
    )


def _predicted(sight: Seen, prediction: Prediction) -> TagView:
    return TagView(
        tag=prediction.tag,
        source="model",
        category=prediction.category,
        probability=prediction.probability,
        run=sight.run,
        sequence=sight.sequence,
    )
