"""The parts of the live feed by themselves: the ring, last values, absences, slow subscribers, image ids."""

from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyroaring import BitMap

from contracts.commands.base import CommandMetadata
from contracts.commits import RecordedCommit, StreamRevision, build_commit
from contracts.errors import LogDamaged, NotFound, Unavailable
from contracts.events.base import Event
from contracts.events.datasets import CaptionSet, DatasetRenamed, ImageAdded, ImagesRemoved, TagsEdited
from contracts.events.image_sets import ImageSet
from contracts.events.tagging import ImagePredictions, TaggingPredicted, TaggingRequested
from contracts.frames import EventImages
from contracts.ids import DatasetId, Digest, ImageId, JobId, WorkerId, new_command_id
from contracts.queries.datasets import MAX_ORDINALS, ImageIdsView, ListImageIds
from contracts.queries.tagging import GetTagging
from contracts.telemetry import Applied, PendingAggregate, Presence, TrainingProgress
from gateway.cursor import NOTHING, LogPosition, Received, decode_cursor, encode_cursor
from gateway.limits import LiveLimits
from gateway.live.encoding import EncodedEvent, encode_event, positions_in
from gateway.live.image_ids import ImageIds
from gateway.live.last_values import Absences, LastValues
from gateway.live.release import ReleaseOrder
from gateway.live.ring import EventRing
from gateway.live.subscribers import CLOSE_FLOOD, CLOSE_SLOW, Subscriber, Subscribers
from tests.limits import examples

AT = datetime(2026, 1, 2, tzinfo=UTC)
ZERO = Digest("0" * 64)


def event_at(sequence: int, text: str = "x") -> EncodedEvent:
    at = LogPosition(sequence)
    return EncodedEvent(at, Received(at), ("dataset", "d1"), "dataset.renamed", f"L.{sequence}", text, "")


def ring_of(sequences: range, **limits: int) -> EventRing:
    oldest = Received(LogPosition(sequences.start - 1))
    ring = EventRing(LiveLimits(**limits), oldest=oldest, newest=NOTHING)
    for sequence in sequences:
        ring.append(event_at(sequence))
    return ring


def up_to(sequence: int) -> Received:
    return Received(LogPosition(sequence))


@given(st.integers(1, 40), st.integers(0, 50), st.integers(1, 30))
def test_a_ring_has_all_events_after_a_position_or_says_that_it_has_not(count: int, after: int, room: int) -> None:
    ring = ring_of(range(1, count + 1), ring_events=room)
    found = ring.after(up_to(after))
    if found is None:
        assert after < count - room
    else:
        assert [event.position.sequence for event in found] == list(range(after + 1, count + 1))
    assert ring.newest == up_to(count)


def test_a_ring_is_limited_in_bytes_too() -> None:
    ring = EventRing(LiveLimits(ring_bytes=10), oldest=NOTHING, newest=NOTHING)
    for sequence in (1, 2, 3):
        ring.append(event_at(sequence, "four"))
    assert (ring.oldest, ring.after(up_to(1))) == (up_to(1), [event_at(2, "four"), event_at(3, "four")])
    assert ring.after(NOTHING) is None


def test_a_ring_that_catches_up_is_not_newer_than_the_end_of_the_log() -> None:
    ring = EventRing(LiveLimits(), oldest=up_to(3), newest=up_to(9))
    ring.append(event_at(4))
    assert (ring.newest, ring.after(up_to(9))) == (up_to(9), [])
    assert ring.filled_to == up_to(4)
    assert ring_of(range(1, 9), ring_events=2).filled_to == up_to(8)


class Released(NamedTuple):
    """A log of commits to three data sets, read by a feed while the catalog works in some of them."""

    order: ReleaseOrder
    ring: EventRing
    sent: list[EncodedEvent]

    def release(self, commits: list[RecordedCommit]) -> None:
        for recorded in commits:
            for event, position in zip(recorded.commit.events, positions_in(recorded), strict=True):
                received = self.order.release(recorded.aggregate, position)
                encoded = encode_event(
                    event, recorded.commit, position=position, received=received, images=None, log_id="L"
                )
                self.ring.append(encoded)
                self.sent.append(encoded)


