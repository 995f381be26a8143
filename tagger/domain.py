"""The tagger's rules: which images remain, and how predictions are split into commits. Pure."""

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from contracts.errors import Rejected
from contracts.events import AnyEvent, ImagePredictions, TaggingModelLoaded, TaggingPredicted, TaggingRequested
from contracts.queries import TaggingImage

MAX_PREDICTION_BYTES = 64 * 1024
"""Maximum encoded size of the predictions in one commit: a third of a commit's own limit."""


def find_request(events: Iterable[tuple[AnyEvent, int]]) -> tuple[TaggingRequested, int]:
    """The event that requested the run, and its sequence in the log."""
    return next((event, sequence) for event, sequence in events if isinstance(event, TaggingRequested))


def completed_images(events: Iterable[tuple[AnyEvent, int]]) -> dict[int, bool]:
    """Ordinals of the images with recorded predictions → whether the picture was unreadable."""
    return {
        image.ordinal: image.unreadable is not None
        for event, _ in events
        if isinstance(event, TaggingPredicted)
        for image in event.images
    }


def remaining_images(page: Sequence[TaggingImage], completed: dict[int, bool]) -> list[TaggingImage]:
    return [image for image in page if image.ordinal not in completed]


def check_same_model(events: Iterable[tuple[AnyEvent, int]], loaded: TaggingModelLoaded) -> None:
    """All attempts of a run must use the same model. Rejected: its files changed since an earlier attempt."""
    earlier = [event for event, _ in events if isinstance(event, TaggingModelLoaded)]
    identity = (loaded.model, loaded.tags, loaded.preprocessing)
    if earlier and (earlier[-1].model, earlier[-1].tags, earlier[-1].preprocessing) != identity:
        raise Rejected("the model's files have changed since this run began; start a new run")


def split_into_commits(predictions: Iterable[ImagePredictions]) -> Iterator[tuple[ImagePredictions, ...]]:
    """Group the predictions, in order, into commits within the size limit; an oversized one gets its own commit."""
    group: list[ImagePredictions] = []
    size = 0
    for prediction in predictions:
        encoded_size = len(msgspec.json.encode(prediction))
        if group and size + encoded_size > MAX_PREDICTION_BYTES:
            yield tuple(group)
            group, size = [], 0
        group.append(prediction)
        size += encoded_size
    if group:
        yield tuple(group)
