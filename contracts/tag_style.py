"""How tags are written in a list: part of a version of a data set. Pure."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

SEPARATOR_PATTERN = r"^ *(,|;;;|\|\|\||\n) *\n?$"
"""What can stand between tags: the separators that no tag contains (`contracts.tags`), with spaces around them."""


class TagStyle(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How tags are written in a list. The default is that of a new data set.

    `keep`: regular expressions of tags whose underscores stay; a whole tag must match. Kaomoji always stay as they are.
    `escape`: parentheses for prompt syntax, `a \\(b\\)`; trainers read them literally.
    """

    words: Literal["spaces", "underscores"] = "spaces"
    keep: Annotated[tuple[Annotated[str, Meta(min_length=1, max_length=100)], ...], Meta(max_length=32)] = (
        r"score_\d+.*",
        r"source_.+",
        r"rating_.+",
    )
    escape: bool = False
    separator: Annotated[str, Meta(max_length=10, pattern=SEPARATOR_PATTERN)] = ", "


DEFAULT_STYLE = TagStyle()
FIRST_STYLE = TagStyle(keep=())
"""The style of training texts of version 1, and of `render`."""
