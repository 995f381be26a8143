"""Hypothesis strategies of filters and sort orders."""

from datetime import UTC, datetime

from hypothesis import strategies as st

from contracts.errors import Rejected
from contracts.filters import (
    AddedSince,
    And,
    Aspect,
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
    Untagged,
    count_terms,
    depth_of,
)
from contracts.sorting import SortBy, SortByConfidence
from contracts.tags import canonicalize


def _canonical(text: str) -> str:
    try:
        return canonicalize(text)
    except Rejected:
        return ""


TAGS = st.one_of(
    st.sampled_from(
        ["hat", "cap", "cat_(animal)", "re:zero", ":d", ">_<", "<3", "|_|", "untagged", "-", "a\\b", '"', "é"]
    ),
    st.text(min_size=1, max_size=12).map(_canonical).filter(bool),
)
EARLIEST, LATEST = datetime(1970, 1, 1), datetime(2100, 1, 1)  # noqa: DTZ001 - Hypothesis adds the time zone
NUMBERS = st.one_of(st.integers(0, 2**53).map(float), st.floats(0, 1e300, allow_subnormal=True))


@st.composite
def bounds(draw: st.DrawFn) -> dict[str, float]:
    low, high = sorted((draw(NUMBERS), draw(NUMBERS)))
    lower, upper = draw(st.sampled_from(["at_least", "above"])), draw(st.sampled_from(["at_most", "below"]))
    given = draw(st.sampled_from([(lower,), (upper,), (lower, upper)]))
    return {name: value for name, value in ((lower, low), (upper, high)) if name in given}


LEAVES = st.one_of(
    TAGS.map(HasTag),
    st.just(Untagged()),
    st.just(Captioned()),
    TAGS.map(HasRejected),
    st.builds(HasSource, source=st.sampled_from(["person", "import", "model"]), tag=st.none() | TAGS),
    st.builds(lambda tag, given: Confidence(tag=tag, **given), TAGS, bounds()),
    st.builds(
        lambda of, given: Size(of=of, **given), st.sampled_from(["width", "height", "pixels", "bytes"]), bounds()
    ),
    bounds().map(lambda given: Aspect(**given)),
    st.builds(ContainsText, text=st.text(min_size=1, max_size=20), field=st.sampled_from(["name", "caption", "any"])),
    st.builds(DuplicateOf, image=st.from_regex(r"\Aimg_[0-9A-Za-z_-]{1,10}\Z"), distance=st.integers(0, 16)),
    st.builds(ReviewState, reviewed=st.booleans()),
    st.integers(0, 2**49).map(lambda sequence: AddedSince(sequence=sequence)),
    st.datetimes(EARLIEST, LATEST, timezones=st.just(UTC)).map(lambda time: AddedSince(time=time)),
)


def groups_of(inner: st.SearchStrategy[Filter]) -> st.SearchStrategy[Filter]:
    """Filters one level deeper, none of them too deep or too large."""
    several = st.lists(inner, min_size=2, max_size=4).filter(
        lambda terms: max(map(depth_of, terms)) < 8 and sum(map(count_terms, terms)) <= 64
    )
    return st.one_of(
        inner.filter(lambda term: depth_of(term) < 8).map(Not),
        several.map(lambda terms: And(tuple(terms))),
        several.map(lambda terms: Or(tuple(terms))),
    )


FILTERS: st.SearchStrategy[Filter] = st.recursive(LEAVES, groups_of, max_leaves=12)
SORTS = st.one_of(
    st.builds(SortBy, key=st.sampled_from(["added", "name", "size", "changed", "tags"]), descending=st.booleans()),
    st.builds(SortByConfidence, tag=TAGS, descending=st.booleans()),
)
