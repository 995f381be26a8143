"""Filters are evaluated as a plain model of images says; pages of sorted images as a plain sort."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pyroaring import BitMap

from catalog.domain.ordering import NO_RANK, NameKeys, Position, natural_key, page
from catalog.domain.selection import Column, Numbers, evaluate, to_array
from contracts.errors import NotFound
from contracts.filter_text import parse_filter
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
)
from contracts.ids import ImageId
from tests.contracts.filter_values import groups_of

START = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
TAGS = ("hat", "cap", "solo")


@dataclass(frozen=True)
class PlainImage:
    """An image as a person would describe it. `tags`: the source of each."""

    live: bool
    tags: dict[str, TagSource]
    rejected: frozenset[str]
    predicted: dict[str, float]
    width: int
    height: int
    size: int
    dhash: int
    name: str
    caption: str
    reviewed: bool
    added: int


class PlainIndex:
    """An index over plain images; counts the images whose numbers or texts were asked for."""

    def __init__(self, images: Sequence[PlainImage]) -> None:
        self.images = images
        self.examined = 0

    def universe(self) -> BitMap:
        return BitMap(at for at, image in enumerate(self.images) if image.live)

    def tagged(self, tag: str) -> BitMap:
        return BitMap(at for at, image in enumerate(self.images) if tag in image.tags)

    def with_tags(self) -> BitMap:
        return BitMap(at for at, image in enumerate(self.images) if image.tags)

    def rejected(self, tag: str) -> BitMap:
        return BitMap(at for at, image in enumerate(self.images) if tag in image.rejected)

    def from_source(self, source: TagSource, tag: str | None) -> BitMap:
        return BitMap(at for at, image in enumerate(self.images) if _from_source(image, source, tag))

    def captioned(self) -> BitMap:
        return BitMap(at for at, image in enumerate(self.images) if image.caption)

    def reviewed(self) -> BitMap:
        return BitMap(at for at, image in enumerate(self.images) if image.reviewed)

    def column(self, name: Column, images: BitMap) -> Numbers:
        self.examined += len(images)
        values = {
            "width": lambda image: image.width,
            "height": lambda image: image.height,
            "bytes": lambda image: image.size,
            "dhash": lambda image: image.dhash,
            "added": lambda image: image.added,
        }
        found = [values[name](self.images[at]) for at in images]
        return np.array(found, dtype=np.uint64) if name == "dhash" else np.array(found, dtype=np.int64)

    def confidence(self, tag: str, images: BitMap) -> NDArray[np.float64]:
        self.examined += len(images)
        return np.array([self.images[at].predicted.get(tag, 0.0) for at in images], dtype=np.float64)

    def containing(self, text: str, field: TextField, images: BitMap) -> BitMap:
        self.examined += len(images)
        return BitMap(at for at in images if _contains(self.images[at], text, field))

    def added_since(self, moment: AddedSince) -> BitMap:
        return BitMap(at for at, image in enumerate(self.images) if _is_since(image, moment))

    def dhash_of(self, image: ImageId) -> int:
        return self.images[_ordinal(image, len(self.images))].dhash


def _ordinal(image: str, count: int) -> int:
    at = int(image.removeprefix("img_"))
    if at >= count:
        raise NotFound(f"there is no image {image!r}")
    return at


def _from_source(image: PlainImage, source: TagSource, tag: str | None) -> bool:
    return source in image.tags.values() if tag is None else image.tags.get(tag) == source


def _contains(image: PlainImage, text: str, field: TextField) -> bool:
    found = {"name": text.casefold() in image.name.casefold(), "caption": text.casefold() in image.caption.casefold()}
    return any(found.values()) if field == "any" else found[field]


def _is_since(image: PlainImage, moment: AddedSince) -> bool:
    at = START + timedelta(seconds=image.added)
    return at >= moment.time if moment.time is not None else image.added > (moment.sequence or 0)


def _inside(bounds: Bounds, value: float) -> bool:
    return (
        (bounds.at_least is None or value >= bounds.at_least)
        and (bounds.above is None or value > bounds.above)
        and (bounds.at_most is None or value <= bounds.at_most)
        and (bounds.below is None or value < bounds.below)
    )


def selects(filter_: Filter, image: PlainImage, images: Sequence[PlainImage]) -> bool:  # noqa: PLR0911, PLR0912 - an arm for each term
    """The meaning of filters, one image at a time."""
    match filter_:
        case Not(term=term):
            return not selects(term, image, images)
        case And(terms=terms):
            return all(selects(term, image, images) for term in terms)
        case Or(terms=terms):
            return any(selects(term, image, images) for term in terms)
        case HasTag(tag=tag):
            return tag in image.tags
        case Untagged():
            return not image.tags
        case Captioned():
            return image.caption != ""
        case HasRejected(tag=tag):
            return tag in image.rejected
        case HasSource(source=source, tag=from_tag):
            return _from_source(image, source, from_tag)
        case Confidence(tag=tag):
            return _inside(filter_, image.predicted.get(tag, 0.0))
        case Size(of=of):
            sizes = {"width": image.width, "height": image.height, "bytes": image.size}
            return _inside(filter_, sizes.get(of, image.width * image.height))
        case Aspect():
            return _inside(filter_, image.width / image.height)
        case ContainsText(text=text, field=field):
            return _contains(image, text, field)
        case DuplicateOf(image=other, distance=distance):
            return (image.dhash ^ images[_ordinal(other, len(images))].dhash).bit_count() <= distance
        case ReviewState(reviewed=reviewed):
            return image.reviewed == reviewed
        case AddedSince():
            return _is_since(image, filter_)


SOURCES: st.SearchStrategy[TagSource] = st.sampled_from(["person", "import", "model"])
SOME_TAGS = st.sampled_from(TAGS)
NUMBERS = st.sampled_from([0.0, 0.5, 1.0, 1.5, 2.0, 4.0])
TEXTS = st.sampled_from(["", "Red Hat", "a red cat", "IMG_2", "GROSS", "groß"])
IMAGES = st.lists(
    st.builds(
        PlainImage,
        live=st.booleans(),
        tags=st.dictionaries(SOME_TAGS, SOURCES),
        rejected=st.frozensets(SOME_TAGS),
        predicted=st.dictionaries(SOME_TAGS, st.sampled_from([0.1, 0.5, 1.0])),
        width=st.integers(1, 4),
        height=st.integers(1, 4),
        size=st.integers(1, 4),
        dhash=st.sampled_from([0, 1, 3, 2**64 - 1, 0x00FF00FF00FF00FF]),
        name=TEXTS,
        caption=TEXTS,
        reviewed=st.booleans(),
        added=st.integers(1, 20),
    ),
    min_size=1,
    max_size=12,
)


@st.composite
def bounded(draw: st.DrawFn) -> dict[str, float]:
    low, high = sorted((draw(NUMBERS), draw(NUMBERS)))
    either = st.sampled_from([{"at_least": low}, {"above": low}, {"at_most": high}, {"below": high}])
    return draw(either | st.just({"above": low, "at_most": high}) | st.just({"at_least": low, "below": high}))


LEAVES: st.SearchStrategy[Filter] = st.one_of(
    SOME_TAGS.map(HasTag),
    st.just(Untagged()),
    st.just(Captioned()),
    SOME_TAGS.map(HasRejected),
    st.builds(HasSource, source=SOURCES, tag=st.none() | SOME_TAGS),
    st.builds(lambda tag, given: Confidence(tag=tag, **given), SOME_TAGS, bounded()),
    st.builds(
        lambda of, given: Size(of=of, **given), st.sampled_from(["width", "height", "pixels", "bytes"]), bounded()
    ),
    bounded().map(lambda given: Aspect(**given)),
    st.builds(
        ContainsText,
        text=st.sampled_from(["red", "RED h", "img", "gross", "x"]),
        field=st.sampled_from(["name", "caption", "any"]),
    ),
    st.builds(DuplicateOf, image=st.just(ImageId("img_0")), distance=st.integers(0, 16)),
    st.builds(ReviewState, reviewed=st.booleans()),
    st.integers(0, 20).map(lambda sequence: AddedSince(sequence=sequence)),
    st.integers(0, 20).map(lambda seconds: AddedSince(time=START + timedelta(seconds=seconds))),
)
FILTERS = st.recursive(LEAVES, groups_of, max_leaves=10)


@pytest.mark.slow
@given(FILTERS, IMAGES)
def test_a_filter_selects_the_images_that_the_plain_model_selects(filter_: Filter, images: list[PlainImage]) -> None:
    expected = [at for at, image in enumerate(images) if image.live and selects(filter_, image, images)]
    assert list(evaluate(filter_, PlainIndex(images))) == expected


def plain(number: int) -> PlainImage:
    tags: dict[str, TagSource] = {"hat": "person"} if number == 7 else {}
    return PlainImage(True, tags, frozenset(), {}, 1, 1, 1, 0, f"{number}", "red", False, number)


@pytest.mark.parametrize("text", ["text:7 hat", "width>=1 text:7 hat", "-text:8 (hat conf:cap<1)"])
def test_expensive_terms_look_only_at_what_cheap_ones_leave(text: str) -> None:
    index = PlainIndex([plain(number) for number in range(100)])
    assert list(evaluate(parse_filter(text), index)) == [7]
    assert index.examined <= 3


def test_duplicates_of_an_unknown_image_are_an_error() -> None:
    with pytest.raises(NotFound):
        evaluate(parse_filter("duplicate:img_5"), PlainIndex([plain(1)]))


@given(
    numbers=st.dictionaries(st.integers(0, 60), st.sampled_from([0.0, 0.5, 1.0, 2.0**53]), max_size=30),
    limit=st.integers(1, 7),
    descending=st.booleans(),
)
def test_pages_add_up_to_the_whole_list_in_order(numbers: dict[int, float], limit: int, *, descending: bool) -> None:
    images = BitMap(numbers)
    values = np.array([numbers[at] for at in images], dtype=np.float64)
    expected = sorted(((number, at) for at, number in numbers.items()), reverse=descending)
    found: list[Position] = []
    while some := page(images, values, found[-1] if found else None, limit=limit, descending=descending):
        assert len(some) <= limit
        found += some
    assert found == expected


@given(
    before=st.dictionaries(st.integers(0, 20), st.sampled_from([0.0, 1.0, 2.0]), min_size=1),
    after=st.dictionaries(st.integers(0, 20), st.sampled_from([0.0, 1.0, 2.0])),
    descending=st.booleans(),
)
def test_the_rest_of_a_list_is_what_follows_the_position_although_images_change(
    before: dict[int, float], after: dict[int, float], *, descending: bool
) -> None:
    (last,) = page(
        BitMap(before), np.array([before[at] for at in sorted(before)]), None, limit=1, descending=descending
    )
    now = sorted(((number, at) for at, number in after.items()), reverse=descending)
    expected = [one for one in now if (one < last if descending else one > last)]
    images = BitMap(after)
    values = np.array([after[at] for at in images], dtype=np.float64)
    assert page(images, values, last, limit=100, descending=descending) == expected


def test_names_are_sorted_naturally() -> None:
    names = ["img10", "img2", "img", "a", "img2b", "10", "9", "1000000000000", "img02"]
    order = sorted(range(len(names)), key=lambda at: (natural_key(names[at]), at))
    assert [names[at] for at in order] == ["9", "10", "1000000000000", "a", "img", "img2", "img02", "img2b", "img10"]


def test_names_page_like_their_keys() -> None:
    keys = NameKeys(["b", "a", "", "c", "b"])
    images = BitMap([0, 1, 3, 4])
    listed = page(images, keys.numbers(images), None, limit=10)
    assert [at.ordinal for at in listed] == [1, 0, 4, 3]
    assert keys.number(keys.key(0)) == listed[1].number
    assert [keys.rank(at.ordinal) for at in listed] == [0, 1, 2, 3]
    assert (keys.rank(2), keys.rank(99)) == (NO_RANK, NO_RANK)
    rest = page(images, keys.numbers(images), Position(keys.number("aa"), 9), limit=10)
    assert [at.ordinal for at in rest] == [0, 4, 3]


@given(
    names=st.lists(st.sampled_from(["", "a", "b", "c", "d"]), min_size=1, max_size=8),
    gone=st.integers(0, 7),
    descending=st.booleans(),
)
def test_a_list_by_name_continues_where_an_erased_image_was(names: list[str], gone: int, *, descending: bool) -> None:
    gone %= len(names)
    images = BitMap(range(len(names)))
    before = NameKeys(names)
    order = [at.ordinal for at in page(images, before.numbers(images), None, limit=10, descending=descending)]
    if not names[gone]:
        assert before.continue_from(gone, before.rank(gone), descending=descending) == gone
        return
    after = NameKeys([*names[:gone], "", *names[gone + 1 :]])
    found = after.continue_from(gone, before.rank(gone), descending=descending)
    named = [at for at in order[: order.index(gone)] if names[at]]
    assert found == (named[-1] if named else None)
    assert before.continue_from(gone, before.rank(gone), descending=descending) == gone


def test_a_set_becomes_an_array() -> None:
    ordinals = sorted(random.Random(1).sample(range(10**6), 1000))
    assert to_array(BitMap(ordinals)).tolist() == ordinals
    assert to_array(BitMap()).tolist() == []
