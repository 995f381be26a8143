"""Computes which tags an image has and why, from decisions, model predictions and the rules of its data set. Pure.

The latest decision of a person or an import always wins: a later model run neither removes a tag somebody asserted nor
restores one they rejected. A withdrawn decision leaves the tag to the models again.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from catalog.domain.edits import Choice, Edit, tags_by_choice
from catalog.domain.rules import Rules
from contracts.events.base import Category
from contracts.events.datasets import ThresholdsSet
from contracts.ids import RunId
from contracts.queries.datasets import TagView
from contracts.tags import Acceptance, Fixed

MAX_SUGGESTIONS = 20
"""Maximum number of predictions below the threshold that are shown, the most probable first."""

DEFAULT_THRESHOLDS = ThresholdsSet(categories={"general": 0.35, "character": 0.85})
"""Those of a data set until others are set: the usual ones for WD models."""

T = TypeVar("T")


class Decision(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A person or an import asserted or rejected tags of one image, or withdrew an earlier decision."""

    choice: Choice
    source: str
    actor: str
    sequence: int


Decisions = Mapping[int, Decision]
"""Of one image the latest decision on each tag that was not withdrawn since, in the order they were made."""
Predicted = tuple[int, Category, float, RunId, int]
"""What a run of a model predicted for one image: tag, category, probability; the run, and the sequence of its commit.

A tuple, because a page of images has thousands.
"""
Runs = Sequence[Sequence[Predicted]]
"""The current predictions of each model for one image, of the newest run first."""


