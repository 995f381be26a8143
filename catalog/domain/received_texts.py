"""What an import applies of the text beside a picture: only what the file changed, never over a person. Pure.

Three-way: the text that the picture was last imported with into this data set, or that was written back beside it; the
text of its file now; and what was decided meanwhile. What a person decided before, and that text says as well, is the
file's too: a later change of the file is applied. Whoever imports the same folder twice changes nothing the second
time, also after its texts were written as the images have them: such a text is recognised by what it says.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field

from catalog.domain.edits import Choice
from catalog.domain.image_sets import image_set
from contracts.events.base import ReadAs, TextKind
from contracts.events.datasets import CaptionSet, DatasetEvent, TagsEdited, TagsOrdered, TextReceived
from contracts.sealed import CAPTION, TEXT, seal
from contracts.tag_style import TagStyle
from contracts.texts.reading import TextReading, read_text
from contracts.texts.writing import write_tags

NOTHING = TextReading(kind="empty", reason="empty")
"""What an image was last imported with, if no text came with it."""


_STYLES = (
    TagStyle(),
    TagStyle(escape=True),
    TagStyle(words="underscores"),
    TagStyle(words="underscores", escape=True),
)


@dataclass(frozen=True, kw_only=True)
class ReadBy:
    """How an import reads texts. `requested`: by itself, and not by the text settings of the data set.

    These are no request to read again what was received before.
    """

    read_as: ReadAs = "auto"
    requested: bool = False


BY_RULE = ReadBy()


@dataclass(frozen=True, kw_only=True)
class OlderDecisions:
    """Which decisions that hold were made before the text was received that an image was last imported with."""

    tags: frozenset[str] = frozenset()
    order: bool = False
    caption: bool = False


NONE_OLDER = OlderDecisions()


@dataclass(frozen=True, kw_only=True)
class TextState:
    """An image before an import.

    `base`: the text that it was last imported with, sealed, and `before` what that said. `decided`: the decision that
    holds on each tag and its source, in the order they were made. `left_to_models`: tags that persons want models to
    decide about. `by_person`: whether a person wrote the caption, or removed it. `shown`: the tags that the image has
    now, in order; `predicted`: those that models give it, whatever was decided.
    """

    ordinal: int
    base: tuple[bytes, TextKind] | None = None
    before: TextReading = NOTHING
    decided: Mapping[str, tuple[Choice, str]] = field(default_factory=dict)
    order: Sequence[str] = ()
    shown: Sequence[str] = ()
    predicted: Set[str] = frozenset()
    left_to_models: frozenset[str] = frozenset()
    caption: str | None = None
    by_person: bool = False
    older: OlderDecisions = NONE_OLDER

    def stands(self, tag: str) -> bool:
        """Has a person decided about this tag what the base does not say, or after it?"""
        _, source = self.decided.get(tag, (None, None))
        says_tags = self.before.kind != "caption"
        return source == "person" and not (says_tags and tag in self.older.tags)

    @property
    def caption_stands(self) -> bool:
        """The same of its caption."""
        return self.by_person and not (self.older.caption and self.caption == self.before.caption)

    @property
    def order_stands(self) -> bool:
        """The same of the order of its tags, which files set as well."""
        if tuple(self.order) in ((), self.before.tags):
            return False
        first = tuple(tag for tag in self.order if tag in self.before.tags)
        return not (self.older.order and first and first == self.before.tags[: len(first)])


@dataclass(frozen=True)
class TextDecision:
    """`conflicts`: what the file changed and a person had decided otherwise, as sentences without private text."""

    events: Sequence[DatasetEvent] = ()
    conflicts: Sequence[str] = ()


def read(state: TextState, text: str, by: ReadBy, key: bytes) -> TextReading:
    """A text that was imported before is read as it was then, and one that says what the image has now as just that."""
    if by.read_as != "caption" and state.caption is None and _is_list_of(state.shown, text):
        return TextReading(kind="tags", tags=tuple(state.shown), reason="requested")
    if by.requested and by.read_as != "auto":
        return read_text(text, by.read_as)
    if state.base is not None and state.base[0] == seal(key, text, TEXT):
        return state.before
    before_texts_were_kept = state.base is None and state.before.caption is not None
    if text == state.caption and not before_texts_were_kept:
        return read_text(text, "caption")
    return read_text(text, by.read_as)


def _is_list_of(tags: Sequence[str], text: str) -> bool:
    """A tag that is all in parentheses is another one when it is read, but is written in one of these ways."""
    if not tags:
        return False
    return read_text(text, "tags").tags == tuple(tags) or any(text == write_tags(tags, style) for style in _STYLES)


def decide(state: TextState, text: str, after: TextReading, key: bytes) -> TextDecision:
    """The events of an import of this text, which was read as `after`; `key` seals the texts of the image."""
    received = TextReceived(
        ordinal=state.ordinal, text=seal(key, text, TEXT), read_as="tags" if after.kind == "tags" else "caption"
    )
    if (received.text, received.read_as) == state.base or (state.base is None and after.kind == "empty"):
        return TextDecision()
    if _says_what_is_shown(state, after):
        return TextDecision([received])
    tags, tag_conflicts = _decide_tags(state, after)
    caption, caption_conflicts = _decide_caption(state, after, key)
    return TextDecision([received, *tags, *caption], [*tag_conflicts, *caption_conflicts])


def _says_what_is_shown(state: TextState, after: TextReading) -> bool:
    """As a text that was written back: nothing is new in it, not even for tags that only models give the image."""
    if state.caption is not None:
        return after.caption == state.caption
    return after.caption is None and after.tags == tuple(state.shown)


def _decide_tags(state: TextState, after: TextReading) -> tuple[list[DatasetEvent], list[str]]:
    added = [tag for tag in after.tags if tag not in set(state.before.tags)]
    removed = [tag for tag in state.before.tags if tag not in set(after.tags)]
    decided = {tag: choice for tag, (choice, _) in state.decided.items()}
    new = [tag for tag in added if decided.get(tag) != "asserted" and tag not in state.left_to_models]
    asserted = tuple(tag for tag in new if not state.stands(tag))
    gone = [tag for tag in removed if decided.get(tag) != "rejected"]
    given_up = [tag for tag in gone if not state.stands(tag)]
    # As in an edit by hand: what only an import says is withdrawn, what models give is rejected.
    rejected = tuple(tag for tag in given_up if tag in state.predicted)
    withdrawn = tuple(tag for tag in given_up if tag in decided and tag not in state.predicted)
    edited = TagsEdited(
        images=image_set([state.ordinal]),
        asserted=asserted,
        rejected=rejected,
        withdrawn=withdrawn,
        source="import",
    )
    conflicts = [
        *(f"{tag!r} is new in the file, but was removed by hand" for tag in added if _is_kept(state, tag, "rejected")),
        *(
            f"{tag!r} is gone from the file, but was added by hand"
            for tag in removed
            if _is_kept(state, tag, "asserted")
        ),
    ]
    shown = [tag for tag, choice in decided.items() if choice == "asserted" and tag not in given_up]
    events: list[DatasetEvent] = [edited] if asserted or rejected or withdrawn else []
    return events + _decide_order(state, after, [*shown, *asserted]), conflicts


def _is_kept(state: TextState, tag: str, choice: Choice) -> bool:
    return state.stands(tag) and state.decided[tag][0] == choice


def _decide_order(state: TextState, after: TextReading, shown: Sequence[str]) -> list[DatasetEvent]:
    """That of the file, unless a person has set another one. `shown`: the tags in the order of their decisions."""
    if after.tags == state.before.tags or state.order_stands:
        return []
    if not state.order and [tag for tag in shown if tag in after.tags] == [tag for tag in after.tags if tag in shown]:
        return []
    return [TagsOrdered(ordinal=state.ordinal, tags=after.tags)]


def _decide_caption(state: TextState, after: TextReading, key: bytes) -> tuple[list[DatasetEvent], list[str]]:
    if after.caption in (state.before.caption, state.caption):
        return [], []
    if state.caption_stands:
        return [], ["the caption is another one in the file, but was changed by hand"]
    sealed = None if after.caption is None else seal(key, after.caption, CAPTION)
    return [CaptionSet(ordinal=state.ordinal, caption=sealed, source="import")], []
