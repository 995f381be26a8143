"""What an export changes of the texts, in the exported files only. Pure."""

from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from contracts.errors import Invalid, Rejected
from contracts.tags import canonicalize, escape, render
from contracts.training_text import training_text

DEFAULT_SEPARATOR = ", "

Words = Literal["spaces", "underscores"]


class Overlay(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Changes of tags, and how they are written; a written caption goes out as it is written.

    `trigger`: instead of the version's, empty for none. `exclude` comes before `replace`; both have canonical tags.
    """

    trigger: str | None = None
    exclude: tuple[str, ...] = ()
    replace: tuple[tuple[str, str], ...] = ()
    escape: bool = False
    separator: str = DEFAULT_SEPARATOR
    words: Words = "spaces"

    def tags(self, tags: Iterable[str]) -> tuple[str, ...]:
        """Canonical tags in order: of two that become one, the first place counts."""
        excluded, replaced = frozenset(self.exclude), dict(self.replace)
        return tuple(dict.fromkeys(replaced.get(tag, tag) for tag in tags if tag not in excluded))

    def text(self, trigger: str, tags: Sequence[str], caption: str | None, template: int) -> str:
        """The training text of an image with these tags, after `tags`. Without changes it is `training_text`.

        Rejected: a tag contains the separator, so that it would become two.
        """
        if caption is not None:
            return training_text(trigger, tags, caption, template)
        parts = [self._write(tag) for tag in tags]
        if trigger and trigger not in parts:
            parts.insert(0, trigger)
        return self.separator.join(parts)

    def _write(self, tag: str) -> str:
        written = render(tag) if self.words == "spaces" else tag
        if (self.separator.strip() or self.separator) in written:
            raise Rejected(f"the tag {tag!r} contains the separator {self.separator!r}, and would become two tags")
        return escape(written) if self.escape else written


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
