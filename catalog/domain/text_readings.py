"""The rules of reading received texts another way: what becomes of each one, and when a commit is full. Pure.

What the earlier reading of the same text gave, and nobody decided about since, is withdrawn; what the new one says is
asserted. That is the three-way comparison of an import (`received_texts`), with the same text on both sides.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from catalog.domain import received_texts
from catalog.domain.image_sets import image_set
from catalog.domain.received_texts import TextState
from contracts.commands.datasets import TextCounts
from contracts.events.base import ReadAs
from contracts.events.datasets import DatasetEvent, TagsEdited
from contracts.texts.reading import read_text

MAX_BATCH_BYTES = 128 * 1024
"""Of events in one commit, after which it takes no more images; a single image may exceed it."""
MAX_IMAGE_BYTES = 184 * 1024
"""Of events about one image: a commit (`contracts.commits.COMMIT_BYTES`) has no room for more."""


@dataclass(frozen=True, kw_only=True)
class KnownText:
    """An image of a selection. `text`: as received, none if none was; `state` and `key` none: it cannot be read."""

    ordinal: int
    has_text: bool
    text: str = ""
    state: TextState | None = None
    key: bytes | None = None


@dataclass(kw_only=True)
class ReadingDecision:
    """`last`: ordinal of the last image that was decided about; `new_tags`: those that get into the log in clear."""

    last: int = -1
    counts: TextCounts = field(default_factory=TextCounts)
    events: list[DatasetEvent] = field(default_factory=list)
    new_tags: dict[str, None] = field(default_factory=dict)


def decide(images: Iterable[KnownText], read_as: ReadAs) -> ReadingDecision:
    """What is recorded of these images, in order, up to the one that fills a commit."""
    decision = ReadingDecision()
    counts = dict.fromkeys(TextCounts.__struct_fields__, 0)
    edits: dict[TagsEdited, list[int]] = {}
    size = 0
    for image in images:
        events, found = _decide_one(image, read_as)
        own = sum(len(msgspec.json.encode(event)) for event in events)
        if own > MAX_IMAGE_BYTES:
            events, found, own = [], ["too_long"], 0
        if size and size + own > MAX_BATCH_BYTES:
            break
        size += own
        decision.last = image.ordinal
        for name in ("selected", *found):
            counts[name] += 1
        for event in events:
            if isinstance(event, TagsEdited):
                edits.setdefault(msgspec.structs.replace(event, images=NO_IMAGES), []).append(image.ordinal)
                decision.new_tags.update(dict.fromkeys(event.asserted))
            else:
                decision.events.append(event)
    shared = [msgspec.structs.replace(edit, images=image_set(ordinals)) for edit, ordinals in edits.items()]
    decision.events += shared
    decision.counts = TextCounts(**counts)
    return decision


NO_IMAGES = image_set(())


def _decide_one(image: KnownText, read_as: ReadAs) -> tuple[list[DatasetEvent], list[str]]:
    """The events, and the names of the numbers in which the image counts."""
    if not image.has_text:
        return [], ["without_text"]
    if image.state is None or image.key is None:
        return [], ["without_key"]
    reading = read_text(image.text, read_as)
    decided = received_texts.decide(image.state, image.text, reading, image.key)
    kind = "tags" if reading.kind == "tags" else "captions"
    changed, kept = ["changed"] if decided.events else [], ["kept"] if decided.conflicts else []
    return list(decided.events), [kind, *changed, *kept]
