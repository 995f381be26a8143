"""Descriptions of events: every type has a sentence of its own, in the past tense and without private text."""

from typing import get_args

import msgspec
import pytest

from catalog.domain.image_sets import image_set
from contracts.aggregates import AnyEvent
from contracts.events.base import Event
from contracts.events.datasets import CaptionSet, ImageRefused, ImagesRemoved, TagsEdited
from contracts.events.image_sets import ImageSet
from contracts.events.jobs import (
    Artifact,
    JobAttemptStarted,
    JobCancelled,
    JobCancelRequested,
    JobCheckpointed,
    JobEdited,
    JobFailed,
    JobInterrupted,
    JobQueued,
    JobSampled,
    JobSucceeded,
)
from contracts.events.log import LogRestored
from contracts.events.tagging import (
    ImagePredictions,
    Prediction,
    TaggingAttemptFailed,
    TaggingAttemptStarted,
    TaggingCancelled,
    TaggingPredicted,
)
from contracts.ids import Digest, ImageId, WorkerId
from tests.catalog.log_builder import full_history
from tests.contracts.samples import sample_of

DIGEST = Digest("0" * 64)


def describe(event: Event) -> str:
    return event.describe()


def bitmap(*ordinals: int) -> ImageSet:
    return image_set(ordinals)


def edit(*ordinals: int, **fields: object) -> str:
    return msgspec.structs.replace(TagsEdited(images=bitmap(*ordinals)), **fields).describe()


def predicted(*images: ImagePredictions) -> str:
    return TaggingPredicted(attempt=1, images=images).describe()


@pytest.mark.parametrize("event_type", get_args(AnyEvent))
def test_every_event_type_has_a_sentence_of_its_own(event_type: type[AnyEvent]) -> None:
    event = sample_of(event_type)
    sentence = describe(event)
    assert sentence not in ("", Event.describe(event))
    assert sentence[0].isupper()
    assert not sentence.endswith(".")
    assert "\n" not in sentence


def test_every_event_of_a_real_history_has_a_sentence_of_its_own() -> None:
    for recorded in full_history().commits:
        for event in recorded.commit.events:
            assert describe(event) not in ("", Event.describe(event))


@pytest.mark.parametrize("event_type", get_args(AnyEvent))
def test_sealed_text_never_appears(event_type: type[AnyEvent]) -> None:
    """File names and captions are the byte fields of events, as are sets of images; none is shown."""
    sentence = describe(sample_of(event_type))
    for field in msgspec.structs.fields(event_type):
        if field.type in (bytes, bytes | None):
            assert "\\x" not in sentence
            assert "\x00" not in sentence


def test_an_event_type_without_a_sentence_is_described_by_its_name() -> None:
    assert Event.describe(sample_of(JobAttemptStarted)) == "Job: attempt started"


def test_tag_edits_name_the_tags_and_count_the_images() -> None:
    assert edit(*range(12), asserted=("1girl", "solo")) == "Added tags 1girl, solo to 12 images"
    assert edit(1, asserted=("cat", "only_1"), source="import") == "The import added tags cat, only_1 to 1 image"
    assert edit(1, 2, 3, rejected=("sky",)) == "Rejected tag sky on 3 images"
    assert (
        edit(1, asserted=("sitting", "grass"), rejected=("only_1",))
        == "Added tags sitting, grass and rejected tag only_1 on 1 image"
    )
    assert edit(1, 2) == "Left the tags of 2 images unchanged"


def test_long_lists_are_cut_and_the_rest_is_counted() -> None:
    tags = tuple(f"t{number}" for number in range(11))
    assert edit(1, asserted=tags) == "Added tags t0, t1, t2, t3, t4, t5, t6, t7 and 3 more to 1 image"


