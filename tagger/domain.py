"""What the tagger knows of a run, folded from its history, and how predictions are split into commits. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from contracts.errors import LogDamaged, Rejected
from contracts.events.base import Event
from contracts.events.tagging import ImagePredictions, TaggingModelLoaded, TaggingPredicted, TaggingRequested
from contracts.queries.tagging import TaggingImage

MAX_PREDICTION_BYTES = 64 * 1024
"""Maximum encoded size of the predictions in one commit: a third of a commit's own limit."""


@dataclass(frozen=True)
class RunState:
    """A tagging run: what was requested, and what earlier attempts recorded of it."""

    request: TaggingRequested
    requested_at: int
    """Sequence of the request."""
    model: TaggingModelLoaded | None
    """The model of the latest attempt that loaded one."""
    completed: Mapping[int, bool]
    """Ordinals of the images with recorded predictions → whether the picture was unreadable."""

    def remaining(self, page: Sequence[TaggingImage]) -> list[TaggingImage]:
        return [image for image in page if image.ordinal not in self.completed]

    def check_same_model(self, loaded: TaggingModelLoaded) -> None:
        """All attempts of a run must use the same model. Rejected: its files changed since an earlier attempt."""
        earlier = self.model
        identity = (loaded.model, loaded.tags, loaded.preprocessing)
        if earlier is not None and (earlier.model, earlier.tags, earlier.preprocessing) != identity:
            raise Rejected("the model's files have changed since this run began; start a new run")


def fold(history: Sequence[tuple[Event, int]]) -> RunState:
    """The run after a history of (event, sequence of its commit)."""
    match history:
        case [(TaggingRequested() as request, sequence), *later]:
            pass
        case _:
            raise LogDamaged("the history of the tagging run does not begin with its request")
    model: TaggingModelLoaded | None = None
    completed: dict[int, bool] = {}
    for event, _ in later:
        match event:
            case TaggingModelLoaded():
                model = event
            case TaggingPredicted(images=images):
                completed |= {image.ordinal: image.unreadable is not None for image in images}
            case _:
                pass
    return RunState(request, sequence, model, completed)


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
