"""Tags as text: the writing style of a data set, and the lists that trainers and other tools read. Pure."""

import re
from collections.abc import Sequence
from functools import lru_cache

from contracts.errors import Rejected
from contracts.tag_style import DEFAULT_STYLE, TagStyle

KAOMOJI = frozenset(
    (
        *("0_0", "(o)_(o)", "+_+", "+_-", "._.", "<o>_<o>", "<|>_<|>", "=_=", ">_<", "3_3"),
        *("6_9", ">_o", "@_@", "^_^", "o_o", "u_u", "x_x", "|_|", "||_||"),
    )
)
_KEEP_UNDERSCORES = KAOMOJI | {"t_t", "o_x", "ak_5", "cz_75", "ju_87"}
"""Tags written with their underscores in every style: kaomoji, and weapons and aircraft of newer vocabularies.

Texts of frozen versions depend on this set: what is added to it needs a new version of `contracts.training_text`.
"""

MAX_QUANTIFIERS = 2
"""Quantifiers of a pattern. Matching takes at most the square of a tag's length then; more could take for ever."""

MAX_KNOWN_TAGS = 30_000
"""Tags of which is known how they are written, for each of a few lists of patterns."""

_PATTERN_PARTS = re.compile(
    r"(?P<escaped>\\[^0-9A-Za-z\s]|\\[dswDSW])"
    r"|(?P<set>\[\^?(?:\\[^0-9A-Za-z\s]|\\[dswDSW]|[^\[\]\\&~|-]|-(?!-))+\])"
    r"|(?P<quantifier>[*+?]|\{[0-9]{1,3}(?:,[0-9]{0,3})?\})"
    r"|(?P<plain>[^\\\[\](){}*+?^$])"
)


def check_style(style: TagStyle) -> None:
    """Rejected (`reason`: `bad-pattern`): a pattern of `keep` is no regular expression, or is not allowed."""
    _compile(style.keep)


def write_tags(tags: Sequence[str], style: TagStyle = DEFAULT_STYLE) -> str:
    """These tags in order, as a list in this style. Rejected as in `check_style`."""
    if style.words == "underscores":
        joined = style.separator.join(tags)
    else:
        written = _written(style.keep)
        joined = style.separator.join([written[tag] for tag in tags])
    return escape(joined) if style.escape else joined


def escape(text: str) -> str:
    r"""Escaped for prompt syntax, where parentheses are weights: `a_(b)` becomes `a_\(b\)`."""
    return text.replace("\\", "\\\\").replace("(", "\\(").replace(")", "\\)")


class _Written(dict[str, str]):
    """Each tag with spaces, unless it keeps its underscores; kept, because a page of images has thousands."""

    def __init__(self, keep: tuple[str, ...]) -> None:
        super().__init__()
        self._patterns = _compile(keep)

    def __missing__(self, tag: str) -> str:
        if len(self) >= MAX_KNOWN_TAGS:
            self.clear()
        is_kept = tag in _KEEP_UNDERSCORES or any(pattern.fullmatch(tag) for pattern in self._patterns)
        self[tag] = written = tag if is_kept else tag.replace("_", " ")
        return written


@lru_cache(maxsize=8)
def _written(keep: tuple[str, ...]) -> _Written:
    return _Written(keep)


@lru_cache(maxsize=256)
def _compile(patterns: tuple[str, ...]) -> tuple[re.Pattern[str], ...]:
    return tuple(_compile_one(pattern) for pattern in patterns)


def _compile_one(pattern: str) -> re.Pattern[str]:
    """Without groups, anchors and references, so that the time of a match is bounded; `a|b` gives alternatives."""
    at, quantifiers = 0, 0
    while at < len(pattern):
        part = _PATTERN_PARTS.match(pattern, at)
        if part is None:
            raise _bad_pattern(pattern, f"{pattern[at]!r} at character {at + 1} is not allowed (write it as an escape)")
        quantifiers += part.lastgroup == "quantifier"
        at = part.end()
    if quantifiers > MAX_QUANTIFIERS:
        raise _bad_pattern(pattern, f"it has more than {MAX_QUANTIFIERS} of * + ? {{}}")
    try:
        return re.compile(pattern)
    except re.error as error:
        raise _bad_pattern(pattern, str(error)) from error


def _bad_pattern(pattern: str, problem: str) -> Rejected:
    return Rejected(f"{pattern!r} cannot be used as a pattern of tags to keep: {problem}", reason="bad-pattern")
