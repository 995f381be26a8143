"""What is left to look at, and how answers are packed."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import Rejected
from contracts.events import ImagePredictions, Prediction, TaggingModelLoaded, TaggingPredicted
from contracts.ids import Digest
from contracts.queries import TaggingImage
from tagger import domain

SIZES = st.lists(st.integers(0, 3000), max_size=20)


def answer(ordinal: int, predictions: int = 0) -> ImagePredictions:
    one = Prediction(tag="a_tag_of_some_length", probability=0.1234)
    return ImagePredictions(ordinal=ordinal, predictions=(one,) * predictions)


@given(SIZES)
def test_packing_keeps_all_answers_in_order_in_groups_that_fit(sizes: list[int]) -> None:
    answers = [answer(ordinal, size) for ordinal, size in enumerate(sizes)]
    groups = list(domain.packed(answers))
    assert [one for group in groups for one in group] == answers
    assert all(groups)
    for group in groups:
        assert len(group) == 1 or sum(len(msgspec.json.encode(one)) for one in group) <= domain.FACT_BYTES


def test_what_is_kept_is_not_looked_at_again() -> None:
    unread = ImagePredictions(ordinal=3, predictions=(), unreadable="damaged")
    facts = [
        (TaggingPredicted(attempt=3, images=(answer(1), unread)), 4),
        (TaggingPredicted(attempt=5, images=(answer(2),)), 6),
    ]
    kept = domain.done(facts)
    assert kept == {1: False, 2: False, 3: True}
    page = [TaggingImage(ordinal=ordinal, picture=Digest("0" * 64)) for ordinal in range(5)]
    assert [image.ordinal for image in domain.left(page, kept)] == [0, 4]


def test_one_run_is_one_model() -> None:
    loaded = TaggingModelLoaded(
        attempt=3, model=Digest("1" * 64), tags=Digest("2" * 64), preprocessing="v1", provider="cpu"
    )
    domain.same_model([], loaded)
    domain.same_model([(loaded, 4)], msgspec.structs.replace(loaded, attempt=5, provider="cuda"))
    with pytest.raises(Rejected, match="new run"):
        domain.same_model([(loaded, 4)], msgspec.structs.replace(loaded, attempt=5, model=Digest("3" * 64)))
