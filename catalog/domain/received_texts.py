"""What an import applies of the text beside a picture: only what the file changed, never over a person. Pure.

Three-way: the text that the picture was last imported with into this data set, the text of its file now, and what was
decided meanwhile. Whoever imports the same folder twice changes nothing the second time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from catalog.domain.edits import Choice
from catalog.domain.image_sets import image_set
from contracts.events.base import ReadAs, TextKind
from contracts.events.datasets import CaptionSet, DatasetEvent, TagsEdited, TagsOrdered, TextReceived
from contracts.sealed import CAPTION, TEXT, seal
from contracts.texts.reading import TextReading, read_text

NOTHING = TextReading(kind="empty", reason="empty")
"""What an image was last imported with, if no text came with it."""


@dataclass(frozen=True, kw_only=True)
class TextState:
    """An image before an import.

    `base`: the text that it was last imported with, sealed, and `before` what that said. `decided`: the decision that
    holds on each tag and its source, in the order they were made. `left_to_models`: tags that
    persons want models to decide about. `by_person`: whether a person wrote the caption, or removed it.
    """

    ordinal: int
    base: tuple[bytes, TextKind] | None = None
    before: TextReading = NOTHING
    decided: Mapping[str, tuple[Choice, str]] = field(default_factory=dict)
    order: Sequence[str] = ()
    left_to_models: frozenset[str] = frozenset()
    caption: str | None = None
    by_person: bool = False


@dataclass(frozen=True)
class TextDecision:
    """`conflicts`: what the file changed and a person had decided otherwise, as sentences without private text."""

    events: Sequence[DatasetEvent] = ()
    conflicts: Sequence[str] = ()


def read(state: TextState, text: str, read_as: ReadAs, key: bytes) -> TextReading:
    """A text of an import, by the rule; one that has not changed since as it was read, by whatever request."""
    if read_as == "auto" and state.base is not None and state.base[0] == seal(key, text, TEXT):
        return read_text(text, state.base[1])
    return read_text(text, read_as)


def decide(state: TextState, text: str, after: TextReading, key: bytes) -> TextDecision:
    """The events of an import of this text, which was read as `after`; `key` seals the texts of the image."""
    received = TextReceived(
        ordinal=state.ordinal, text=seal(key, text, TEXT), read_as="tags" if after.kind == "tags" else "caption"
    )
    if (received.text, received.read_as) == state.base or (state.base is None and after.kind == "empty"):
        return TextDecision()
    tags, tag_conflicts = _decide_tags(state, after)
    caption, caption_conflicts = _decide_caption(state, after, key)
    return TextDecision([received, *tags, *caption], [*tag_conflicts, *caption_conflicts])


def _decide_tags(state: TextState, after: TextReading) -> tuple[list[DatasetEvent], list[str]]:
    added = [tag for tag in after.tags if tag not in set(state.before.tags)]
    removed = [tag for tag in state.before.tags if tag not in set(after.tags)]
    decided = state.decided
    asserted = tuple(tag for tag in added if tag not in decided and tag not in state.left_to_models)
    withdrawn = tuple(tag for tag in removed if decided.get(tag) == ("asserted", "import"))
    edited = TagsEdited(images=image_set([state.ordinal]), asserted=asserted, withdrawn=withdrawn, source="import")
    conflicts = [
        *(f"{tag!r} is new in the file, but was removed by hand" for tag in added if _is(decided, tag, "rejected")),
        *(f"{tag!r} is gone from the file, but was added by hand" for tag in removed if _is(decided, tag, "asserted")),
    ]
    shown = [tag for tag, (choice, _) in decided.items() if choice == "asserted" and tag not in withdrawn]
    events: list[DatasetEvent] = [edited] if asserted or withdrawn else []
    return events + _decide_order(state, after, [*shown, *asserted]), conflicts


def _is(decided: Mapping[str, tuple[Choice, str]], tag: str, choice: Choice) -> bool:
    return decided.get(tag) == (choice, "person")


def _decide_order(state: TextState, after: TextReading, shown: Sequence[str]) -> list[DatasetEvent]:
    """That of the file, unless a person has set another one. `shown`: the tags in the order of their decisions."""
    if after.tags == state.before.tags or tuple(state.order) not in ((), state.before.tags):
        return []
    if not state.order and [tag for tag in shown if tag in after.tags] == [tag for tag in after.tags if tag in shown]:
        return []
    return [TagsOrdered(ordinal=state.ordinal, tags=after.tags)]


def _decide_caption(state: TextState, after: TextReading, key: bytes) -> tuple[list[DatasetEvent], list[str]]:
    if after.caption in (state.before.caption, state.caption):
        return [], []
    if state.by_person:
        return [], ["the caption is another one in the file, but was changed by hand"]
    sealed = None if after.caption is None else seal(key, after.caption, CAPTION)
    return [CaptionSet(ordinal=state.ordinal, caption=sealed, source="import")], []