def commit_at(sequence: int, dataset: str, events: int) -> RecordedCommit:
    renamed = [DatasetRenamed(name=f"{sequence}.{number}") for number in range(events)]
    metadata = CommandMetadata(command_id=new_command_id(), actor="user:test", at=AT)
    commit = build_commit("dataset", dataset, renamed, expected_revision=StreamRevision(), metadata=metadata)
    return RecordedCommit(sequence=sequence, recorded_at=AT, commit=commit, body=b"")


@pytest.mark.slow
@settings(max_examples=examples(200))
@given(st.data())
def test_clients_receive_every_event_once_also_those_that_come_late(data: st.DataObject) -> None:
    """A client may disconnect after any frame, and goes on with that frame's cursor, perhaps with later events left."""
    datasets = ("ds_1", "ds_2", "ds_3")
    feed = Released(ReleaseOrder(NOTHING), EventRing(LiveLimits(), oldest=NOTHING, newest=NOTHING), [])
    pending: dict[str, int] = {}
    expected: list[tuple[str, LogPosition]] = []
    received, got = NOTHING, list[tuple[str, LogPosition]]()
    for sequence in range(1, data.draw(st.integers(1, 12)) + 1):
        commit = commit_at(sequence, data.draw(st.sampled_from(datasets)), data.draw(st.integers(1, 2)))
        expected += [(commit.commit.aggregate_id, position) for position in positions_in(commit)]
        if data.draw(st.booleans()):
            pending.setdefault(commit.commit.aggregate_id, sequence)
        feed.release(feed.order.take([commit], applied(sequence, pending)))
        if data.draw(st.booleans()) and pending:
            del pending[data.draw(st.sampled_from(sorted(pending)))]
        feed.release(feed.order.settle(applied(sequence, pending)))
        for event in (feed.ring.after(received) or [])[: data.draw(st.integers(0, 3))]:
            got.append((event.aggregate[1], event.position))
            received = received.joined(event.received)
            received = decode_cursor(encode_cursor("L", received, event.position), "L")
    feed.release(feed.order.settle(applied(len(expected), {})))
    got += [(event.aggregate[1], event.position) for event in feed.ring.after(received) or []]
    assert sorted(got) == sorted(expected)
    for dataset in datasets:
        assert [at for of, at in got if of == dataset] == [at for of, at in expected if of == dataset]
    assert feed.ring.filled_to == Received(expected[-1][1])
    assert (feed.order.commits, feed.order.count_late(applied(0, {}))) == (0, 0)


def applied(sequence: int, pending: dict[str, int]) -> Applied:
    still = tuple(
        PendingAggregate(aggregate_kind="dataset", aggregate_id=dataset, sequence=first)
        for dataset, first in pending.items()
    )
    return Applied(log_id="L", sequence=sequence, verified=True, pending=still)


def progress(step: int) -> TrainingProgress:
    return TrainingProgress(job_id=JobId("j1"), attempt=1, phase="training", at=AT, step=step)


def worker(name: str, state: Any = "idle") -> Presence:
    return Presence(service="trainer", worker=WorkerId(name), state=state, at=AT)


def test_a_newer_message_replaces_the_one_on_its_subject() -> None:
    values = LastValues()
    for message in (progress(1), worker("w1"), progress(2), worker("w2")):
        values.put(message, now=0)
    assert set(values) == {progress(2), worker("w1"), worker("w2")}
    assert (values.about("j1"), values.about("j2")) == (progress(2), None)
    values.forget("j1")
    assert values.about("j1") is None


