"""Filters and sort orders as people type them: `1girl -solo (hat | cap) caption:"red" aspect>1.5 untagged`. Pure.

hat, "long hair"            has the tag; quotes allow any character, `\\"` and `\\\\` are a quote and a backslash
a b, a | b, -a, (…)         and; or, which binds less; not; groups
untagged captioned reviewed unreviewed
rejected:hat                a person or an import rejected the tag
source:person:hat           has the tag from person, import or model; `source:import`: any tag
conf:hat>=0.6               prediction of a model; all ranges may have two bounds, `conf:hat>=0.2<0.4`
width height pixels bytes   `width>=512`; pixels of the picture, bytes of the file
aspect>1.5                  width divided by height
name:cat caption:"red hat" text:red    in the file name, in the written caption, in either
duplicate:img_…<=6          looks like this image; at most so many of 64 bits differ
since:2026-11-21T12:00:00Z, since:2026-11-21, since:4711    added at this time or later, or after this sequence
"""

import re
from datetime import datetime
from typing import get_args

import msgspec

from contracts.errors import LoratoryError
from contracts.filter_parser import KEYWORDS, TEXT_FIELDS, FilterParser, invalid
from contracts.filters import (
    AddedSince,
    And,
    Aspect,
    Bounds,
    Confidence,
    ContainsText,
    DuplicateOf,
    Filter,
    HasRejected,
    HasSource,
    HasTag,
    Not,
    Or,
    Size,
    number,
)
from contracts.sorting import Sort, SortBy, SortByConfidence, SortKey
from contracts.tags import canonicalize
from contracts.validation import describe_decode_error

_SORT_KEYS: tuple[SortKey, ...] = get_args(SortKey)
_TEXT_FIELD_NAMES = {field: name for name, field in TEXT_FIELDS.items()}
_PLAIN_TAG = re.compile(r"\w[\w.'/!?-]*(?:\([\w.'/!?-]*\))?")
"""Tags that need no quotes: without colons, comparisons, and parentheses but for one pair at the end."""

_decode = msgspec.json.Decoder(Filter).decode


def read_filter(text: str, *, parameter: str = "filter") -> Filter:
    """A filter in either form: JSON begins with `{`. Invalid names the parameter, and the position in a text."""
    if text.lstrip().startswith("{"):
        try:
            return canonical(_decode(text))
        except (msgspec.DecodeError, RecursionError) as error:
            described = describe_decode_error(error, parent=parameter, whole=parameter)
            raise invalid(described, parameter) from error
        except LoratoryError as error:  # a text that cannot be a tag
            raise invalid(error.detail, parameter) from error
    return parse_filter(text, parameter=parameter)


def parse_filter(text: str, *, parameter: str = "filter") -> Filter:
    """Invalid: `position` is that of the first character that is wrong, counted from 1."""
    return FilterParser(text, parameter).parse()


def parse_sort(text: str, *, parameter: str = "sort") -> Sort:
    """`name`, `-changed`, `-conf:hat`; a minus for descending."""
    descending = text.startswith("-")
    key = text.removeprefix("-")
    if key in _SORT_KEYS:
        return SortBy(key=key, descending=descending)
    if key.startswith("conf:"):
        parser = FilterParser(text, parameter, at=len(text) - len(key) + len("conf:"))
        return SortByConfidence(tag=parser.parse_only_tag(), descending=descending)
    choices = ", ".join(_SORT_KEYS)
    raise invalid(f"{parameter} must be one of {choices} and conf:TAG, with a minus for descending", parameter)


def canonical(filter_: Filter) -> Filter:
    """The same with tags in canonical form. contracts.errors.Rejected: one cannot be a tag."""
    match filter_:
        case Not(term=term):
            return Not(canonical(term))
        case And(terms=terms):
            return And(tuple(map(canonical, terms)))
        case Or(terms=terms):
            return Or(tuple(map(canonical, terms)))
        case HasTag(tag=str(tag)) | HasRejected(tag=str(tag)) | HasSource(tag=str(tag)) | Confidence(tag=str(tag)):
            return msgspec.structs.replace(filter_, tag=canonicalize(tag))
        case _:
            return filter_


def render(filter_: Filter) -> str:  # noqa: PLR0911, PLR0912 - an arm for each kind of term
    """The text that `parse_filter` reads as this filter."""
    match filter_:
        case HasTag(tag=tag):
            return f'"{tag}"' if tag in KEYWORDS else _tag(tag)
        case Not(term=term):
            return f"-{_atom(term)}"
        case And(terms=terms):
            return " ".join(map(_atom, terms))
        case Or(terms=terms):
            return " | ".join(render(term) if isinstance(term, And) else _atom(term) for term in terms)
        case HasRejected(tag=tag):
            return f"rejected:{_tag(tag)}"
        case HasSource(source=source, tag=from_tag):
            return f"source:{source}" if from_tag is None else f"source:{source}:{_tag(from_tag)}"
        case Confidence(tag=tag):
            return f"conf:{_tag(tag)}{_comparisons(filter_)}"
        case Size(of=dimension):
            return f"{dimension}{_comparisons(filter_)}"
        case Aspect():
            return f"aspect{_comparisons(filter_)}"
        case ContainsText(text=text, field=field):
            return f"{_TEXT_FIELD_NAMES[field]}:{_quote(text)}"
        case DuplicateOf(image=image, distance=distance):
            return f"duplicate:{image}<={distance}"
        case AddedSince(time=None, sequence=sequence):
            return f"since:{sequence}"
        case AddedSince(time=datetime() as time):
            return f"since:{time.isoformat()}"
        case _:
            return next(word for word, keyword in KEYWORDS.items() if keyword == filter_)


def render_sort(sort: Sort) -> str:
    key = sort.key if isinstance(sort, SortBy) else f"conf:{_tag(sort.tag)}"
    return f"-{key}" if sort.descending else key


def _atom(filter_: Filter) -> str:
    return f"({render(filter_)})" if isinstance(filter_, And | Or) else render(filter_)


def _comparisons(bounds: Bounds) -> str:
    if bounds.at_least is not None and bounds.at_least == bounds.at_most:
        return f"={number(bounds.at_least)}"
    given = {">=": bounds.at_least, ">": bounds.above, "<=": bounds.at_most, "<": bounds.below}
    return "".join(f"{sign}{number(bound)}" for sign, bound in given.items() if bound is not None)


def _tag(tag: str) -> str:
    return tag if _PLAIN_TAG.fullmatch(tag) else _quote(tag)


def _quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
