"""The live feed and its WebSockets: no event is missed, repeated, or sent before queries show it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
from pyroaring import BitMap
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from contracts.errors import Unavailable
from contracts.events.datasets import DatasetRenamed, TagsEdited
from contracts.events.image_sets import ImageSet
from contracts.events.jobs import JobEdited, JobSucceeded
from contracts.frames import AnyFrame
from contracts.ids import ImageId, JobId, WorkerId
from contracts.queries.datasets import ImageIdsView, ListImageIds
from contracts.queries.jobs import GetJob
from contracts.telemetry import PendingAggregate, Presence, TrainingProgress
from contracts.wire.service.supervision import Pause, SupervisionFile, SupervisionReport
from contracts.wire.service.telemetry import publish
from gateway.clients import CatalogClient
from gateway.cursor import LogPosition, Received
from gateway.limits import LIVE_LIMITS, LiveLimits
from gateway.live.feed import LiveFeed
from gateway.live.image_ids import ImageIds
from tests.gateway.conftest import Limits, World, eventually, until_ready, world_at
from tests.gateway.fake_catalog import job
from tests.gateway.test_http import assert_problem
from tests.limits import WAIT

Frame = dict[str, Any]
pytestmark = pytest.mark.asyncio(loop_scope="module")
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@contextlib.asynccontextmanager
async def socket(world: World, path: str = "/ws/progress", **options: Any) -> AsyncIterator[ClientConnection]:
    # Not the client's default of 10 s: with unread frames it does not see the reply to its close frame.
    async with connect(world.ws + path, **{"close_timeout": 0.1} | options) as opened:
        yield opened


async def next_frame(opened: ClientConnection) -> Frame:
    """Every frame is one of the documented types."""
    async with asyncio.timeout(WAIT):
        text = await opened.recv()
    msgspec.json.decode(text, type=AnyFrame)
    return msgspec.json.decode(text, type=Frame)


async def next_of(opened: ClientConnection, type_: str) -> Frame:
    while True:
        frame = await next_frame(opened)
        if frame["type"] == type_:
            return frame


async def next_events(opened: ClientConnection, count: int) -> list[Frame]:
    events: list[Frame] = []
    while len(events) < count:
        frame = await next_frame(opened)
        if frame["seq"] is not None:
            events.append(frame)
    return events


def names(frames: list[Frame]) -> list[str]:
    return [one["data"]["name"] for one in frames]


async def wait_until_released(world: World, sequence: int) -> None:
    async def is_released() -> bool:
        return world.feed.ring.newest.position.sequence >= sequence

    await eventually(is_released)


async def close_code(opened: ClientConnection) -> int:
    async with asyncio.timeout(WAIT):
        with contextlib.suppress(ConnectionClosed):
            while True:
                await opened.recv()
    assert opened.close_code is not None
    return opened.close_code


async def test_an_event_frame_has_actor_command_and_subject(world: World) -> None:
    async with socket(world) as opened:
        established = await next_frame(opened)
        assert established["type"] == "connection_established"
        assert established["data"]["log_id"] == world.catalog.log_id
        await next_of(opened, "caught_up")
        recorded = await world.catalog.rename("Rex")
        (event,) = await next_events(opened, 1)
        assert (event["type"], event["subject"]) == ("dataset.renamed", "evt.dataset.d1")
        assert event["seq"] == f"{world.catalog.log_id}.{recorded.sequence}"
        assert event["description"] == "Renamed the data set to 'Rex'"
        assert event["data"] == {
            "type": "dataset.renamed",
            "name": "Rex",
            "actor": "user:test",
            "command_id": recorded.commit.command_id,
        }


@pytest.mark.slow
@pytest.mark.parametrize("ring_events", [1, 1000], ids=["from the catalog", "from the ring"])
async def test_frames_of_what_the_catalog_works_in_come_later_and_those_of_others_do_not_wait(
    tmp_path: Path, ring_events: int
) -> None:
    async with world_at(tmp_path, limits=Limits(live=LiveLimits(ring_events=ring_events))) as world:
        first = await world.catalog.rename("start")
        await wait_until_released(world, first.sequence)
        pending = PendingAggregate(aggregate_kind="dataset", aggregate_id="d1", sequence=first.sequence + 1)
        world.catalog.pending = (pending,)

        async def only_one_waits() -> bool:
            return world.feed.reader.lag == 1

        async with socket(world) as opened:
            await next_of(opened, "caught_up")
            await world.catalog.append("d1", DatasetRenamed(name="late"), DatasetRenamed(name="later"))
            others = [await world.catalog.append("d2", DatasetRenamed(name=f"other {number}")) for number in range(3)]
            early = await next_events(opened, 2)
            assert names(early) == ["other 0", "other 1"]
            await eventually(only_one_waits)
            assert early[1]["seq"].endswith(f",dataset:d1:{first.sequence}.{others[1].sequence}")
        world.catalog.pending = ()
        await wait_until_released(world, others[-1].sequence)

        async def is_released() -> bool:
            return world.feed.reader.lag == 0

        await eventually(is_released)
        async with socket(world, f"/ws/progress?after={early[1]['seq']}") as opened:
            rest = await next_events(opened, 3)
        assert sorted(names(rest)) == ["late", "later", "other 2"]
        assert names(rest).index("late") < names(rest).index("later")
        for last, missing in ((1, 1), (2, 0)):
            page = await world.client.get("/api/v1/events", params={"after": rest[last]["seq"]})
            assert len(page.json()["items"]) == missing


async def test_a_client_that_reconnects_misses_and_repeats_nothing(fresh_world: World) -> None:
    expected = [f"n{number}" for number in range(40)]
    received: list[Frame] = []
    after = "0"

    async def write() -> None:
        for name in expected:
            await fresh_world.catalog.rename(name)

    writing = asyncio.create_task(write())
    while len(received) < len(expected) + 1:
        async with socket(fresh_world, f"/ws/progress?after={after}") as opened:
            received += await next_events(opened, min(7, len(expected) + 1 - len(received)))
            after = received[-1]["seq"]
    await writing
    assert received[0]["type"] == "log.created"
    assert names(received[1:]) == expected
    sequences = [int(one["seq"].rpartition(".")[2]) for one in received]
    assert sequences == sorted(set(sequences))


@pytest.mark.slow
async def test_a_cursor_inside_a_commit_continues_with_its_next_event(fresh_world: World) -> None:
    await fresh_world.catalog.append("d1", *(DatasetRenamed(name=name) for name in "abc"))
    async with socket(fresh_world, "/ws/progress?after=0") as opened:
        events = await next_events(opened, 4)
    assert names(events[1:]) == ["a", "b", "c"]
    async with socket(fresh_world, f"/ws/progress?after={events[2]['seq']}") as opened:
        assert names(await next_events(opened, 1)) == ["c"]
    page = await fresh_world.client.get("/api/v1/events", params={"after": events[1]["seq"]})
    assert [item["data"]["name"] for item in page.json()["items"]] == ["b", "c"]
    assert page.json()["items"][-1]["cursor"] == events[3]["seq"]


@pytest.mark.slow
async def test_events_that_have_left_the_ring_come_from_the_catalog(tmp_path: Path) -> None:
    async with world_at(tmp_path, limits=Limits(live=LiveLimits(ring_events=3))) as world:
        await _read_from_the_start(world)


async def _read_from_the_start(world: World) -> None:
    for number in range(10):
        last = await world.catalog.rename(f"n{number}")
    await wait_until_released(world, last.sequence)
    async with socket(world, "/ws/progress?after=0") as opened:
        events = await next_events(opened, 11)
        assert names(events[1:]) == [f"n{number}" for number in range(10)]
        await next_of(opened, "caught_up")
        await world.catalog.rename("now")
        assert names(await next_events(opened, 1)) == ["now"]


@pytest.mark.slow
async def test_a_gateway_that_starts_reads_only_the_end_of_a_long_log(fresh_world: World) -> None:
    world = fresh_world
    renamed = [await world.catalog.rename(f"name {number}") for number in range(5)]
    await wait_until_released(world, renamed[-1].sequence)
    later = LiveFeed(world.bus, ImageIds(CatalogClient(world.bus)), LiveLimits(commits_at_start=2), world.clock)
    running = asyncio.create_task(later.run())

    async def is_read() -> bool:
        return later.ring.filled_to.position.sequence == renamed[-1].sequence

    await eventually(is_read)
    running.cancel()
    assert later.ring.oldest.position.sequence == renamed[2].sequence
    assert later.ring.after(Received(LogPosition(renamed[1].sequence))) is None  # from the catalog
    assert len(later.ring.after(Received(LogPosition(renamed[2].sequence))) or ()) == 2


async def test_an_event_is_sent_once_the_catalog_has_applied_it(world: World) -> None:
    _, end = await world.catalog.log.end()
    world.catalog.applied = end
    async with socket(world) as opened:
        await next_of(opened, "caught_up")
        await world.catalog.rename("early")
        second = await world.catalog.rename("late")
        await opened.send('{"type":"ping"}')
        await next_of(opened, "pong")
        assert world.feed.ring.newest.position.sequence == end
        world.catalog.applied = second.sequence - 1
        assert names(await next_events(opened, 1)) == ["early"]
        world.catalog.applied = None
        assert names(await next_events(opened, 1)) == ["late"]


async def test_a_socket_of_one_job_receives_no_other_events(world: World) -> None:
    world.catalog.query_results[GetJob] = job()
    async with socket(world, "/ws/progress/job_1") as opened:
        await next_of(opened, "caught_up")
        await world.catalog.append("job_2", JobEdited(name="other"))
        await world.catalog.rename("other")
        await world.catalog.append("job_1", JobEdited(name="mine"))
        assert names(await next_events(opened, 1)) == ["mine"]


async def test_an_unknown_job_closes_with_4404_and_a_foreign_cursor_with_4410(world: World) -> None:
    async with socket(world, "/ws/progress/job_9") as opened:
        assert await close_code(opened) == 4404
    async with socket(world, "/ws/progress?after=OTHERLOG.5") as opened:
        assert await close_code(opened) == 4410
    async with socket(world, "/ws/progress?after=nonsense") as opened:
        assert await close_code(opened) == 4400
    gone = await world.client.get("/api/v1/events", params={"after": "OTHERLOG.5"})
    assert_problem(gone, 410, "gone")


async def test_an_invalid_request_closes_with_4400(fresh_world: World) -> None:
    async with socket(fresh_world) as opened:
        await opened.send("[]")
        assert await close_code(opened) == 4400
    async with socket(fresh_world) as opened:
        await opened.send('{"type":"get_stats"}')
        assert (await next_of(opened, "connection_stats"))["data"]["active_connections"] == 1


async def test_pages_of_other_sites_cannot_open_a_socket(world: World) -> None:
    with pytest.raises(InvalidStatus):
        async with socket(world, origin="http://evil.example"):
            pass
    async with socket(world, origin=world.url) as opened:
        assert (await next_frame(opened))["type"] == "connection_established"


async def test_progress_has_the_member_names_of_the_seed_and_ends_with_the_job(world: World) -> None:
    progress = TrainingProgress(
        job_id=JobId("job_1"), attempt=3, phase="training", at=NOW, step=5, steps=20, loss=0.5, eta=7.5
    )
    async with socket(world) as opened:
        await next_of(opened, "caught_up")
        await publish(world.trainer, progress)
        update = await next_of(opened, "progress_update")
        assert update["seq"] is None
        data = update["data"]
        assert (data["job_id"], data["status"], data["progress_percentage"]) == ("job_1", "running", 25.0)
        assert (data["current_step"], data["total_steps"], data["loss"]) == (5, 20, 0.5)
    world.catalog.query_results[GetJob] = job(status="running", phase="running", position=None)
    assert (await world.client.get("/api/v1/jobs/job_1")).json()["live"]["progress"]["step"] == 5
    assert (await world.client.get("/api/v1/jobs/job_1/status")).json()["eta"] == 7.5

    async with socket(world) as opened:
        await world.catalog.append("job_1", JobSucceeded(attempt=3, step=20, artifacts=()))
        await next_events(opened, 1)
    assert (await world.client.get("/api/v1/jobs/job_1")).json()["live"]["progress"] is None


async def test_a_waiting_job_has_a_reason(world: World) -> None:
    world.catalog.query_results[GetJob] = job(position=2)

    async def why() -> str:
        response: dict[str, Any] = (await world.client.get("/api/v1/jobs/job_1")).json()["live"]["waiting"]
        return f"{response['code']}: {response['why']}"

    assert (await why()).startswith("no-worker: no trainer connected since ")
    async with socket(world) as opened:
        states: tuple[tuple[Literal["starting", "busy"], str], ...] = (
            ("starting", "worker-starting: trainer starting"),
            ("busy", "queued: position 2"),
        )
        for state, code in states:
            await publish(world.trainer, Presence(service="trainer", worker=WorkerId("w1"), state=state, at=NOW))
            while (await next_of(opened, "presence"))["data"]["state"] != state:
                pass
            assert await why() == code
        world.clock.ahead += Presence.lifetime + 1
        while (await next_of(opened, "presence"))["data"]["state"] != "gone":
            pass
    assert (await why()).startswith("no-worker")
    world.catalog.query_results[GetJob] = job(status="running", phase="running", position=None)
    assert (await world.client.get("/api/v1/jobs/job_1")).json()["live"]["waiting"] is None


async def test_clients_are_notified_once_when_the_catalog_falls_silent_and_when_it_returns(world: World) -> None:
    async def is_not_ready() -> bool:
        return (await world.client.get("/health/ready")).status_code == 503

    async with socket(world) as opened:
        await next_of(opened, "caught_up")
        await world.silence_catalog()
        await next_of(opened, "stale")
        await eventually(is_not_ready)
        world.catalog.is_silent = False
        assert (await next_frame(opened))["type"] == "fresh"
    health = (await world.client.get("/health")).json()
    assert health["status"] == "degraded"


async def test_clients_learn_at_once_that_the_log_is_damaged_and_what_cures_it(world: World) -> None:
    damage = "commit 7 is missing from the log; cure: `loratory restore --data /data`"

    async def is_said() -> bool:
        ready = (await world.client.get("/health/ready")).json()
        return bool(ready["checks"]["log"] == {"ok": False, "detail": damage})

    async with socket(world) as opened:
        await next_of(opened, "caught_up")
        world.catalog.damage = damage
        while (await next_of(opened, "stale"))["data"] != {"reason": damage}:
            pass  # on a busy machine the catalog may have been silent for a moment
        async with socket(world) as later:
            assert (await next_of(later, "stale"))["data"] == {"reason": damage}
        await eventually(is_said)
        world.catalog.damage = ""
        assert (await next_of(opened, "fresh"))["data"] == {}


async def test_health_says_what_a_service_waits_for_before_it_is_started_again(world: World) -> None:
    async def catalog_check() -> object:
        return (await world.client.get("/health/ready")).json()["checks"]["catalog"]

    with SupervisionFile(world.staging.parent / "supervision.json") as file:
        full = Pause(reason="it ended because there is no room for archive.db", until=0)
        file.write(SupervisionReport({"catalog": full, "trainer": Pause(reason="waiting for disk space")}))
        services = {one["service"]: one for one in (await world.client.get("/health")).json()["services"]}
        assert services["trainer"]["detail"] == "trainer: waiting for disk space"
        assert services["catalog"]["status"] == "healthy"  # it responds
        await world.silence_catalog()
        why = "catalog: starting again; it ended because there is no room for archive.db"

        async def is_explained() -> bool:
            return await catalog_check() == {"ok": False, "detail": why}

        await eventually(is_explained)
        world.catalog.is_silent = False
        await until_ready(world.client)


@pytest.mark.slow
async def test_a_client_that_reads_nothing_is_disconnected(tmp_path: Path) -> None:
    limits = Limits(live=LiveLimits(send_stall=0.3, events_behind=10))
    async with (
        world_at(tmp_path, limits=limits) as world,
        socket(world, max_queue=1, compression=None, close_timeout=0.2) as opened,
    ):
        await next_of(opened, "caught_up")
        for _ in range(120):  # more than the kernel buffers for a connection
            await world.catalog.rename("x" * 190_000)

        async def is_disconnected() -> bool:
            world.clock.ahead += limits.live.send_stall
            return world.feed.subscribers.slow_disconnects == 1

        await eventually(is_disconnected)


@pytest.mark.slow
async def test_the_bye_frame_has_the_cursor_to_resume_from(fresh_world: World) -> None:
    recorded = await fresh_world.catalog.rename("last")
    async with socket(fresh_world, "/ws/progress?after=0") as opened:
        await next_events(opened, 2)
        fresh_world.feed.close_for_restart()
        bye = await next_of(opened, "bye")
        assert bye["data"]["resume_after"] == f"{fresh_world.catalog.log_id}.{recorded.sequence}"
        assert await close_code(opened) == 1012


async def test_without_nats_nothing_hangs_and_with_it_everything_continues(fresh_world: World) -> None:
    async with socket(fresh_world) as opened:
        await next_of(opened, "caught_up")
        await fresh_world.server.stop()
        fresh_world.clock.ahead += LIVE_LIMITS.stale_after + 1
        await next_of(opened, "stale")
        body = assert_problem(await fresh_world.client.get("/api/v1/datasets/d1"), 503, "unavailable")
        assert body["service"] == "nats"
        assert (await fresh_world.client.get("/health/ready")).json()["checks"]["nats"]["ok"] is False
        await fresh_world.server.start()
        await until_ready(fresh_world.client)
        await fresh_world.catalog.rename("after")
        assert names(await next_events(opened, 1)) == ["after"]


async def test_the_log_is_read_as_lines_and_in_pages(fresh_world: World) -> None:
    for number in range(6):
        await fresh_world.catalog.rename(f"n{number}")
    lines = await fresh_world.client.get("/api/v1/events", headers={"Accept": "application/x-ndjson"})
    assert lines.headers["content-type"].startswith("application/x-ndjson")
    events = [msgspec.json.decode(line) for line in lines.text.splitlines()]
    assert [one["sequence"] for one in events] == list(range(1, 8))
    assert {"time", "actor", "causation_id", "cursor"} <= events[0].keys()
    assert [one["description"] for one in events[1:3]] == [
        "Renamed the data set to 'n0'",
        "Renamed the data set to 'n1'",
    ]

    found: list[int] = []
    address: str | None = "/api/v1/events?limit=3&aggregate_kind=dataset"
    while address:
        response = await fresh_world.client.get(address)
        found += [item["sequence"] for item in response.json()["items"]]
        address = response.links.get("next", {}).get("url")
    assert found == list(range(2, 8))


def bitmap(*ordinals: int) -> ImageSet:
    return ImageSet(count=len(ordinals), bitmap=bytes(BitMap(ordinals).serialize()))


def image_ids(query: ListImageIds) -> ImageIdsView:
    return ImageIdsView(ids={ordinal: ImageId(f"img_{ordinal}") for ordinal in query.ordinals})


async def test_a_frame_about_images_names_them_and_the_order_of_events_stays(world: World) -> None:
    """The edit waits for the ids of its images, and what comes after it waits too."""
    async with socket(world) as opened:
        await next_of(opened, "caught_up")
        world.catalog.query_results[ListImageIds] = Unavailable("it is being restarted")
        await world.catalog.append("d1", TagsEdited(images=bitmap(3, 1), asserted=("cat",)))
        await world.catalog.rename("later")

        async def was_queried() -> bool:
            return ListImageIds in {type(query) for query in world.catalog.received_queries}

        await eventually(was_queried)
        world.catalog.query_results[ListImageIds] = image_ids
        edited, renamed = await next_events(opened, 2)
    assert edited["data"]["images"] == {"count": 2, "ids": ["img_1", "img_3"]}
    assert edited["data"]["asserted"] == ["cat"]
    assert renamed["data"]["name"] == "later"


async def test_an_edit_of_many_images_is_counted_and_needs_no_query(world: World) -> None:
    async with socket(world) as opened:
        await next_of(opened, "caught_up")
        await world.catalog.append("d1", TagsEdited(images=bitmap(*range(150)), asserted=("cat",)))
        (edited,) = await next_events(opened, 1)
    assert edited["data"]["images"] == {"count": 150, "ids": []}
    assert ListImageIds not in {type(query) for query in world.catalog.received_queries}


@pytest.mark.slow
async def test_replayed_frames_and_lists_name_the_same_images(tmp_path: Path) -> None:
    async with world_at(tmp_path, limits=Limits(live=LiveLimits(ring_events=1))) as world:
        world.catalog.query_results[ListImageIds] = image_ids
        await world.catalog.append("d1", TagsEdited(images=bitmap(7), asserted=("cat",)))
        last = await world.catalog.rename("last")
        await wait_until_released(world, last.sequence)
        async with socket(world, "/ws/progress?after=0") as opened:
            edited = (await next_events(opened, 3))[1]
        listed = (await world.client.get("/api/v1/events")).json()["items"][1:]
    assert edited["data"]["images"] == listed[0]["images"] == {"count": 1, "ids": ["img_7"]}
    assert listed[0]["data"] == {
        "type": "dataset.tags_edited",
        "images": msgspec.to_builtins(bitmap(7)),
        "asserted": ["cat"],
    }
    assert listed[1]["images"] is None


async def test_a_live_message_reaches_clients_that_connect_later_until_it_expires(world: World) -> None:
    await publish(world.tagger, Presence(service="tagger", worker=WorkerId("late"), state="idle", at=NOW))

    async def is_known() -> bool:
        return any(presence.worker == "late" for presence in world.feed.presences)

    await eventually(is_known)
    async with socket(world) as opened:
        assert (await next_of(opened, "presence"))["data"] == {
            "at": "2026-01-01T00:00:00Z",
            "service": "tagger",
            "worker": "late",
            "state": "idle",
        }
        world.clock.ahead += Presence.lifetime + 1
        assert (await next_of(opened, "presence"))["data"]["state"] == "gone"
    assert world.feed.presences == []