def test_a_silent_worker_is_gone_and_silent_progress_just_ends() -> None:
    values = LastValues()
    values.put(worker("w1"), now=0)
    values.put(progress(1), now=0)
    assert values.expire(now=Presence.lifetime) == []
    assert values.expire(now=Presence.lifetime + 0.1) == [worker("w1", "gone")]
    assert list(values) == [progress(1)]
    assert values.expire(now=TrainingProgress.lifetime + 0.1) == []
    assert list(values) == []


def test_a_service_is_absent_from_when_its_last_worker_left() -> None:
    absences = Absences(AT)
    assert absences.since == {"trainer": AT, "tagger": AT}
    absences.update([worker("w1")], AT + timedelta(seconds=1))
    assert absences.since == {"tagger": AT}
    for later in (2, 3):
        absences.update([], AT + timedelta(seconds=later))
    assert absences.since == {"trainer": AT + timedelta(seconds=2), "tagger": AT}


async def test_a_subscriber_is_too_slow_when_a_send_takes_long_and_much_is_to_come() -> None:
    now = 0.0
    limits = LiveLimits(send_stall=5, events_behind=3)
    subscriber, all_subscribers = Subscriber(NOTHING, None, limits, lambda: now), Subscribers()
    all_subscribers.add(subscriber)
    async with subscriber.sending():
        now = 6.0
        all_subscribers.close_slow(ring_of(range(1, 4)))
        assert not subscriber.closed.done()
        all_subscribers.close_slow(ring_of(range(1, 5)))
    assert subscriber.closed.result()[0] == CLOSE_SLOW
    assert all_subscribers.slow_disconnects == 1
    all_subscribers.close_slow(ring_of(range(1, 5)))
    assert all_subscribers.slow_disconnects == 1


async def test_a_client_that_floods_is_closed_and_live_messages_replace_each_other() -> None:
    subscriber = Subscriber(NOTHING, "j1", LiveLimits(queued_replies=2), lambda: 0.0)
    subscriber.put_latest("k", "old")
    subscriber.put_latest("k", "new")
    for reply in ("a", "b"):
        subscriber.enqueue(reply)
    assert list(subscriber.drain()) == ["a", "b", "new"]
    for reply in ("a", "b", "c"):
        subscriber.enqueue(reply)
    assert subscriber.closed.result()[0] == CLOSE_FLOOD
    assert subscriber.accepts_message(progress(1))
    assert subscriber.accepts_message(worker("w1"))
    assert not Subscriber(NOTHING, "j2", LiveLimits(), lambda: 0.0).accepts_message(progress(1))


# --- image ids


def bitmap(*ordinals: int) -> ImageSet:
    return ImageSet(count=len(ordinals), bitmap=bytes(BitMap(ordinals).serialize()))


def added(ordinal: int) -> ImageAdded:
    digests: dict[str, Any] = dict.fromkeys(("source", "picture", "thumbnail", "pixels", "dhash"), ZERO)
    return ImageAdded(
        ordinal=ordinal,
        image_id=ImageId(f"img_{ordinal}"),
        **digests,
        format="PNG",
        width=8,
        height=8,
        size=8,
        name=b"",
    )


class KnownImages:
    """A catalog whose images are named by their ordinals; those from `unknown` on are unknown."""

    def __init__(self, *, unknown: int = 1_000_000, fault: Exception | None = None) -> None:
        self.queries: list[Any] = []
        self._unknown = unknown
        self._fault = fault

    async def query(self, query: Any) -> Any:
        self.queries.append(query)
        if self._fault is not None:
            raise self._fault
        match query:
            case ListImageIds(ordinals=ordinals):
                found = {ordinal: ImageId(f"img_{ordinal}") for ordinal in ordinals if ordinal < self._unknown}
                return ImageIdsView(ids=found)
            case GetTagging():
                raise NotFound("there is no such run")


async def images_of(ids: ImageIds, *events: Event, aggregate_id: str = "d1") -> list[EventImages | None]:
    return await ids.images_of([(aggregate_id, event) for event in events], applied=7)


