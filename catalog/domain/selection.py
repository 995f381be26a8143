"""Evaluates filters to sets of ordinals, over an index that a view provides. Pure.

Only candidates are asked for: in a conjunction the cheap terms come first, and the expensive ones look only at what
these leave.
"""

from array import array
from typing import Literal, Protocol, TypeAlias, assert_never

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from contracts.filters import (
    AddedSince,
    And,
    Aspect,
    Bounds,
    Captioned,
    Confidence,
    ContainsText,
    DuplicateOf,
    Filter,
    HasRejected,
    HasSource,
    HasTag,
    Not,
    Or,
    ReviewState,
    Size,
    TagSource,
    TextField,
    Untagged,
    children_of,
)
from contracts.ids import ImageId

Column = Literal["width", "height", "bytes", "dhash", "added", "changed", "tags"]
"""Numbers of images. dhash: 64 bits; added, changed: sequences of the log; tags: how many an image has."""
Numbers: TypeAlias = NDArray[np.float64] | NDArray[np.int64] | NDArray[np.uint64]


class ImageIndex(Protocol):
    """What filters and sort orders are computed from, of one data set. Sets may contain images that are not live."""

    def universe(self) -> BitMap:
        """The live images: neither removed nor erased."""

    def tagged(self, tag: str) -> BitMap: ...

    def with_tags(self) -> BitMap:
        """Images with at least one tag."""

    def rejected(self, tag: str) -> BitMap: ...

    def from_source(self, source: TagSource, tag: str | None) -> BitMap:
        """Images that have the tag (none: any tag) from this source."""

    def captioned(self) -> BitMap: ...

    def reviewed(self) -> BitMap: ...

    def column(self, name: Column, images: BitMap) -> Numbers:
        """The numbers of these images, by ascending ordinal."""

    def confidence(self, tag: str, images: BitMap) -> NDArray[np.float64]:
        """The highest current prediction of the tag for each of these images, by ascending ordinal; 0 without one."""

    def containing(self, text: str, field: TextField, images: BitMap) -> BitMap:
        """Those of these images with the text in their name or caption."""

    def added_since(self, moment: AddedSince) -> BitMap: ...

    def dhash_of(self, image: ImageId) -> int:
        """The difference hash of an image of any data set. NotFound, Gone: there is none."""


def evaluate(filter_: Filter, index: ImageIndex) -> BitMap:
    """The live images that the filter selects. NotFound, Gone: it names an image that does not exist."""
    return _among(filter_, index, index.universe())


def to_array(images: BitMap) -> NDArray[np.uint32]:
    """The ordinals, ascending."""
    return np.frombuffer(images.to_array(), dtype=np.uint32)


def to_set(ordinals: NDArray[np.uint32]) -> BitMap:
    """The opposite of `to_array`; from an array of the standard library a set is made five times faster."""
    return BitMap(array("I", ordinals.tobytes()))


def _among(filter_: Filter, index: ImageIndex, images: BitMap) -> BitMap:
    """Those of these images that the filter selects."""
    match filter_:
        case Not(term=term):
            return images - _among(term, index, images)
        case And(terms=terms):
            for term in sorted(terms, key=_cost):
                images = _among(term, index, images)
                if not images:
                    break
            return images
        case Or(terms=terms):
            found = BitMap()
            for term in sorted(terms, key=_cost):
                found |= _among(term, index, images - found)
            return found
        case Confidence(tag=tag):
            return _within(filter_, index.confidence(tag, images), images)
        case Size() | Aspect():
            return _within(filter_, _measure(filter_, index, images), images)
        case ContainsText(text=text, field=field):
            return index.containing(text, field, images)
        case DuplicateOf(image=image, distance=distance):
            hashes = index.column("dhash", images).astype(np.uint64, copy=False)
            different = np.bitwise_count(hashes ^ np.uint64(index.dhash_of(image)))
            return _chosen(images, different <= distance)
        case _:
            return images & _known_set(filter_, index)


def _known_set(
    term: HasTag | Untagged | Captioned | HasRejected | HasSource | ReviewState | AddedSince, index: ImageIndex
) -> BitMap:
    """What the index has as a set already."""
    match term:
        case HasTag(tag=tag):
            return index.tagged(tag)
        case Untagged():
            return index.universe() - index.with_tags()
        case Captioned():
            return index.captioned()
        case HasRejected(tag=tag):
            return index.rejected(tag)
        case HasSource(source=source, tag=from_tag):
            return index.from_source(source, from_tag)
        case ReviewState(reviewed=True):
            return index.reviewed()
        case ReviewState():
            return index.universe() - index.reviewed()
        case AddedSince():
            return index.added_since(term)
        case _:
            assert_never(term)


def _cost(filter_: Filter) -> int:
    match filter_:
        case ContainsText():
            return 3
        case Confidence() | HasSource(tag=None):
            return 2
        case Size() | Aspect() | DuplicateOf() | AddedSince():
            return 1
        case _:
            return max(map(_cost, children_of(filter_)), default=0)


def _measure(term: Size | Aspect, index: ImageIndex, images: BitMap) -> Numbers:
    match term:
        case Size(of="pixels"):
            return index.column("width", images) * index.column("height", images)
        case Size(of="width" | "height" | "bytes" as name):
            return index.column(name, images)
        case _:
            return index.column("width", images) / index.column("height", images)


def _within(bounds: Bounds, numbers: Numbers, images: BitMap) -> BitMap:
    inside = np.ones(len(numbers), dtype=np.bool_)
    if bounds.at_least is not None:
        inside &= numbers >= bounds.at_least
    if bounds.above is not None:
        inside &= numbers > bounds.above
    if bounds.at_most is not None:
        inside &= numbers <= bounds.at_most
    if bounds.below is not None:
        inside &= numbers < bounds.below
    return _chosen(images, inside)


def _chosen(images: BitMap, inside: NDArray[np.bool_]) -> BitMap:
    return to_set(to_array(images)[inside])
