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
    elif any(_keeps(tag, style) for tag in tags):
        joined = style.separator.join(tag if _keeps(tag, style) else tag.replace("_", " ") for tag in tags)
    else:
        joined = style.separator.join(tags).replace("_", " ")  # one replacement is faster than one for each
    return escape(joined) if style.escape else joined


def escape(text: str) -> str:
    r"""Escaped for prompt syntax, where parentheses are weights: `a_(b)` becomes `a_\(b\)`."""
    return text.replace("\\", "\\\\").replace("(", "\\(").replace(")", "\\)")


def _keeps(tag: str, style: TagStyle) -> bool:
    return "_" in tag and (tag in _KEEP_UNDERSCORES or any(pattern.fullmatch(tag) for pattern in _compile(style.keep)))


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