def named(*ordinals: int) -> EventImages:
    return EventImages(count=len(ordinals), ids=tuple(ImageId(f"img_{ordinal}") for ordinal in ordinals))


async def test_images_added_before_are_known_without_a_query() -> None:
    catalog = KnownImages()
    ids = ImageIds(catalog)
    edit = TagsEdited(images=bitmap(1, 2), asserted=("cat",))
    assert await images_of(ids, added(1), added(2), edit) == [named(1), named(2), named(1, 2)]
    assert await images_of(ids, CaptionSet(ordinal=2, caption=None), DatasetRenamed(name="x")) == [named(2), None]
    assert catalog.queries == []


async def test_other_images_are_queried_once_for_a_whole_batch_and_remembered() -> None:
    catalog = KnownImages()
    ids = ImageIds(catalog)
    batch = (TagsEdited(images=bitmap(1, 2)), ImagesRemoved(images=bitmap(2, 3)))
    for _ in range(2):
        assert await images_of(ids, *batch) == [named(1, 2), named(2, 3)]
    (query,) = catalog.queries
    assert (query.dataset, set(query.ordinals), query.min_seq) == ("d1", {1, 2, 3}, 7)


async def test_a_large_batch_is_queried_in_parts() -> None:
    catalog = KnownImages()
    edits = [TagsEdited(images=bitmap(*range(start, start + 100))) for start in range(0, MAX_ORDINALS + 100, 100)]
    assert await images_of(ImageIds(catalog), *edits) == [
        named(*range(s, s + 100)) for s in range(0, MAX_ORDINALS + 100, 100)
    ]
    assert sorted(len(query.ordinals) for query in catalog.queries) == [100, MAX_ORDINALS]


async def test_more_than_a_hundred_images_are_only_counted() -> None:
    catalog = KnownImages()
    assert await images_of(ImageIds(catalog), TagsEdited(images=bitmap(*range(101)))) == [EventImages(count=101)]
    assert catalog.queries == []


async def test_the_cache_is_limited_and_a_batch_larger_than_it_is_still_complete() -> None:
    catalog = KnownImages()
    ids = ImageIds(catalog, max_cached=2)
    edit = TagsEdited(images=bitmap(1, 2, 3))
    assert await images_of(ids, edit) == await images_of(ids, edit) == [named(1, 2, 3)]
    assert [len(query.ordinals) for query in catalog.queries] == [3, 1]


async def test_predictions_are_about_images_of_the_data_set_of_their_run() -> None:
    requested = TaggingRequested(dataset_id=DatasetId("d1"), dataset="x", model="m", images=bitmap(4, 5), count=2)
    predicted = TaggingPredicted(attempt=1, images=(ImagePredictions(ordinal=5, predictions=()),))
    ids = ImageIds(KnownImages())
    assert await images_of(ids, requested, predicted, aggregate_id="r1") == [named(4, 5), named(5)]
    assert await images_of(ids, predicted, aggregate_id="lost run") == [EventImages(count=1)]


async def test_images_of_a_lost_commit_are_counted_without_an_id() -> None:
    ids = ImageIds(KnownImages(unknown=2))
    assert await images_of(ids, TagsEdited(images=bitmap(1, 2))) == [EventImages(count=2, ids=(ImageId("img_1"),))]


@pytest.mark.parametrize("images", [b"", b"no bitmap"])
async def test_a_set_that_cannot_be_read_is_damage(images: bytes) -> None:
    with pytest.raises(LogDamaged):
        await images_of(ImageIds(KnownImages()), TagsEdited(images=ImageSet(count=1, bitmap=images)))


async def test_an_unavailable_catalog_is_an_error_for_the_caller_to_retry() -> None:
    ids = ImageIds(KnownImages(fault=Unavailable("it is being restarted")))
    with pytest.raises(Unavailable):
        await images_of(ids, TagsEdited(images=bitmap(1)))
