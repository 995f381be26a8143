"""What an export changes of the texts, in the exported files only. Pure."""

from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from contracts.errors import Invalid, Rejected
from contracts.queries.exports import ExportEntry
from contracts.tag_style import TagStyle
from contracts.tags import canonicalize
from contracts.texts.writing import write_tags
from contracts.training_text import DEFAULT_TEMPLATE, TEXT_VERSION, training_text

Words = Literal["spaces", "underscores"]


class Overlay(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Changes of tags, and how they are written; a written caption goes out as it is written.

    `trigger`: instead of that of the version or data set, empty for none. `exclude` comes before `replace`; both have
    canonical tags. `escape`, `separator` and `words`: where they differ from its text settings.
    """

    trigger: str | None = None
    exclude: tuple[str, ...] = ()
    replace: tuple[tuple[str, str], ...] = ()
    escape: bool | None = None
    separator: str | None = None
    words: Words | None = None

    def style(self, style: TagStyle) -> TagStyle:
        """How tags are written, instead of in this style."""
        own = {"escape": self.escape, "separator": self.separator, "words": self.words}
        return msgspec.structs.replace(style, **{name: value for name, value in own.items() if value is not None})

    def tags(self, tags: Iterable[str]) -> tuple[str, ...]:
        """Canonical tags in order: of two that become one, the first place counts."""
        excluded, replaced = frozenset(self.exclude), dict(self.replace)
        return tuple(dict.fromkeys(replaced.get(tag, tag) for tag in tags if tag not in excluded))

    def text(self, trigger: str, tags: Sequence[str], entry: ExportEntry) -> str:
        """The training text of an image with these tags, after `tags`. Without changes it is what a trainer reads.

        Rejected: a tag contains the separator, so that it would become two.
        """
        style = self.style(entry.style)
        # The first rules know one style only.
        version = entry.text if style == entry.style else TEXT_VERSION
        if entry.caption is None or entry.template != DEFAULT_TEMPLATE:
            _refuse_separators(tags, style)
        return training_text(trigger, tags, entry.caption, entry.template, version=version, style=style)


def _refuse_separators(tags: Sequence[str], style: TagStyle) -> None:
    between = style.separator.strip() or style.separator
    for tag in tags:
        if between in write_tags([tag], style):
            raise Rejected(f"the tag {tag!r} contains the separator {style.separator!r}, and would become two tags")


def parse_replacements(texts: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """`old=new` → canonical tags. Invalid: it is not of this form, or it is unclear which `=` divides it."""
    return tuple(_parse_replacement(text) for text in texts)


def _parse_replacement(text: str) -> tuple[str, str]:
    splits = [(text[:at], text[at + 1 :]) for at, character in enumerate(text) if character == "="]
    possible = [(old, new) for old, new in splits if old.strip() and new.strip()]
    if len(possible) != 1:
        reason = "more than one = could divide it" if possible else "it has no tag on each side of a ="
        raise Invalid(f"a replacement is written as old=new, not as {text!r}: {reason}")
    old, new = possible[0]
    return canonicalize(old), canonicalize(new)