def test_image_and_caption_events_name_the_image() -> None:
    cleared = CaptionSet(ordinal=4, caption=None)
    assert describe(cleared) == "Cleared the caption of image 4"
    assert describe(msgspec.structs.replace(cleared, caption=b"sealed")) == "Set the caption of image 4"
    assert (
        describe(msgspec.structs.replace(cleared, caption=b"sealed", source="import"))
        == "The import set the caption of image 4"
    )
    assert describe(ImagesRemoved(images=bitmap(3))) == "Removed 1 image"
    refused = ImageRefused(
        image_id=ImageId("i"), name=b"sealed", reason="truncated", detail="the file ends too early", size=3
    )
    assert describe(refused) == "Skipped a file: the file ends too early"
    assert describe(msgspec.structs.replace(refused, detail="")) == "Skipped a file: truncated"


def test_attempts_say_whether_they_train_or_tag_and_where_they_resume() -> None:
    worker = WorkerId("gpu1")
    assert describe(JobAttemptStarted(worker=worker, boot="b", resumes=0)) == "Training started on worker gpu1"
    assert (
        describe(JobAttemptStarted(worker=worker, boot="b", resumes=300))
        == "Training started on worker gpu1 (resuming after step 300)"
    )
    assert (
        describe(TaggingAttemptStarted(worker=worker, boot="b", resumes=1))
        == "Tagging started on worker gpu1 (resuming after 1 image)"
    )
    assert (
        describe(JobInterrupted(attempt=1, step=30, reason="the trainer shut down"))
        == "Training interrupted after step 30: the trainer shut down"
    )
    assert (
        describe(TaggingAttemptFailed(attempt=1, step=0, reason="out of memory"))
        == "Tagging attempt failed after 0 images: out of memory"
    )
    assert describe(JobQueued(priority="high")) == "Queued with high priority"
    assert describe(JobCancelRequested()) == "Cancellation requested"
    assert describe(JobCancelRequested(reason="wrong data")) == "Cancellation requested: wrong data"
    assert describe(JobCancelled()) == "Training cancelled"
    assert describe(TaggingCancelled(attempt=1, step=7)) == "Tagging cancelled after 7 images"
    assert (
        describe(JobFailed(attempt=1, code="no-base", reason="no such base"))
        == "Training failed (no-base): no such base"
    )


def test_job_events_say_what_changed() -> None:
    edited = JobEdited(name="x", description="y", labels=())
    assert describe(edited) == "Changed the name, description and labels of the job"
    assert describe(JobEdited(labels=("a",))) == "Changed the labels of the job"
    assert (
        describe(JobCheckpointed(attempt=1, step=300, checkpoint=DIGEST, size=12_345_678))
        == "Saved a checkpoint at step 300 (12.3 MB)"
    )
    assert describe(JobSampled(attempt=1, step=300, index=0, picture=DIGEST, seed=1)) == (
        "Rendered sample 1 at step 300"
    )
    artifact = Artifact(name="cat.safetensors", format="kohya", digest=DIGEST, size=9, tensors=DIGEST)
    assert describe(JobSucceeded(attempt=1, step=20, artifacts=(artifact,))) == (
        "Training completed after 20 steps: cat.safetensors"
    )
    assert describe(JobSucceeded(attempt=1, step=1, artifacts=())) == "Training completed after 1 step"


def test_predictions_of_one_image_are_listed_and_of_many_are_counted() -> None:
    one = ImagePredictions(
        ordinal=1, predictions=(Prediction(tag="sky", probability=0.4), Prediction(tag="cat", probability=0.99))
    )
    empty = ImagePredictions(ordinal=2, predictions=())
    assert predicted(one) == "Predicted tags for image 1: cat 0.99, sky 0.4"
    assert predicted(empty) == "Predicted no tags for image 2"
    assert predicted(one, empty) == "Predicted tags for 2 images"
    assert (
        predicted(msgspec.structs.replace(empty, unreadable="the file is truncated"))
        == "Could not read image 2: the file is truncated"
    )


def test_a_restored_log_counts_the_lost_commits() -> None:
    assert describe(LogRestored(log_id="b", before="a")) == "Restored the event log"
    assert (
        describe(LogRestored(log_id="b", before="a", voided=2))
        == "Restored the event log; 2 commits could not be recovered"
    )


def test_images_are_counted_without_reading_the_set() -> None:
    images = ImageSet(count=100_000, blob=DIGEST)
    assert describe(ImagesRemoved(images=images)) == "Removed 100000 images"
