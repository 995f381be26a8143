"""Events of tagging runs. The catalog appends what was requested, the tagger what it predicted."""

import msgspec

from contracts.events.base import Category, Event, Ordinals
from contracts.events.work import AttemptFailed, AttemptStarted, Cancelled, CancelRequested, Failed, Interrupted, Queued
from contracts.ids import DatasetId, Digest
from contracts.subjects import Priority


class TaggingRequested(Event, frozen=True, tag="tagging.requested"):
    """One pass of one model over selected images of a data set. `model` is a name that the tagger resolves."""

    dataset_id: DatasetId
    dataset: str
    model: str
    images: Ordinals
    count: int
    priority: Priority = "normal"


class TaggingModelLoaded(Event, frozen=True, tag="tagging.model_loaded"):
    """Which model files made the predictions of this attempt, and which provider they ran on."""

    attempt: int
    model: Digest
    tags: Digest
    preprocessing: str
    provider: str


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


class TaggingPredicted(Event, frozen=True, tag="tagging.predicted"):
    attempt: int
    images: tuple[ImagePredictions, ...]


class TaggingSucceeded(Event, frozen=True, tag="tagging.succeeded"):
    attempt: int
    images: int
    unreadable: int = 0


class TaggingQueued(Queued, frozen=True, tag="tagging.queued"):
    pass


class TaggingAttemptStarted(AttemptStarted, frozen=True, tag="tagging.attempt_started"):
    pass


class TaggingInterrupted(Interrupted, frozen=True, tag="tagging.interrupted"):
    pass


class TaggingAttemptFailed(AttemptFailed, frozen=True, tag="tagging.attempt_failed"):
    pass


class TaggingCancelRequested(CancelRequested, frozen=True, tag="tagging.cancel_requested"):
    pass


class TaggingCancelled(Cancelled, frozen=True, tag="tagging.cancelled"):
    pass


class TaggingFailed(Failed, frozen=True, tag="tagging.failed"):
    pass


TaggingEvent = (
    TaggingRequested
    | TaggingModelLoaded
    | TaggingPredicted
    | TaggingSucceeded
    | TaggingQueued
    | TaggingAttemptStarted
    | TaggingInterrupted
    | TaggingAttemptFailed
    | TaggingCancelRequested
    | TaggingCancelled
    | TaggingFailed
)
