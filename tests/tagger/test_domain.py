"""Which images remain, and how predictions are split into commits."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import LogDamaged, Rejected
from contracts.events.image_sets import ImageSet
from contracts.events.tagging import (
    ImagePredictions,
    Prediction,
    TaggingModelLoaded,
    TaggingPredicted,
    TaggingRequested,
)
from contracts.ids import DatasetId, Digest
from contracts.queries.tagging import TaggingImage
from tagger import domain

REQUESTED = TaggingRequested(
    dataset_id=DatasetId("ds_1"), dataset="cats", model="demo", images=ImageSet(count=5), count=5
)
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
        (REQUESTED, 2),
        (TaggingPredicted(attempt=3, images=(image_predictions(1), unreadable)), 4),
        (TaggingPredicted(attempt=5, images=(image_predictions(2),)), 6),
    ]
    run = domain.fold(events)
    assert (run.request, run.requested_at) == (REQUESTED, 2)
    assert run.completed == {1: False, 2: False, 3: True}
    page = [TaggingImage(ordinal=ordinal, picture=Digest("0" * 64)) for ordinal in range(5)]
    assert [image.ordinal for image in run.remaining(page)] == [0, 4]


def test_a_history_without_a_request_is_refused() -> None:
    with pytest.raises(LogDamaged, match="does not begin with its request"):
        domain.fold([])


def test_all_attempts_of_a_run_must_use_the_same_model() -> None:
    loaded = TaggingModelLoaded(
        attempt=3, model=Digest("1" * 64), tags=Digest("2" * 64), preprocessing="v1", provider="cpu"
    )
    domain.fold([(REQUESTED, 2)]).check_same_model(loaded)
    second_attempt = domain.fold([(REQUESTED, 2), (loaded, 4)])
    second_attempt.check_same_model(msgspec.structs.replace(loaded, attempt=5, provider="cuda"))
    with pytest.raises(Rejected, match="new run"):
        second_attempt.check_same_model(msgspec.structs.replace(loaded, attempt=5, model=Digest("3" * 64)))
