"""Tags: their canonical form, which predictions are accepted, what an edit changes. Pure.

The rules follow booru practice (Danbooru names, WD taggers), so that a data set means the same here as in other tools
that read its captions.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Annotated

import msgspec
from msgspec import Meta

from contracts.errors import Rejected
from contracts.events.base import Category
from contracts.events.tagging import Prediction

MAX_TAG_CHARACTERS = 200
"""Danbooru allows 170."""

_SEPARATORS = (",", ";;;", "|||")
"""Separators at which trainers split captions: a tag that contained one would become two."""

_GAPS = re.compile(r"[\s_]+")
_WEIGHTED = re.compile(r"\((.+):[0-9]+(?:\.[0-9]+)?\)\Z")
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_ZERO_WIDTH_JOINERS = "\u200c\u200d"  # invisible, but part of the spelling in Persian, Indic scripts and emoji

STORED_FLOOR = 0.05
"""Predictions above this probability are stored, so that changing a threshold needs no new tagging run."""

Probability = Annotated[float, Meta(ge=0, le=1)]


class Fixed(msgspec.Struct, frozen=True, kw_only=True, tag="fixed", forbid_unknown_fields=True):
    """Accepts a prediction above the threshold of its tag, or else of its category; without either, never."""

    above: dict[Category, Probability]
    tags: dict[str, Probability] = {}


class MCut(msgspec.Struct, frozen=True, kw_only=True, tag="mcut", forbid_unknown_fields=True):
    """A threshold per image: the middle of the widest gap between neighbouring probabilities (Largeron et al. 2012).

    Never below the floor of the category. For an image without a character it accepts noise above that floor.
    Predictions that were not stored count as one neighbour at `STORED_FLOOR`, so a gap that reaches below it is cut.
    """

    floors: dict[Category, Probability] = msgspec.field(default_factory=lambda: {"general": 0.0, "character": 0.15})


ThresholdRule = Fixed | MCut


class Acceptance(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which predictions become tags: above the threshold, not denied, and the first `max_tags` of those.

    The default thresholds are the usual ones for WD models; a model's manifest may override them.
    """

    threshold: ThresholdRule = msgspec.field(default_factory=lambda: Fixed(above={"general": 0.35, "character": 0.85}))
    deny: frozenset[str] = frozenset()
    max_tags: Annotated[int, Meta(ge=1)] | None = None


class Delta(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An edit of a list of tags: added and removed tags, in canonical form."""

    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()


@lru_cache(maxsize=30_000)  # an edit names all tags of an image again, and images share most of theirs
def canonicalize(text: str) -> str:
    """The canonical form of a tag: NFC, case-folded, `_` for whitespace, without prompt weight (`(tag:1.2)`).

    Idempotent. Rejected says why a text cannot be a tag.
    """
    if len(text) > 4 * MAX_TAG_CHARACTERS or len(text.strip().splitlines()) > 1:
        raise Rejected(
            f"a tag is one line of at most {MAX_TAG_CHARACTERS} characters; this one begins with {text[:40]!r}"
        )
    tag = _fold(text)
    while (weighted := _WEIGHTED.match(tag)) is not None:
        tag = _fold(weighted[1])
    if not tag:
        raise Rejected("a tag needs at least one visible character")
    if len(tag) > MAX_TAG_CHARACTERS:
        raise Rejected(f"a tag has at most {MAX_TAG_CHARACTERS} characters; this one begins with {tag[:40]!r}")
    for separator in _SEPARATORS:
        if separator in tag:
            raise Rejected(f"a tag cannot contain {separator!r}, or it would become two tags: {tag!r}")
    if any(unicodedata.category(character) in _INVISIBLE and character not in _ZERO_WIDTH_JOINERS for character in tag):
        raise Rejected(f"a tag cannot contain invisible characters: {tag!r}")
    return tag


def accept(predictions: Iterable[Prediction], acceptance: Acceptance) -> tuple[Prediction, ...]:
    """The predictions that become tags: characters, general, then others; each by probability, ties by name."""
    candidates = tuple(predictions)
    thresholds = _thresholds(candidates, acceptance.threshold)
    of_tags = acceptance.threshold.tags if isinstance(acceptance.threshold, Fixed) else {}
    above = (one for one in candidates if one.probability > of_tags.get(one.tag, thresholds.get(one.category, 1.0)))
    # A name in two categories is listed once, at its first position.
    chosen: dict[str, Prediction] = {}
    for prediction in sorted(above, key=_sort_key):
        if prediction.tag not in acceptance.deny:
            chosen.setdefault(prediction.tag, prediction)
    return tuple(chosen.values())[: acceptance.max_tags]


def most_probable_rating(predictions: Iterable[Prediction]) -> str | None:
    """The most probable rating, ties by name; None if the model predicts no ratings."""
    ratings = [(-one.probability, one.tag) for one in predictions if one.category == "rating"]
    return min(ratings)[1] if ratings else None


def diff(seen: Iterable[str], proposed: Sequence[str]) -> Delta:
    """The edit of a client that saw one list of tags and sent another."""
    before, after = dict.fromkeys(seen), dict.fromkeys(proposed)
    added, removed = (tag for tag in after if tag not in before), (tag for tag in before if tag not in after)
    return Delta(add=tuple(added), remove=tuple(removed))


def _fold(text: str) -> str:
    # Case folding can break normalization and vice versa (U+0345), hence twice (Unicode 17, 3.13, D145).
    once = unicodedata.normalize("NFD", unicodedata.normalize("NFD", text).casefold()).casefold()
    return _GAPS.sub("_", unicodedata.normalize("NFC", once)).strip("_")


def _sort_key(prediction: Prediction) -> tuple[int, str, float, str]:
    rank = {"character": 0, "general": 1}.get(prediction.category, 2)
    return rank, prediction.category, -prediction.probability, prediction.tag


def _thresholds(predictions: Sequence[Prediction], rule: ThresholdRule) -> dict[Category, float]:
    match rule:
        case Fixed(above=above):
            return above
        case MCut(floors=floors):
            return {category: max(floor, _widest_gap(predictions, category)) for category, floor in floors.items()}


def _widest_gap(predictions: Sequence[Prediction], category: Category) -> float:
    """The middle of the widest gap, the highest one where several are equally wide."""
    falling = sorted((one.probability for one in predictions if one.category == category), reverse=True)
    gaps = [(high - low, high + low) for high, low in pairwise((*falling, STORED_FLOOR))]
    return max(gaps, default=(0.0, 0.0))[1] / 2
