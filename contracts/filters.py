"""Filters of images, as values: what lists, bulk edits, tagging runs and exports select by. Pure.

A filter that is too deep or too large cannot be built or decoded. `contracts/filter_text.py` has the form that people
type. Tags are expected in canonical form.
"""

import math
from datetime import datetime
from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from contracts.ids import ImageId

MAX_DEPTH = 8
"""Maximum nesting of a filter: `-(a | b)` has depth 3."""
MAX_TERMS = 64
"""Maximum number of terms of a filter, groups not counted."""
MAX_TEXT_CHARACTERS = 200
MAX_DISTANCE = 16
"""Maximum distance of duplicates: of 64 bits; unrelated pictures differ in about 32."""
DEFAULT_DISTANCE = 6
MAX_SELECTED_IDS = 1000

TagText = Annotated[str, Meta(min_length=1, max_length=MAX_TEXT_CHARACTERS)]
SearchText = Annotated[str, Meta(min_length=1, max_length=MAX_TEXT_CHARACTERS)]
TagSource = Literal["person", "import", "model"]
TextField = Literal["name", "caption", "any"]
Dimension = Literal["width", "height", "pixels", "bytes"]


class _Filter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Base class. ValueError, and msgspec's ValidationError when decoding: the values contradict each other.

    Each filter has `describe`: what it selects in words, without a full stop.
    """


class Bounds(_Filter, frozen=True, kw_only=True):
    """A range of numbers, closed (`at_least`, `at_most`) or open (`above`, `below`); at least one bound is set."""

    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None

    def __post_init__(self) -> None:
        given = [one for one in (self.at_least, self.above, self.at_most, self.below) if one is not None]
        if not given:
            raise ValueError("a range needs at least one of at_least, above, at_most and below")
        if not all(math.isfinite(one) and one >= 0 for one in given):
            raise ValueError("the bounds of a range are finite and not negative")
        for one, other in ((self.at_least, self.above), (self.at_most, self.below)):
            if one is not None and other is not None:
                raise ValueError("a range has one lower and one upper bound at most")
        low, high = self.low, self.high
        if low is not None and high is not None and low > high:
            raise ValueError(f"no number is at least {number(low)} and at most {number(high)}")

    @property
    def low(self) -> float | None:
        return self.at_least if self.above is None else self.above

    @property
    def high(self) -> float | None:
        return self.at_most if self.below is None else self.below

    def in_words(self) -> str:
        words = {"at least": self.at_least, "above": self.above, "at most": self.at_most, "below": self.below}
        return " and ".join(f"{word} {number(bound)}" for word, bound in words.items() if bound is not None)


class HasTag(_Filter, frozen=True, tag="tag"):
    """Images that have the tag, whatever its source."""

    tag: TagText

    def describe(self) -> str:
        return f"tagged {self.tag}"


class Not(_Filter, frozen=True, tag="not"):
    term: "Filter"

    def __post_init__(self) -> None:
        _check_bounds(self)

    def describe(self) -> str:
        return f"not {_grouped(self.term)}"


class And(_Filter, frozen=True, tag="and"):
    terms: "Terms"

    def __post_init__(self) -> None:
        _check_bounds(self)

    def describe(self) -> str:
        return " and ".join(map(_grouped, self.terms))


class Or(_Filter, frozen=True, tag="or"):
    terms: "Terms"

    def __post_init__(self) -> None:
        _check_bounds(self)

    def describe(self) -> str:
        return " or ".join(map(_grouped, self.terms))


class Untagged(_Filter, frozen=True, tag="untagged"):
    """Images without any tag."""

    def describe(self) -> str:
        return "without tags"


class Captioned(_Filter, frozen=True, tag="captioned"):
    """Images with a written caption."""

    def describe(self) -> str:
        return "with a written caption"


class HasRejected(_Filter, frozen=True, tag="rejected"):
    """Images that a person or an import decided not to have the tag."""

    tag: TagText

    def describe(self) -> str:
        return f"with {self.tag} rejected"


class HasSource(_Filter, frozen=True, tag="source"):
    """Images that have the tag (none: any tag) from this source."""

    source: TagSource
    tag: TagText | None = None

    def describe(self) -> str:
        by = {"person": "by a person", "import": "by an import", "model": "by a model"}[self.source]
        return f"tagged {by}" if self.tag is None else f"tagged {self.tag} {by}"


class Confidence(Bounds, frozen=True, kw_only=True, tag="confidence"):
    """Images by the highest current prediction of the tag, whatever was decided; without one it is 0."""

    tag: TagText

    def describe(self) -> str:
        return f"with a confidence of {self.tag} {self.in_words()}"


class Size(Bounds, frozen=True, kw_only=True, tag="size"):
    """Images by width, height or both multiplied, in pixels of the picture, or by the bytes of the file."""

    of: Dimension

    def describe(self) -> str:
        return f"with {'a file size in bytes' if self.of == 'bytes' else self.of} {self.in_words()}"


class Aspect(Bounds, frozen=True, tag="aspect"):
    """Images by width divided by height."""

    def describe(self) -> str:
        return f"with an aspect ratio {self.in_words()}"


class ContainsText(_Filter, frozen=True, tag="text"):
    """Images whose name (a path), caption as written, or either (`any`) contains a text, in upper or lower case."""

    text: SearchText
    field: TextField = "any"

    def describe(self) -> str:
        return f"with {self.text!r} in the {'name or caption' if self.field == 'any' else self.field}"


class DuplicateOf(_Filter, frozen=True, tag="duplicate_of"):
    """Images that look like another one: difference hashes of 64 bits that differ in at most `distance` bits."""

    image: ImageId
    distance: Annotated[int, Meta(ge=0, le=MAX_DISTANCE)] = DEFAULT_DISTANCE

    def describe(self) -> str:
        return f"looking like {self.image}"


class ReviewState(_Filter, frozen=True, tag="review_state"):
    """Images that were marked as reviewed, or that were not."""

    reviewed: bool = True

    def describe(self) -> str:
        return "reviewed" if self.reviewed else "not reviewed"


class AddedSince(_Filter, frozen=True, tag="added_since"):
    """Images added at this time or later, or after this sequence of the log."""

    time: Annotated[datetime, Meta(tz=True)] | None = None
    sequence: Annotated[int, Meta(ge=0, le=2**53)] | None = None

    def __post_init__(self) -> None:
        if (self.time is None) == (self.sequence is None):
            raise ValueError("either a time or a sequence says since when")
        if self.time is not None and self.time.tzinfo is None:
            raise ValueError("the time needs an offset")

    def describe(self) -> str:
        return f"added after sequence {self.sequence}" if self.time is None else f"added since {self.time.isoformat()}"


Filter: TypeAlias = (
    HasTag
    | Not
    | And
    | Or
    | Untagged
    | Captioned
    | HasRejected
    | HasSource
    | Confidence
    | Size
    | Aspect
    | ContainsText
    | DuplicateOf
    | ReviewState
    | AddedSince
)
Terms: TypeAlias = Annotated[tuple[Filter, ...], Meta(min_length=2, max_length=MAX_TERMS)]


class TheseImages(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="images"):
    ids: Annotated[tuple[ImageId, ...], Meta(min_length=1, max_length=MAX_SELECTED_IDS)]


class Matching(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="filter"):
    filter: Filter


class AllImages(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="all"):
    pass


Selection: TypeAlias = TheseImages | Matching | AllImages
"""The images of a data set that a command is about."""


def children_of(filter_: Filter) -> tuple[Filter, ...]:
    match filter_:
        case Not(term=term):
            return (term,)
        case And(terms=terms) | Or(terms=terms):
            return terms
        case _:
            return ()


def depth_of(filter_: Filter) -> int:
    return 1 + max(map(depth_of, children_of(filter_)), default=0)


def count_terms(filter_: Filter) -> int:
    children = children_of(filter_)
    return sum(map(count_terms, children)) if children else 1


def uses_text(filter_: Filter) -> bool:
    """Whether names or captions are searched."""
    return isinstance(filter_, ContainsText) or any(map(uses_text, children_of(filter_)))


def _check_bounds(group: Not | And | Or) -> None:
    """ValueError: too deep, too large, or a group of one."""
    if not isinstance(group, Not) and len(group.terms) < 2:
        raise ValueError("a group has at least two terms")
    if depth_of(group) > MAX_DEPTH:
        raise ValueError(f"a filter nests at most {MAX_DEPTH} levels")
    if count_terms(group) > MAX_TERMS:
        raise ValueError(f"a filter has at most {MAX_TERMS} terms")


def number(value: float) -> str:
    """`512.0` → `512`; reading it again gives exactly the same number."""
    return repr(value).removesuffix(".0")


def _grouped(filter_: Filter) -> str:
    return f"({filter_.describe()})" if isinstance(filter_, And | Or) else filter_.describe()
