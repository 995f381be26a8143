"""Tags as values: how they are written, which predictions count, how two edits merge. Pure.

The rules of text and of choice follow `booru` practice (Danbooru names, WD taggers), so that a data set means the same
to us as to every tool that reads its captions.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Annotated

import msgspec
from msgspec import Meta

from contracts.errors import Rejected
from contracts.events import Category, Prediction

LONGEST = 200
"""Characters in one tag. Danbooru allows 170."""

KAOMOJI = frozenset(
    (
        *("0_0", "(o)_(o)", "+_+", "+_-", "._.", "<o>_<o>", "<|>_<|>", "=_=", ">_<", "3_3"),
        *("6_9", ">_o", "@_@", "^_^", "o_o", "u_u", "x_x", "|_|", "||_||"),
    )
)
_KEPT = KAOMOJI | {"t_t", "o_x", "ak_5", "cz_75", "ju_87"}
"""Names in which a space would be wrong: faces, and arms and aircraft that newer vocabularies write this way."""

_SEPARATORS = (",", ";;;", "|||")
"""What trainers split captions at: a tag that holds one would become two."""

_GAPS = re.compile(r"[\s_]+")
_WEIGHTED = re.compile(r"\((.+):[0-9]+(?:\.[0-9]+)?\)\Z")
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_JOINERS = "\u200c\u200d"  # unseen, but spelling in Persian, in Indic scripts and in emoji

FLOOR = 0.05
"""Predictions above this probability are kept, so that a later threshold is a question to them, not another run."""

Share = Annotated[float, Meta(ge=0, le=1)]


class Fixed(msgspec.Struct, frozen=True, kw_only=True, tag="fixed", forbid_unknown_fields=True):
    """A tag counts when its probability is above the bar of its category; a category without a bar counts never."""

    above: dict[Category, Share]


class MCut(msgspec.Struct, frozen=True, kw_only=True, tag="mcut", forbid_unknown_fields=True):
    """Each picture sets its own bar: the middle of the widest gap between neighbours (Largeron et al. 2012).

    Never under the floor of the category. Where no character is in the picture it picks noise above that floor. What
    was not kept counts as one neighbour at `FLOOR`, so of gaps that reach below it only the upper part is seen.
    """

    floors: dict[Category, Share] = msgspec.field(default_factory=lambda: {"general": 0.0, "character": 0.15})


Bar = Fixed | MCut


class Acceptance(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which predictions become tags: above the bar, not denied, and the first `most` of those.

    The default bars are the community's for WD models; a model's manifest may know better ones.
    """

    bar: Bar = msgspec.field(default_factory=lambda: Fixed(above={"general": 0.35, "character": 0.85}))
    deny: frozenset[str] = frozenset()
    most: Annotated[int, Meta(ge=1)] | None = None


class Delta(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An edit of a list of tags: what came and what went, in canonical form."""

    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()


def canonical(text: str) -> str:
    """The one way a tag is stored and compared: NFC, case-folded, `_` for gaps, no prompt weight (`(tag:1.2)`).

    `canonical(canonical(t)) == canonical(t)`. Rejected says why a text cannot be a tag.
    """
    if len(text) > 4 * LONGEST or len(text.strip().splitlines()) > 1:
        raise Rejected(f"a tag is one line of at most {LONGEST} characters; this one begins with {text[:40]!r}")
    tag = _folded(text)
    while (weighted := _WEIGHTED.match(tag)) is not None:
        tag = _folded(weighted[1])
    if not tag:
        raise Rejected("a tag needs at least one character that can be seen")
    if len(tag) > LONGEST:
        raise Rejected(f"a tag has at most {LONGEST} characters; this one begins with {tag[:40]!r}")
    for separator in _SEPARATORS:
        if separator in tag:
            raise Rejected(f"a tag cannot contain {separator!r}, or it would be read as two: {tag!r}")
    if any(unicodedata.category(sign) in _UNSEEN and sign not in _JOINERS for sign in tag):
        raise Rejected(f"a tag cannot contain characters that are not seen: {tag!r}")
    return tag


def render(tag: str) -> str:
    """The tag as captions write it: spaces for underscores, but in faces and names that live by theirs."""
    return tag if tag in _KEPT else tag.replace("_", " ")


def escaped(text: str) -> str:
    r"""For readers of prompt syntax only, where parentheses are weights: `a_(b)` becomes `a_\(b\)`."""
    return text.replace("\\", "\\\\").replace("(", "\\(").replace(")", "\\)")


def accepted(predictions: Iterable[Prediction], acceptance: Acceptance) -> tuple[Prediction, ...]:
    """The predictions that become tags: characters, then general, then others; each by probability, ties by name."""
    guesses = tuple(predictions)
    bars = _bars(guesses, acceptance.bar)
    over = (guess for guess in guesses if guess.probability > bars.get(guess.category, 1.0))
    # One name in two categories stands once, where it comes first.
    chosen: dict[str, Prediction] = {}
    for guess in sorted(over, key=_place):
        if guess.tag not in acceptance.deny:
            chosen.setdefault(guess.tag, guess)
    return tuple(chosen.values())[: acceptance.most]


def rating(predictions: Iterable[Prediction]) -> str | None:
    """The most probable rating, ties by name; none where the model gives no ratings."""
    ratings = [(-guess.probability, guess.tag) for guess in predictions if guess.category == "rating"]
    return min(ratings)[1] if ratings else None


def delta(seen: Iterable[str], proposed: Sequence[str]) -> Delta:
    """What somebody changed who saw one list of tags and sent another."""
    before, after = dict.fromkeys(seen), dict.fromkeys(proposed)
    return Delta(
        add=tuple(tag for tag in after if tag not in before),
        remove=tuple(tag for tag in before if tag not in after),
    )


def merged(current: Iterable[str], edit: Delta, aliases: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """The edit on top of whatever stands now, as Danbooru merges: current + (alias(add) - remove) - remove.

    Nothing that another person added is lost, and nothing they removed comes back. What stood keeps its order; what is
    new follows in the order it was given.
    """
    new = ((aliases or {}).get(tag, tag) for tag in edit.add)
    removed = set(edit.remove)
    return tuple(tag for tag in dict.fromkeys((*current, *new)) if tag not in removed)


def _folded(text: str) -> str:
    # Folding can undo normal forms and the other way round (U+0345): hence twice (Unicode 17, 3.13, D145).
    once = unicodedata.normalize("NFD", unicodedata.normalize("NFD", text).casefold()).casefold()
    return _GAPS.sub("_", unicodedata.normalize("NFC", once)).strip("_")


def _place(guess: Prediction) -> tuple[int, str, float, str]:
    rank = {"character": 0, "general": 1}.get(guess.category, 2)
    return rank, guess.category, -guess.probability, guess.tag


def _bars(guesses: Sequence[Prediction], bar: Bar) -> dict[Category, float]:
    match bar:
        case Fixed(above=above):
            return above
        case MCut(floors=floors):
            return {category: max(floor, _widest_gap(guesses, category)) for category, floor in floors.items()}


def _widest_gap(guesses: Sequence[Prediction], category: Category) -> float:
    """The middle of the widest gap, the highest where several are as wide."""
    falling = sorted((guess.probability for guess in guesses if guess.category == category), reverse=True)
    gaps = [(high - low, high + low) for high, low in pairwise((*falling, FLOOR))]
    return max(gaps, default=(0.0, 0.0))[1] / 2
