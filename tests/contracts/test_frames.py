"""Frames: each event and live message has one, derived from its type, and it says what a browser can read."""

from datetime import UTC, datetime
from typing import get_args

import msgspec
import pytest
from msgspec import inspect

from contracts.aggregates import AnyEvent
from contracts.commits import decode_event
from contracts.events.base import SCHEMA, Event
from contracts.events.datasets import TagsEdited
from contracts.events.image_sets import ImageSet
from contracts.frames import EVENT_FRAMES, IMAGE_EVENTS, AnyFrame, EventImages, Frame, event_frame, message_frame
from contracts.ids import CommandId, ImageId, JobId, RunId, WorkerId
from contracts.telemetry import LiveMessage, Presence, TaggingProgress, TrainingProgress
from tests.contracts.samples import sample_of

AT = datetime(2026, 11, 26, tzinfo=UTC)
PROGRESS = TrainingProgress(job_id=JobId("j1"), attempt=3, phase="training", at=AT, step=5, steps=20, loss=0.5)
TAGGING = TaggingProgress(run_id=RunId("r1"), attempt=3, phase="tagging", at=AT, done=1, total=3)
PRESENCE = Presence(service="trainer", worker=WorkerId("w1"), state="busy", at=AT)


def frame_of(event: Event) -> Frame:
    images = EventImages(count=1, ids=(ImageId("img_1"),)) if isinstance(event, IMAGE_EVENTS) else None
    subject = f"evt.{event.type_name.partition('.')[0]}.x1"
    command_id = CommandId("c1")
    return event_frame(
        event, seq="L.7", subject=subject, time=AT, actor="user:ann", command_id=command_id, images=images
    )


@pytest.mark.parametrize("event_type", get_args(AnyEvent))
def test_the_frame_of_an_event_has_its_fields_and_who_caused_it(event_type: type[Event]) -> None:
    event = sample_of(event_type)
    frame = frame_of(event)
    assert msgspec.json.decode(msgspec.json.encode(frame), type=AnyFrame) == frame
    envelope = msgspec.to_builtins(frame)
    assert list(envelope) == ["type", "seq", "time", "subject", "description", "data"]
    assert (envelope["type"], envelope["description"]) == (event.type_name, event.describe())
    expected = msgspec.to_builtins(event) | {"actor": "user:ann", "command_id": "c1"}
    if isinstance(event, IMAGE_EVENTS):
        expected["images"] = {"count": 1, "ids": ("img_1",)}
    assert envelope["data"] == expected


def test_no_frame_has_a_bitmap_or_a_bare_ordinal() -> None:
    """An event with ordinals must be listed in IMAGE_EVENTS: a browser knows images by their ids."""
    for event, (_, data) in EVENT_FRAMES.items():
        fields = {field.name: field.type for field in inspect.type_info(data).fields}  # type: ignore[attr-defined]
        images = fields.get("images")
        if images != inspect.VarTupleType(inspect.StrType()):  # ids of images, as a browser knows them
            assert not isinstance(images, inspect.BytesType | inspect.VarTupleType), event
        assert "ordinal" not in fields or "images" in fields, event


@pytest.mark.parametrize("event_type", get_args(AnyEvent))
def test_an_event_as_stored_is_decoded_by_itself(event_type: type[Event]) -> None:
    event = sample_of(event_type)
    assert decode_event(msgspec.json.encode(event), SCHEMA) == event


@pytest.mark.parametrize("message", [PROGRESS, TAGGING, PRESENCE])
def test_the_frame_of_a_live_message_is_documented_and_has_no_cursor(message: LiveMessage) -> None:
    frame = message_frame(message)
    assert msgspec.json.decode(msgspec.json.encode(frame), type=AnyFrame) == frame
    assert (frame.seq, frame.time, frame.subject) == (None, AT, message.subject)


def test_progress_of_both_kinds_of_work_has_the_members_of_the_seed() -> None:
    training, tagging = (msgspec.to_builtins(message_frame(message))["data"] for message in (PROGRESS, TAGGING))
    assert training.keys() == tagging.keys()
    assert (training["job_id"], training["kind"], training["progress_percentage"]) == ("j1", "job", 25.0)
    assert (tagging["job_id"], tagging["kind"], tagging["progress_percentage"]) == ("r1", "tagging", 33.33)
    assert (tagging["current_step"], tagging["total_steps"], tagging["loss"]) == (1, 3, None)


def test_subjects_follow_from_the_fields_of_a_message() -> None:
    assert [message.subject for message in (PROGRESS, TAGGING, PRESENCE)] == [
        "prog.train.j1",
        "prog.tag.r1",
        "wrk.trainer.w1",
    ]
    assert [type(message).pattern() for message in (PROGRESS, TAGGING, PRESENCE)] == [
        "prog.train.*",
        "prog.tag.*",
        "wrk.*.*",
    ]
    assert Presence.pattern(service="tagger") == "wrk.tagger.*"


def test_a_new_live_message_has_a_subject_a_name_and_a_work_of_its_own() -> None:
    class DiskSpace(LiveMessage, frozen=True):
        address = "disk.{service}"
        publishers = ("catalog",)
        service: str

    message = DiskSpace(service="catalog", at=AT)
    assert (message.subject, DiskSpace.kind_name(), message.work_id) == ("disk.catalog", "disk_space", "")
    assert message.expired() is None


def test_an_edit_of_tags_keeps_its_other_fields() -> None:
    frame = msgspec.to_builtins(frame_of(TagsEdited(images=ImageSet(count=0), asserted=("cat",))))
    assert frame["data"]["asserted"] == ("cat",)
    assert "rejected" not in frame["data"]