class EffectiveTags(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """`tags` in caption order: as ordered, decided ones as asserted, characters, then general by probability."""

    tags: tuple[TagView, ...]
    rejected: tuple[str, ...]
    suggestions: tuple[TagView, ...]
    rating: str | None

    @property
    def names(self) -> tuple[str, ...]:
        return tuple([tag.tag for tag in self.tags])


def rules_of(thresholds: dict[Category, float], of_tags: dict[str, float], deny: Iterable[str] = ()) -> Acceptance:
    """Which predictions become tags of the images of a data set with these thresholds."""
    return Acceptance(threshold=Fixed(above=thresholds, tags=of_tags), deny=frozenset(deny))


def decisions_of(edits: Sequence[Edit]) -> Decisions:
    """What the edits of one image decided, given all in order."""
    if len(edits) == 1 and edits[0].asserts_only:  # as imports do, and most images have nothing else
        asserted = dict.fromkeys(edits[0].asserted, _decision(edits[0], "asserted"))
        if len(asserted) == len(edits[0].asserted):
            return asserted
    latest: dict[int, Decision] = {}
    for edit in edits:
        for choice, tags in tags_by_choice(edit):
            decision = _decision(edit, choice)
            for tag in tags:
                latest.pop(tag, None)
                latest[tag] = decision
    return {tag: decision for tag, decision in latest.items() if decision.choice != "withdrawn"}


def _decision(edit: Edit, choice: Choice) -> Decision:
    return Decision(choice=choice, source=edit.source, actor=edit.actor, sequence=edit.sequence)


def derive_effective_tags(
    decided: Decisions,
    runs: Runs,
    rules: Rules,
    names: Mapping[int, str],
    order: Sequence[int] = (),
) -> EffectiveTags:
    """The tags of one image, from the decisions that hold and current predictions.

    `order`: these tags first, as far as the image has them.
    """
    best, accepted = _best_and_accepted(runs, rules)
    open_tags = [tag for tag in best if tag not in decided and tag not in rules.deny]
    below = [(-best[tag][2], names[tag], tag) for tag in open_tags if tag not in accepted]
    below.sort()
    passing = _ranked([accepted[tag] for tag in open_tags if tag in accepted], names)
    shown = in_caption_order(_choices(decided), passing, order)
    return EffectiveTags(
        tags=tuple(
            [
                _decided_tag(names[tag], decided[tag], best.get(tag))
                if tag in decided
                else _predicted_tag(names[tag], accepted[tag])
                for tag in shown
            ]
        ),
        rejected=tuple([names[tag] for tag, decision in decided.items() if decision.choice == "rejected"]),
        suggestions=tuple([_predicted_tag(name, best[tag]) for _, name, tag in below[:MAX_SUGGESTIONS]]),
        rating=_rating(runs, names),
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
    decided: Decisions,
    runs: Runs,
    rules: Rules,
    names: Mapping[int, str],
    order: Sequence[int] = (),
) -> TagState:
    """Of the same as `derive_effective_tags`; `effective` are the names that it finds."""
    _, accepted = _best_and_accepted(runs, rules)
    shown = in_caption_order(_choices(decided), _ranked(accepted.values(), names), order)
    return TagState(
        effective=tuple([names[tag] for tag in shown]),
        asserted=frozenset(names[tag] for tag, decision in decided.items() if decision.choice == "asserted"),
        rejected=frozenset(names[tag] for tag, decision in decided.items() if decision.choice == "rejected"),
        predicted=frozenset(names[tag] for tag in accepted),
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


def _choices(decided: Decisions) -> dict[int, Choice]:
    return {tag: decision.choice for tag, decision in decided.items()}


def _best_and_accepted(runs: Runs, rules: Rules) -> tuple[dict[int, Predicted], dict[int, Predicted]]:
    """What `_most_probable` and `_accepted` find. Mostly each tag is predicted once, and both are soon found."""
    predicted = [found for run in runs for found in run if found[1] != "rating"]
    best = {found[0]: found for found in predicted}
    if len(best) < len(predicted):
        return _most_probable(runs), _accepted(runs, rules)
    of_tags, above, deny = rules.of_tags, rules.categories, rules.deny
    accepted = {
        tag: found
        for tag, found in best.items()
        if found[2] > (of_tags[tag] if tag in of_tags else above.get(found[1], 1.0)) and tag not in deny
    }
    return best, accepted


def _accepted(runs: Runs, rules: Rules) -> dict[int, Predicted]:
    """The tags that some run predicts above their threshold, decisions ignored, as `contracts.tags.accept` finds them.

    Of several runs the highest probability counts, in a tie that of the newest.
    """
    of_tags, above, deny = rules.of_tags, rules.categories, rules.deny
    accepted: dict[int, Predicted] = {}
    for run in runs:
        of_run: dict[int, Predicted] = {}
        for found in run:
            tag, category, probability, _, _ = found
            threshold = of_tags[tag] if tag in of_tags else above.get(category, 1.0)
            # A name in two categories counts as what comes first in captions.
            if (
                probability > threshold
                and category != "rating"
                and tag not in deny
                and (tag not in of_run or _place(found) < _place(of_run[tag]))
            ):
                of_run[tag] = found
        for tag, found in of_run.items():
            if tag not in accepted or found[2] > accepted[tag][2]:
                accepted[tag] = found
    return accepted


def _place(found: Predicted) -> tuple[bool, float]:
    """In captions: characters, then general, each by probability."""
    _, category, probability, _, _ = found
    return category != "character", -probability


def _ranked(accepted: Iterable[Predicted], names: Mapping[int, str]) -> list[int]:
    """Accepted tags in the order of captions."""
    places = [(category != "character", -probability, names[tag], tag) for tag, category, probability, _, _ in accepted]
    places.sort()
    return [tag for _, _, _, tag in places]


def _most_probable(runs: Runs) -> dict[int, Predicted]:
    """The highest probability of each tag; of the newest run in a tie. Ratings are no tags."""
    best: dict[int, Predicted] = {}
    for run in runs:
        for found in run:
            tag, category, probability, _, _ = found
            if category != "rating" and (tag not in best or probability > best[tag][2]):
                best[tag] = found
    return best


def _rating(runs: Runs, names: Mapping[int, str]) -> str | None:
    """The most probable one of the newest run with ratings, ties by name."""
    for run in runs:
        ratings = [(-probability, names[tag]) for tag, category, probability, _, _ in run if category == "rating"]
        if ratings:
            return min(ratings)[1]
    return None


# A page has thousands of these: arguments by position take half the time.


def _decided_tag(name: str, decision: Decision, predicted: Predicted | None) -> TagView:
    """Its category is that of what is predicted."""
    category = "general" if predicted is None else predicted[1]
    return TagView(name, decision.source, category, None, None, decision.actor, decision.sequence)


def _predicted_tag(name: str, found: Predicted) -> TagView:
    _, category, probability, run, sequence = found
    return TagView(name, "model", category, probability, run, None, sequence)
