"""The text that is trained for an image: one function of tags and caption, for views, versions and trainers. Pure."""

import re
from collections.abc import Callable, Sequence

from contracts.errors import Rejected
from contracts.tag_style import DEFAULT_STYLE, FIRST_STYLE, TagStyle
from contracts.texts.writing import write_tags

TEXT_VERSION = 2
"""Version of the rules below, recorded in each version of a data set: what an old version says never changes."""
DEFAULT_TEMPLATE = 1
"""The trigger, then the written caption, or the tags where there is none.

Version 2 also has 2: trigger, tags, then the caption; and 3: trigger, caption, then the tags.
"""

TextRule = Callable[[str, Sequence[str], str | None, TagStyle], str]
"""Of trigger, tags in order, written caption, and how the tags are written."""


def training_text(  # noqa: PLR0913 (what a text is made of, and by which rules)
    trigger: str,
    tags: Sequence[str],
    caption: str | None,
    template: int = DEFAULT_TEMPLATE,
    *,
    version: int = TEXT_VERSION,
    style: TagStyle = DEFAULT_STYLE,
) -> str:
    """The text of an image with these tags, in order, and this written caption, if any.

    Version 1 had one style and ignores `style`. Rejected: version or template are unknown.
    """
    return require_rule(version, template)(trigger, tags, caption, style)


def require_rule(version: int, template: int) -> TextRule:
    """The rule of this template in this version of the rules. Rejected: there is none."""
    rule = RULES.get((version, template))
    if rule is None:
        raise Rejected(
            f"this Loratory has no template {template} for training texts of version {version}; a newer one may",
            template=template,
        )
    return rule


def _trigger_added(trigger: str, tags: Sequence[str], caption: str | None, _style: TagStyle) -> str:
    """Version 1: the written caption or the joined tags, with the trigger in front unless it is there."""
    text = write_tags(tags, FIRST_STYLE) if caption is None else caption
    if not trigger or any(part.strip() == trigger for part in text.split(",")):
        return text
    # In a sentence the trigger may be a word of it; among tags `cat ears` is not the tag `cat`.
    if caption is not None and _has_word(caption, trigger):
        return text
    return f"{trigger}, {text}" if text else trigger


def _trigger_first(trigger: str, tags: Sequence[str], caption: str | None, style: TagStyle) -> str:
    """Version 2: the trigger, then the written caption, unless it has the trigger; or else the tags without it."""
    if caption is not None:
        if not trigger or _has_word(caption, trigger):
            return caption
        return f"{trigger}, {caption}" if caption else trigger
    return _join((trigger, _tags_without(trigger, tags, style)), style)


def _tags_first(trigger: str, tags: Sequence[str], caption: str | None, style: TagStyle) -> str:
    """Version 2: trigger, tags without it, then the written caption; one that has the trigger needs no other."""
    others = _tags_without(trigger, tags, style)
    if caption and not others and trigger and _has_word(caption, trigger):
        return caption
    return _join((trigger, others, caption), style)


def _caption_first(trigger: str, tags: Sequence[str], caption: str | None, style: TagStyle) -> str:
    """Version 2: trigger, unless the caption has it; the written caption, then the tags without the trigger."""
    first = "" if caption and trigger and _has_word(caption, trigger) else trigger
    return _join((first, caption, _tags_without(trigger, tags, style)), style)


def _tags_without(trigger: str, tags: Sequence[str], style: TagStyle) -> str:
    """The tags but those that the trigger says."""
    same = {"_".join(part.casefold().split()) for part in trigger.split(",")}
    return write_tags([tag for tag in tags if tag not in same], style)


def _join(parts: Sequence[str | None], style: TagStyle) -> str:
    """Those that are not empty."""
    return style.separator.join(part for part in parts if part)


def _has_word(caption: str, trigger: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(trigger)}(?!\w)", caption) is not None


RULES: dict[tuple[int, int], TextRule] = {
    (1, DEFAULT_TEMPLATE): _trigger_added,
    (2, DEFAULT_TEMPLATE): _trigger_first,
    (2, 2): _tags_first,
    (2, 3): _caption_first,
}
"""By version and template. A rule never changes once versions of data sets were frozen with it."""
