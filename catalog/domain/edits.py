"""Decisions on tags as they are kept for each image, and which commits still count after undos. Pure."""

from collections.abc import Iterable, Mapping, Sequence

import msgspec


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
    def place(self) -> tuple[int, int]:
        """Its place in the log: of two decisions on one tag the later one holds."""
        return self.sequence, self.index

    @property
    def asserts_only(self) -> bool:
        return not (self.rejected or self.withdrawn)

    @property
    def tags(self) -> tuple[int, ...]:
        return (*self.asserted, *self.rejected, *self.withdrawn)


def add_edit(edits: Sequence[Edit], newer: Edit) -> list[Edit]:
    """The edits of an image, oldest first, without the decisions that a newer one replaces."""
    replaced = set(newer.tags)
    kept = (edit if replaced.isdisjoint(edit.tags) else _without(edit, replaced) for edit in edits)
    return [*(edit for edit in kept if edit.tags), newer]


def merge_edits(edits: Iterable[Edit]) -> list[Edit]:
    """The edits of an image without replaced decisions, from any edits of it."""
    merged: list[Edit] = []
    for edit in sorted(edits, key=lambda one: one.place):
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


def _without(edit: Edit, tags: set[int]) -> Edit:
    asserted, rejected, withdrawn = (
        tuple(tag for tag in group if tag not in tags) for group in (edit.asserted, edit.rejected, edit.withdrawn)
    )
    return Edit(edit.sequence, edit.index, edit.source, edit.actor, asserted, rejected, withdrawn)
