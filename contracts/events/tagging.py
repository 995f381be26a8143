"""Events of tagging runs. The catalog appends what was requested, the tagger what it predicted."""

import msgspec

from contracts.definitions import union_in
from contracts.events.base import Category, Event
from contracts.events.image_sets import ImageSetEvent
from contracts.events.work import AttemptEvent, define_work
from contracts.ids import DatasetId, Digest
from contracts.subjects import Priority
from contracts.wording import count, listed


class TaggingRequested(ImageSetEvent, frozen=True, kw_only=True, tag="tagging.requested"):
    """One pass of one model over selected images of a data set. `model` is a name that the tagger resolves."""

    dataset_id: DatasetId
    dataset: str
    model: str
    count: int
    priority: Priority = "normal"

    def describe(self) -> str:
        return f"Requested tagging of {count(self.count, 'image')} with model {self.model!r}"


class TaggingModelLoaded(AttemptEvent, frozen=True, tag="tagging.model_loaded"):
    """Which model files made the predictions of this attempt, and which provider they ran on."""

    model: Digest
    tags: Digest
    preprocessing: str
    provider: str

    def describe(self) -> str:
        return f"Loaded the tagging model on {self.provider}"


class Prediction(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One tag predicted by a model, with its probability (0 to 1, four digits)."""

    tag: str
    probability: float
    category: Category = "general"


class ImagePredictions(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """All predictions above the floor for one image; the list may be empty."""

    ordinal: int
    predictions: tuple[Prediction, ...]
    unreadable: str | None = None


class TaggingPredicted(AttemptEvent, frozen=True, tag="tagging.predicted"):
    images: tuple[ImagePredictions, ...]

    def describe(self) -> str:
        if len(self.images) != 1:
            return f"Predicted tags for {count(len(self.images), 'image')}"
        (image,) = self.images
        if image.unreadable is not None:
            return f"Could not read image {image.ordinal}: {image.unreadable}"
        by_probability = sorted(image.predictions, key=lambda prediction: -prediction.probability)
        tags = listed([f"{prediction.tag} {prediction.probability:g}" for prediction in by_probability])
        return f"Predicted {'tags' if tags else 'no tags'} for image {image.ordinal}" + (f": {tags}" if tags else "")


class TaggingSucceeded(AttemptEvent, frozen=True, tag="tagging.succeeded"):
    images: int
    unreadable: int = 0

    def describe(self) -> str:
        unreadable = f", {self.unreadable} unreadable" if self.unreadable else ""
        return f"Tagging completed: {count(self.images, 'image')}{unreadable}"


TAGGING_WORK = define_work("tagging", "tag", "tagger", __name__)
TaggingQueued = TAGGING_WORK.queued
TaggingAttemptStarted = TAGGING_WORK.attempt_started
TaggingInterrupted = TAGGING_WORK.interrupted
TaggingAttemptFailed = TAGGING_WORK.attempt_failed
TaggingCancelRequested = TAGGING_WORK.cancel_requested
TaggingCancelled = TAGGING_WORK.cancelled
TaggingFailed = TAGGING_WORK.failed

TaggingEvent = union_in(__name__, Event)
