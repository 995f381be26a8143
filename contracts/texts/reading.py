"""A text beside a picture as tags or as a caption. Pure.

The rule of `auto`, in the order in which it is applied. Unsure means caption: tags are in the log in clear, captions
are sealed, so that a text with a name, an address or a number of a person in it must not be taken for tags.

1. Nothing visible, or nothing between the separators: `empty`.
2. Syntax of trainers and prompts makes a caption, kept as it is: `|||`, `;;;`, `{a|b}`, `__name__`, `<lora:name:1>`.
3. Entries stand between commas (`,` and `，、،`), or one a line where there are none. Lines with commas are one list if
   each but the last ends in a comma; otherwise they are alternative captions (kohya), or prose: a caption.
4. One entry that no tag looks like makes the whole text a caption (`contracts.texts.entries.objection`): capitals
   outside usual tags, addresses, numbers, code, words of sentences. So does a key in front (`camera: nikon, …`).
5. One marker makes it tags: `1girl`, `solo`, `score_9`, `rating:safe`, `masterpiece`, `(hat:1.2)`, `saber \\(fate\\)`.
6. Without a marker, it is tags if there are two entries or more, at least three quarters of them are usual tags or have
   an underscore (`bad_tag`), one is a usual tag (`contracts.texts.known_tags`), and the rest are single words such as
   triggers, unless the list has ten entries. A single entry must be a usual tag with an underscore (`long_hair`).
7. All else is a caption.
"""

import re
from collections.abc import Iterator
from typing import Literal

import msgspec

from contracts.errors import Rejected
from contracts.events.base import ReadAs
from contracts.tags import canonicalize
from contracts.texts import MAX_CAPTION_CHARACTERS
from contracts.texts.entries import is_key_value, is_known, is_marker, is_underscored, objection, undo_syntax

Kind = Literal["tags", "caption", "empty"]

MAX_TAGS = 1000
"""Maximum number of tags of one image, as in `contracts.commands.base.Tags`."""
MAX_PROBLEMS = 10
LONG_LIST = 10
"""Entries of a list in which those that are not known may have several words, as names have."""

_COMMAS = ",，、،"
_ENTRY = re.compile(rf"(?:\{{[^{{}}]*\}}|[^{_COMMAS}\n])+")  # commas in the braces of a wildcard separate no tags
_TRAINER_SYNTAX = re.compile(r"\|\|\||;;;|\{[^{}|]*\||(?<!_)__(?!_)[\w/*-]{1,100}?(?<!_)__(?!_)|<\w+:[^<>\s]")
_TRAINER_SEPARATORS = re.compile(r"\|\|\||;;;")


class TextReading(msgspec.Struct, frozen=True, kw_only=True):
    """What a text is read as: `tags`, canonical and in order, each once; or `caption`, the text without blank ends.

    `problems`: sentences about entries that are no tags. `reason`: a stable code for why it was read so: `empty`;
    `no-tags` (only problems); `requested` (tags or caption was asked for); `marker`, `known-tags`; or why it is a
    caption: `trainer-syntax`, `several-lines`, `too-many`, `key-value`, `single-phrase`, `few-known-tags`, or an
    objection to an entry (`contracts.texts.entries`).
    """

    kind: Kind
    tags: tuple[str, ...] = ()
    caption: str | None = None
    problems: tuple[str, ...] = ()
    reason: str


def read_text(text: str, read_as: ReadAs = "auto") -> TextReading:
    """This text as tags, or as a caption. Rejected (`reason`: `too-long`) above MAX_CAPTION_CHARACTERS; else total."""
    if len(text) > MAX_CAPTION_CHARACTERS:
        raise Rejected(f"it has more than {MAX_CAPTION_CHARACTERS} characters", reason="too-long")
    text = text.strip()
    match read_as:
        case "caption":
            return _caption(text, "requested") if text else TextReading(kind="empty", reason="empty")
        case "tags":
            return _read_tags(_TRAINER_SEPARATORS.sub(",", text), "requested")
        case "auto":
            return _read_by_rule(text)


def _read_by_rule(text: str) -> TextReading:
    entries = list(_entries(text))
    if not entries:
        return TextReading(kind="empty", reason="empty")
    if _TRAINER_SYNTAX.search(text):
        return _caption(text, "trainer-syntax")
    if not _is_one_list(text):
        return _caption(text, "several-lines")
    against = next((reason for entry in entries if (reason := objection(entry)) is not None), None)
    if against is not None:
        return _caption(text, against)
    return _judge(text, list(dict.fromkeys(entries)))


def _judge(text: str, entries: list[str]) -> TextReading:
    """Steps 5 to 7: entries to which there is no objection are tags if enough is known of them."""
    if len(entries) > MAX_TAGS:
        return _caption(text, "too-many")
    if is_key_value(entries[0]):
        return _caption(text, "key-value")
    if any(map(is_marker, entries)):
        return _read_tags(text, "marker")
    known = [entry for entry in entries if is_known(entry)]
    if len(entries) == 1:
        single = bool(known) and is_underscored(entries[0])
        return _read_tags(text, "known-tags") if single else _caption(text, "single-phrase")
    others = [entry for entry in entries if entry not in known and not is_underscored(entry)]
    may_be_names = len(entries) < LONG_LIST and any(" " in entry for entry in others)
    if known and 4 * len(others) <= len(entries) and not may_be_names:
        return _read_tags(text, "known-tags")
    return _caption(text, "few-known-tags")


def _is_one_list(text: str) -> bool:
    """One line, one entry a line, or lines that go on after a comma."""
    lines = [line for line in map(str.strip, text.splitlines()) if line]
    without = not any(comma in text for comma in _COMMAS)
    return without or all(line[-1] in _COMMAS for line in lines[:-1])


def _entries(text: str) -> Iterator[str]:
    for entry in _ENTRY.findall("\n".join(text.splitlines())):
        if stripped := entry.strip():
            yield stripped


def _read_tags(text: str, reason: str) -> TextReading:
    tags: dict[str, None] = {}
    problems: list[str] = []
    for entry in _entries(text):
        try:
            tags[canonicalize(undo_syntax(entry))] = None
        except Rejected as error:
            problems.append(error.detail)
    if len(tags) > MAX_TAGS:
        problems.insert(0, f"an image has at most {MAX_TAGS} tags; the last {len(tags) - MAX_TAGS} were left out")
    if len(problems) > MAX_PROBLEMS:
        problems[MAX_PROBLEMS - 1 :] = [f"and {len(problems) - MAX_PROBLEMS + 1} more entries that are no tags"]
    if not tags:
        return TextReading(kind="empty", problems=tuple(problems), reason="no-tags" if problems else "empty")
    return TextReading(kind="tags", tags=tuple(tags)[:MAX_TAGS], problems=tuple(problems), reason=reason)


def _caption(text: str, reason: str) -> TextReading:
    return TextReading(kind="caption", caption=text, reason=reason)
