"""Facts of tagging runs. The catalog says what is asked, the tagger what it saw."""

import msgspec

from contracts.events.facts import Category, Fact, Ordinals
from contracts.events.work import AttemptFailed, AttemptStarted, Cancelled, CancelRequested, Failed, Interrupted, Queued
from contracts.ids import DatasetId, Digest
from contracts.subjects import Priority


class TaggingRequested(Fact, frozen=True, tag="tagging.requested"):
    """One pass of one model over chosen images of a data set. `model` is a name the tagger resolves."""

    dataset_id: DatasetId
    dataset: str
    model: str
    images: Ordinals
    count: int
    priority: Priority = "normal"


class TaggingModelLoaded(Fact, frozen=True, tag="tagging.model_loaded"):
    """Which files, exactly, made the predictions of this attempt, and on what they ran."""

    attempt: int
    model: Digest
    tags: Digest
    preprocessing: str
    provider: str


class Prediction(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One tag a model saw, with its probability (0 to 1, four digits)."""

    tag: str
    probability: float
    category: Category = "general"


class ImagePredictions(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """All predictions above the floor for one image. An empty list is an answer too."""

    ordinal: int
    predictions: tuple[Prediction, ...]
    unreadable: str | None = None


class TaggingPredicted(Fact, frozen=True, tag="tagging.predicted"):
    attempt: int
    images: tuple[ImagePredictions, ...]


class TaggingSucceeded(Fact, frozen=True, tag="tagging.succeeded"):
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


TaggingFact = (
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
