"""The text that is trained for an image: one function of tags and caption, for views, versions and trainers. Pure."""

import re
from collections.abc import Callable, Sequence

from contracts.errors import Rejected
from contracts.texts.writing import FIRST_STYLE, write_tags

TEXT_VERSION = 1
"""Version of the rules below, recorded in each version of a data set: what an old version says never changes."""
DEFAULT_TEMPLATE = 1
"""The trigger, then the written caption, or the tags where there is none."""


def training_text(trigger: str, tags: Sequence[str], caption: str | None, template: int = DEFAULT_TEMPLATE) -> str:
    """The text of an image with these tags, in order, and this written caption, if any.

    Rejected: the template is unknown.
    """
    return require_template(template)(trigger, tags, caption)


def require_template(template: int) -> Callable[[str, Sequence[str], str | None], str]:
    """The rule of this number. Rejected: there is none."""
    rule = TEMPLATES.get(template)
    if rule is None:
        raise Rejected(
            f"this Loratory has no template {template} for training texts; a newer one may", template=template
        )
    return rule


def _trigger_first(trigger: str, tags: Sequence[str], caption: str | None) -> str:
    """The written caption or the joined tags, with the trigger in front unless it is there."""
    text = write_tags(tags, FIRST_STYLE) if caption is None else caption
    if not trigger or any(part.strip() == trigger for part in text.split(",")):
        return text
    # In a sentence the trigger may be a word of it; among tags `cat ears` is not the tag `cat`.
    if caption is not None and re.search(rf"(?<!\w){re.escape(trigger)}(?!\w)", caption):
        return text
    return f"{trigger}, {text}" if text else trigger


TEMPLATES = {DEFAULT_TEMPLATE: _trigger_first}
