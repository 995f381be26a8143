"""The parser of filters as people type them; their syntax is in `contracts/filter_text.py`. Pure."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar, get_args

import msgspec

from contracts.errors import FieldError, Invalid, LoratoryError
from contracts.filters import (
    DEFAULT_DISTANCE,
    MAX_DEPTH,
    MAX_DISTANCE,
    MAX_TEXT_CHARACTERS,
    AddedSince,
    And,
    Aspect,
    Captioned,
    Confidence,
    ContainsText,
    Dimension,
    DuplicateOf,
    Filter,
    HasRejected,
    HasSource,
    HasTag,
    Not,
    Or,
    ReviewState,
    Size,
    TagSource,
    TextField,
    Untagged,
)
from contracts.ids import ImageId
from contracts.tags import canonicalize

MAX_FILTER_CHARACTERS = 4_000

KEYWORDS: dict[str, Filter] = {
    "untagged": Untagged(),
    "captioned": Captioned(),
    "reviewed": ReviewState(),
    "unreviewed": ReviewState(reviewed=False),
}
TEXT_FIELDS: dict[str, TextField] = {"name": "name", "caption": "caption", "text": "any"}
BOUNDS = {">=": "at_least", ">": "above", "<=": "at_most", "<": "below"}
"""The field of a range by the sign of a comparison."""
_DIMENSIONS: tuple[Dimension, ...] = get_args(Dimension)
_SOURCES: tuple[TagSource, ...] = get_args(TagSource)

_SPACE = re.compile(r"\s*")
_FIELD = re.compile(r"([a-z]+):")
_MEASURE = re.compile(r"([a-z]+)(?=[<>=])")
_COMPARISON = re.compile(r"(>=|<=|>|<|=)([0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?)")
_IMAGE_ID = re.compile(r"[0-9A-Za-z_-]+")
_DISTANCE = re.compile(r"<=([0-9]+)")
_MOMENT = re.compile(r"[0-9][0-9A-Z:.+-]*")
_QUOTED = re.compile(r'"((?:[^"\\]|\\["\\])*)"', re.DOTALL)

T = TypeVar("T")


class FilterParser:
    """A recursive descent over the text; `at` is the index of the next character."""

    def __init__(self, text: str, parameter: str, at: int = 0) -> None:
        self._text, self._parameter, self._at = text, parameter, at
        self._measures: dict[str, Callable[[dict[str, float]], Filter]] = {"aspect": lambda given: Aspect(**given)}
        self._measures |= {dimension: partial(_size, dimension) for dimension in _DIMENSIONS}
        self._fields: dict[str, Callable[[], Filter]] = {
            "rejected": lambda: HasRejected(self._read_tag()),
            "source": self._source,
            "conf": self._confidence,
            "duplicate": self._duplicate,
            "since": self._since,
        }
        self._fields |= {name: partial(self._contains, field) for name, field in TEXT_FIELDS.items()}

    def parse(self) -> Filter:
        if len(self._text) > MAX_FILTER_CHARACTERS:
            raise self._error(f"has at most {MAX_FILTER_CHARACTERS} characters", MAX_FILTER_CHARACTERS)
        found = self._alternatives(1)
        if self._at < len(self._text):
            raise self._error("there is no parenthesis that this one closes")
        return found

    def parse_only_tag(self) -> str:
        tag = self._read_tag()
        if self._at < len(self._text):
            raise self._error("there is more after the tag")
        return tag

    def _alternatives(self, level: int) -> Filter:
        start, terms = self._at, [self._conjunction(level)]
        while self._take("|"):
            terms.append(self._conjunction(level))
        return terms[0] if len(terms) == 1 else self._build(start, lambda: Or(tuple(terms)))

    def _conjunction(self, level: int) -> Filter:
        start, terms = self._at, [self._term(level)]
        while self._peek() not in ("", "|", ")"):
            terms.append(self._term(level))
        return terms[0] if len(terms) == 1 else self._build(start, lambda: And(tuple(terms)))

    def _term(self, level: int) -> Filter:
        following, start = self._peek(), self._at
        if following in ("", "|", ")"):
            raise self._error("a term is missing here")
        if level > MAX_DEPTH:
            raise self._error(f"a filter nests at most {MAX_DEPTH} levels")
        if self._take("-"):
            if self._text[self._at : self._at + 1].strip() in ("", "|", ")"):
                raise self._error("a minus stands directly before what it excludes", start)
            negated = self._term(level + 1)
            return self._build(start, lambda: Not(negated))
        if not self._take("("):
            return self._word()
        group = self._alternatives(level + 1)
        if not self._take(")"):
            raise self._error("this parenthesis is never closed", start)
        return group

    def _word(self) -> Filter:
        start = self._at
        if measure := _MEASURE.match(self._text, start):
            if build := self._measures.get(measure[1]):
                self._at = measure.end()
                return self._build(start, lambda: build(self._bounds()))
            if _COMPARISON.match(self._text, measure.end()):
                raise self._error(f"{measure[1]} is nothing that can be compared; put quotes around a tag")
        if field := _FIELD.match(self._text, start):
            if read := self._fields.get(field[1]):
                self._at = field.end()
                return self._build(start, read)
            if self._text.startswith('"', field.end()):
                raise self._error(f"{field[1]}: is no field of a filter; put quotes around a whole tag")
        if self._text[start] == '"':
            return HasTag(self._read_tag())
        word = self._bare()
        return KEYWORDS.get(word) or HasTag(self._canonical(word, start))

    def _source(self) -> Filter:
        start = self._at
        for source in _SOURCES:
            if self._text.startswith(source, start):
                self._at += len(source)
                if self._text.startswith(":", self._at):
                    self._at += 1
                    return HasSource(source=source, tag=self._read_tag())
                if self._peek_here().strip() in ("", ")", "|"):
                    return HasSource(source=source)
        raise self._error(f"a source is {', '.join(_SOURCES[:-1])} or {_SOURCES[-1]}", start)

    def _confidence(self) -> Filter:
        tag = self._read_tag(stop="<>=")
        return Confidence(tag=tag, **self._bounds())

    def _contains(self, field: TextField) -> Filter:
        start = self._at
        text = self._string() if self._peek_here() == '"' else self._bare()
        if not 1 <= len(text) <= MAX_TEXT_CHARACTERS:
            raise self._error(f"the text to search for has 1 to {MAX_TEXT_CHARACTERS} characters", start)
        return ContainsText(text=text, field=field)

    def _duplicate(self) -> Filter:
        image = self._match(_IMAGE_ID, "an image id is expected here")[0]
        within = _DISTANCE.match(self._text, self._at)
        if within is None:
            return DuplicateOf(image=ImageId(image), distance=DEFAULT_DISTANCE)
        if int(within[1][:4]) > MAX_DISTANCE:
            raise self._error(f"the distance of duplicates is at most {MAX_DISTANCE}")
        self._at = within.end()
        return DuplicateOf(image=ImageId(image), distance=int(within[1]))

    def _since(self) -> Filter:
        start = self._at
        text = self._match(_MOMENT, "a time or a sequence is expected here")[0]
        if text.isdigit() and len(text) <= 15:
            return AddedSince(sequence=int(text))
        try:
            time = datetime.fromisoformat(text)
        except ValueError as error:
            raise self._error("this is no time as in 2026-11-21T12:00:00Z and no sequence", start) from error
        if time.tzinfo is None and len(text) > len("2026-11-21"):
            raise self._error("the time needs an offset or Z, as in 2026-11-21T12:00:00Z", start)
        return AddedSince(time=time if time.tzinfo else time.replace(tzinfo=UTC))

    def _bounds(self) -> dict[str, float]:
        found: dict[str, float] = {}
        while comparison := _COMPARISON.match(self._text, self._at):
            sign, bound = comparison[1], float(comparison[2])
            names = ("at_least", "at_most") if sign == "=" else (BOUNDS[sign],)
            if any(name in found for name in names):
                raise self._error("this bound is given twice")
            found |= dict.fromkeys(names, bound)
            self._at = comparison.end()
        if not found:
            raise self._error("a comparison with a number is expected here, as in >=0.5")
        if self._peek_here() not in ("", "|", ")") and not self._peek_here().isspace():
            raise self._error("a space is missing after the number")
        return found

    def _read_tag(self, stop: str = "") -> str:
        start = self._at
        text = self._string() if self._peek_here() == '"' else self._bare(stop)
        return self._canonical(text, start)

    def _canonical(self, text: str, start: int) -> str:
        try:
            return canonicalize(text)
        except LoratoryError as error:
            raise self._error(error.detail, start) from error

    def _string(self) -> str:
        found = self._match(_QUOTED, 'this quote is never closed, or a backslash is not before " or another one')
        return re.sub(r"\\(.)", r"\1", found[1], flags=re.DOTALL)

    def _bare(self, stop: str = "") -> str:
        """Characters up to a space, a quote, `|` or a parenthesis that closes none of the word's own."""
        start, opened = self._at, 0
        while (character := self._peek_here()) and not character.isspace() and character not in f'"|{stop}':
            if character == ")" and opened == 0:
                break
            opened += {"(": 1, ")": -1}.get(character, 0)
            self._at += 1
        if self._at == start:
            raise self._error("a word is expected here")
        return self._text[start : self._at]

    def _match(self, pattern: re.Pattern[str], otherwise: str) -> re.Match[str]:
        found = pattern.match(self._text, self._at)
        if found is None:
            raise self._error(otherwise)
        self._at = found.end()
        return found

    def _build(self, start: int, make: Callable[[], T]) -> T:
        try:
            return make()
        except ValueError as error:
            raise self._error(str(error), start) from error

    def _take(self, character: str) -> bool:
        if self._peek() != character:
            return False
        self._at += 1
        return True

    def _peek(self) -> str:
        """The next character that is no space, empty at the end."""
        found = _SPACE.match(self._text, self._at)
        self._at = found.end() if found else self._at
        return self._peek_here()

    def _peek_here(self) -> str:
        return self._text[self._at : self._at + 1]

    def _error(self, sentence: str, at: int | None = None) -> Invalid:
        return invalid(sentence, self._parameter, (self._at if at is None else at) + 1)


def _size(dimension: Dimension, bounds: dict[str, float]) -> Filter:
    return Size(of=dimension, **bounds)


def invalid(sentence: str, parameter: str, position: int | None = None) -> Invalid:
    if position is None:
        errors = [msgspec.to_builtins(FieldError(pointer=f"/{parameter}", message=sentence))]
        return Invalid(sentence, errors=errors)
    detail = f"{parameter}, character {position}: {sentence}"
    errors = [msgspec.to_builtins(FieldError(pointer=f"/{parameter}", message=detail))]
    return Invalid(detail, position=position, errors=errors)
