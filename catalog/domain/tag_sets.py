"""The sets of images of one tag, and how a decision changes them. Pure."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field

from pyroaring import BitMap

from catalog.domain.edits import Change, Counted, SetChoice

DECIDED: tuple[SetChoice, ...] = ("asserted", "imported", "rejected")
CHOICES: tuple[SetChoice, ...] = (*DECIDED, "withdrawn")
BASE = ("predicted", *DECIDED)
"""What the tags of images follow from."""
COUNTED_SETS: tuple[tuple[Counted, str], ...] = (("any", "tagged"), ("person", "asserted"), ("import", "imported"))
NONE = BitMap()
"""Never changed."""


@dataclass
class TagSets:
    """The images of one tag: `predicted` where a prediction passes the rules, the rest by the decisions that hold.

    An assertion is in `imported` if it came with an import, else in `asserted`. The sets themselves are never changed
    but replaced by others, so several of these may be the same one.
    """

    asserted: BitMap = NONE
    imported: BitMap = NONE
    rejected: BitMap = NONE
    predicted: BitMap = NONE
    tagged: BitMap = NONE
    own_asserted: BitMap | None = None
    own_imported: BitMap | None = None
    own_rejected: BitMap | None = None
    own_withdrawn: BitMap | None = None
    stored: dict[str, BitMap] = field(default_factory=dict)
    """As in the rows."""

    def by_source(self) -> dict[Counted, BitMap]:
        """The images that have the tag: all, and those that have it from each source."""
        return {"any": self.tagged, "person": self.asserted, "import": self.imported, "model": self._from_model()}

    def decide(self, images: BitMap, choice: SetChoice) -> None:
        """What holds for these images now."""
        for name in DECIDED:
            decided: BitMap = getattr(self, name)
            if name == choice:
                setattr(self, name, decided | images)
            elif decided.intersect(images):
                setattr(self, name, decided - images)

    def begin_bulk(self) -> None:
        """Before the first edit of many images: until now all decisions are kept with images."""
        if self.own_withdrawn is None:
            for name in DECIDED:
                setattr(self, f"own_{name}", getattr(self, name))
            self.own_withdrawn = NONE

    def decide_own(self, images: BitMap, choice: SetChoice | None) -> None:
        """What is kept with these images themselves; None: no decision."""
        for name in CHOICES:
            own: BitMap | None = getattr(self, f"own_{name}")
            if own is not None:
                setattr(self, f"own_{name}", own | images if choice == name else own - images)

    def own(self) -> dict[SetChoice, BitMap]:
        """What is kept with the images themselves; after `begin_bulk`."""
        return {name: getattr(self, f"own_{name}") for name in CHOICES}

    def discard(self, ordinal: int) -> None:
        image = BitMap([ordinal])
        for name, images in list(self.sets()):
            setattr(self, name, images - image)

    def sets(self) -> Iterator[tuple[str, BitMap]]:
        """By the names they are stored under."""
        yield "asserted", self.asserted
        yield "imported", self.imported
        yield "rejected", self.rejected
        yield "predicted", self.predicted
        yield "tagged", self.tagged
        if self.own_withdrawn is not None:
            for name, images in self.own().items():
                yield f"own_{name}", images

    def update_tagged(self) -> Iterator[tuple[Counted, Change]]:
        """After any other of the sets was replaced. What images gained and lost by each source since they were read."""
        stored = self.stored.get
        if all(getattr(self, name) is stored(name, NONE) for name in BASE):
            return
        self.tagged = _without(_union(self.asserted, self.imported, self.predicted), self.rejected)
        known: dict[tuple[int, int], list[Change]] = {}
        for source, name in COUNTED_SETS:
            before, after = stored(name, NONE), getattr(self, name)
            if (key := (id(before), id(after))) not in known:  # most tags have nothing but imported images
                known[key] = _change(before, after)
            for change in known[key]:
                yield source, change
        if self.predicted or stored("predicted", NONE):
            for change in _change(_from_model(*(stored(name, NONE) for name in BASE)), self._from_model()):
                yield "model", change

    def _from_model(self) -> BitMap:
        return _from_model(self.predicted, self.asserted, self.imported, self.rejected)


def _from_model(predicted: BitMap, *decided: BitMap) -> BitMap:
    return _without(predicted, *decided)


def _union(*some: BitMap) -> BitMap:
    """One of them where the others are empty."""
    first, *others = [images for images in some if images] or [NONE]
    return functools.reduce(BitMap.__or__, others, first)


def _without(images: BitMap, *others: BitMap) -> BitMap:
    """The same set where the others are empty."""
    return functools.reduce(BitMap.__sub__, [some for some in others if some], images)


def _change(before: BitMap, after: BitMap) -> list[Change]:
    """None or one."""
    return [(after - before, before - after)] if differs(before, after) else []


def differs(before: BitMap, images: BitMap) -> bool:
    """Sets that are the same object are not compared."""
    return before is not images and before != images
