"""Decisions on tags as they are kept for each image, and which commits still count after undos. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Literal

import msgspec
from pyroaring import BitMap

from contracts.errors import Rejected
from contracts.filters import TagSource
from contracts.tags import canonicalize

Place = tuple[int, int]
"""Of an edit in the log: sequence, and index in the commit."""


class Edit(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What one event decided, or what still holds of it for one image: ids of tags."""

    sequence: int
    index: int
    source: str
    actor: str
    asserted: tuple[int, ...] = ()
    rejected: tuple[int, ...] = ()
    withdrawn: tuple[int, ...] = ()

    @property
    def place(self) -> Place:
        """Its place in the log: of two decisions on one tag the later one holds."""
        return self.sequence, self.index

    @property
    def asserts_only(self) -> bool:
        return not (self.rejected or self.withdrawn)

    @property
    def tags(self) -> tuple[int, ...]:
        return (*self.asserted, *self.rejected, *self.withdrawn)


Choice = Literal["asserted", "rejected", "withdrawn"]
SetChoice = Literal["asserted", "imported", "rejected", "withdrawn"]
"""The same, with the assertions of imports apart."""
Counted = TagSource | Literal["any"]
"""Which tags of an image are counted: all, or those from a source."""
Change = tuple[BitMap, BitMap]
"""The images that gained a tag, and those that lost it."""


def tags_by_choice(edit: Edit) -> tuple[tuple[Choice, tuple[int, ...]], ...]:
    """In the order in which they count."""
    return ("asserted", edit.asserted), ("rejected", edit.rejected), ("withdrawn", edit.withdrawn)


def choices(edit: Edit) -> Iterator[tuple[int, Choice]]:
    """What an edit decided about each tag."""
    return ((tag, choice) for choice, tags in tags_by_choice(edit) for tag in tags)


def tags_of(edits: Iterable[Sequence[Edit]]) -> set[int]:
    """The tags that the edits of some images decided about."""
    found: set[int] = set()
    for of_image in edits:
        for edit in of_image:
            found.update(edit.asserted, edit.rejected, edit.withdrawn)
    return found


def latest_choices(edits: Sequence[Edit]) -> dict[int, Choice]:
    """The latest decision on each tag that was not withdrawn since, in the order they were made; given all in order."""
    latest: dict[int, Choice] = {}
    if len(edits) == 1 and edits[0].asserts_only:  # as imports do, and most images have nothing else
        latest = dict.fromkeys(edits[0].asserted, "asserted")
        if len(latest) == len(edits[0].asserted):
            return latest
    for edit in edits:
        for tag, choice in choices(edit):
            latest.pop(tag, None)
            latest[tag] = choice
    return {tag: choice for tag, choice in latest.items() if choice != "withdrawn"}


def choice_groups(edit: Edit) -> tuple[tuple[SetChoice, tuple[int, ...]], ...]:
    """As `tags_by_choice`, with the assertions of imports apart."""
    asserted: SetChoice = "imported" if edit.source == "import" else "asserted"
    return (asserted, edit.asserted), *tags_by_choice(edit)[1:]


def set_choices(edit: Edit) -> Iterator[tuple[int, SetChoice]]:
    return ((tag, choice) for choice, some in choice_groups(edit) for tag in some)


def requested_choices(
    *, add: Iterable[str] = (), remove: Iterable[str] = (), withdraw: Iterable[str] = ()
) -> dict[str, Choice]:
    """What a client decides about each tag, in canonical form and order. Rejected: a tag is in two of the lists."""
    lists: tuple[tuple[Choice, Iterable[str]], ...] = (("asserted", add), ("rejected", remove), ("withdrawn", withdraw))
    found: dict[str, Choice] = {}
    twice: set[str] = set()
    for choice, tags in lists:
        for tag in map(canonicalize, tags):
            if found.setdefault(tag, choice) != choice:
                twice.add(tag)
    if twice:
        raise Rejected(f"one edit cannot both add and remove {', '.join(sorted(twice))}")
    return found


def add_edit(edits: Sequence[Edit], newer: Edit) -> list[Edit]:
    """The edits of an image, oldest first, without the decisions that a newer one replaces."""
    replaced = set(newer.tags)
    kept: list[Edit] = []
    for edit in edits:
        if all(map(replaced.isdisjoint, (edit.asserted, edit.rejected, edit.withdrawn))):
            kept.append(edit)
        elif left := {*edit.tags} - replaced:
            kept.append(only_tags(edit, left))
    return [*kept, newer]


def merge_edits(edits: Iterable[Edit]) -> list[Edit]:
    """The edits of an image without replaced decisions, from any edits of it."""
    in_order = sorted(edits, key=lambda one: one.place)
    tags = [tag for edit in in_order for tag in edit.tags]
    if len(set(tags)) == len(tags):  # as most images have them
        return in_order
    merged: list[Edit] = []
    for edit in in_order:
        merged = add_edit(merged, edit)
    return merged


def voided_commits(undos: Mapping[int, Iterable[int]], until: int | None = None) -> frozenset[int]:
    """The commits that do not count, given the commits that each undo names, by the sequence of the undo.

    An undo that was itself undone names nothing. `until`: as of this sequence of the log.
    """
    voided: set[int] = set()
    for sequence in sorted(undos, reverse=True):
        if sequence not in voided and (until is None or sequence <= until):
            voided.update(undos[sequence])
    return frozenset(voided)


def only_tags(edit: Edit, tags: AbstractSet[int]) -> Edit:
    """What an edit decided about some tags."""
    asserted, rejected, withdrawn = [
        tuple([tag for tag in group if tag in tags]) if group else group
        for group in (edit.asserted, edit.rejected, edit.withdrawn)
    ]
    return Edit(edit.sequence, edit.index, edit.source, edit.actor, asserted, rejected, withdrawn)
