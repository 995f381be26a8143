"""Which images remain, and how predictions are split into commits."""

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


def image_predictions(ordinal: int, count: int = 0) -> ImagePredictions:
    one = Prediction(tag="a_tag_of_some_length", probability=0.1234)
    return ImagePredictions(ordinal=ordinal, predictions=(one,) * count)


@given(SIZES)
def test_splitting_keeps_all_predictions_in_order_and_within_the_limit(sizes: list[int]) -> None:
    predictions = [image_predictions(ordinal, size) for ordinal, size in enumerate(sizes)]
    groups = list(domain.split_into_commits(predictions))
    assert [one for group in groups for one in group] == predictions
    assert all(groups)
    for group in groups:
        assert len(group) == 1 or sum(len(msgspec.json.encode(one)) for one in group) <= domain.MAX_PREDICTION_BYTES


def test_images_with_recorded_predictions_are_not_tagged_again() -> None:
    unreadable = ImagePredictions(ordinal=3, predictions=(), unreadable="damaged")
    events = [
        (TaggingPredicted(attempt=3, images=(image_predictions(1), unreadable)), 4),
        (TaggingPredicted(attempt=5, images=(image_predictions(2),)), 6),
    ]
    completed = domain.completed_images(events)
    assert completed == {1: False, 2: False, 3: True}
    page = [TaggingImage(ordinal=ordinal, picture=Digest("0" * 64)) for ordinal in range(5)]
    assert [image.ordinal for image in domain.remaining_images(page, completed)] == [0, 4]


def test_all_attempts_of_a_run_must_use_the_same_model() -> None:
    loaded = TaggingModelLoaded(
        attempt=3, model=Digest("1" * 64), tags=Digest("2" * 64), preprocessing="v1", provider="cpu"
    )
    domain.check_same_model([], loaded)
    domain.check_same_model([(loaded, 4)], msgspec.structs.replace(loaded, attempt=5, provider="cuda"))
    with pytest.raises(Rejected, match="new run"):
        domain.check_same_model([(loaded, 4)], msgspec.structs.replace(loaded, attempt=5, model=Digest("3" * 64)))
