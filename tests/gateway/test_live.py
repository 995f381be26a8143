"""The live feed and its sockets: nothing missed, nothing repeated, nothing told before it can be asked for."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from contracts import queries
from contracts.events import DatasetRenamed, JobEdited, JobSucceeded
from contracts.telemetry import Presence, TrainingProgress
from contracts.wire.telling import tell_presence, tell_progress
from gateway import live
from tests.gateway.conftest import World, eventually, until_ready
from tests.gateway.stand_in import job
from tests.gateway.test_http import assert_problem
from tests.limits import WAIT

Frame = dict[str, Any]
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@contextlib.asynccontextmanager
async def socket(world: World, path: str = "/ws/progress", **options: Any) -> AsyncIterator[ClientConnection]:
    # Not the client's 10 s: with frames unread it does not see the answer to its goodbye.
    async with connect(world.ws + path, **{"close_timeout": 0.5} | options) as opened:
        yield opened


async def frame(opened: ClientConnection) -> Frame:
    async with asyncio.timeout(WAIT):
        return msgspec.json.decode(await opened.recv(), type=Frame)


async def next_of(opened: ClientConnection, type_: str) -> Frame:
    while True:
        found = await frame(opened)
        if found["type"] == type_:
            return found


async def facts(opened: ClientConnection, count: int) -> list[Frame]:
    found: list[Frame] = []
    while len(found) < count:
        one = await frame(opened)
        if one["seq"] is not None:
            found.append(one)
    return found


def names(frames: list[Frame]) -> list[str]:
    return [one["data"]["name"] for one in frames]


async def released(world: World, sequence: int) -> None:
    async def shown() -> bool:
        return world.feed.now.sequence >= sequence

    await eventually(shown)


async def closed(opened: ClientConnection) -> int:
    async with asyncio.timeout(WAIT):
        with contextlib.suppress(ConnectionClosed):
            while True:
                await opened.recv()
    assert opened.close_code is not None
    return opened.close_code


async def test_a_fact_is_told_with_who_and_where(world: World) -> None:
    async with socket(world) as opened:
        established = await frame(opened)
        assert established["type"] == "connection_established"
        assert established["data"]["log_id"] == world.catalog.log_id
        await next_of(opened, "caught_up")
        stored = await world.catalog.rename("Rex")
        (told,) = await facts(opened, 1)
        assert (told["type"], told["subject"]) == ("dataset.renamed", "evt.dataset.d1")
        assert told["seq"] == f"{world.catalog.log_id}.{stored.sequence}"
        assert told["data"] == {
            "type": "dataset.renamed",
            "name": "Rex",
            "actor": "user:test",
            "command": stored.commit.command,
        }


async def test_who_comes_again_misses_and_repeats_nothing(world: World) -> None:
    wanted = [f"n{number}" for number in range(40)]
    heard: list[Frame] = []
    after = "0"

    async def write() -> None:
        for name in wanted:
            await world.catalog.rename(name)

    writing = asyncio.create_task(write())
    while len(heard) < len(wanted) + 1:
        async with socket(world, f"/ws/progress?after={after}") as opened:
            heard += await facts(opened, min(7, len(wanted) + 1 - len(heard)))
            after = heard[-1]["seq"]
    await writing
    assert heard[0]["type"] == "log.created"
    assert names(heard[1:]) == wanted
    sequences = [int(one["seq"].rpartition(".")[2]) for one in heard]
    assert sequences == sorted(set(sequences))


async def test_a_cursor_inside_a_commit_goes_on_with_its_next_fact(world: World) -> None:
    await world.catalog.append("d1", *(DatasetRenamed(name=name) for name in "abc"))
    async with socket(world, "/ws/progress?after=0") as opened:
        told = await facts(opened, 4)
    assert names(told[1:]) == ["a", "b", "c"]
    async with socket(world, f"/ws/progress?after={told[2]['seq']}") as opened:
        assert names(await facts(opened, 1)) == ["c"]
    page = await world.client.get("/api/v1/events", params={"after": told[1]["seq"]})
    assert [item["data"]["name"] for item in page.json()["items"]] == ["b", "c"]
    assert page.json()["items"][-1]["cursor"] == told[3]["seq"]


async def test_what_has_left_the_ring_comes_from_the_catalog(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "RING_FACTS", 3)
    for number in range(10):
        last = await world.catalog.rename(f"n{number}")
    await released(world, last.sequence)
    async with socket(world, "/ws/progress?after=0") as opened:
        told = await facts(opened, 11)
        assert names(told[1:]) == [f"n{number}" for number in range(10)]
        await next_of(opened, "caught_up")
        await world.catalog.rename("now")
        assert names(await facts(opened, 1)) == ["now"]


async def test_a_fact_waits_until_the_catalog_has_applied_it(world: World) -> None:
    _, end = await world.catalog.log.end()
    world.catalog.applied = end
    async with socket(world) as opened:
        await next_of(opened, "caught_up")
        await world.catalog.rename("early")
        second = await world.catalog.rename("late")
        await opened.send('{"type":"ping"}')
        await next_of(opened, "pong")
        assert world.feed.now.sequence == end
        world.catalog.applied = second.sequence - 1
        assert names(await facts(opened, 1)) == ["early"]
        world.catalog.applied = None
        assert names(await facts(opened, 1)) == ["late"]


async def test_a_socket_of_one_job_hears_of_no_other(world: World) -> None:
    world.catalog.answers[queries.GetJob] = job()
    async with socket(world, "/ws/progress/job_1") as opened:
        await next_of(opened, "caught_up")
        await world.catalog.append("job_2", JobEdited(name="other"))
        await world.catalog.rename("other")
        await world.catalog.append("job_1", JobEdited(name="mine"))
        assert names(await facts(opened, 1)) == ["mine"]


async def test_an_unknown_job_closes_4404_and_a_strange_cursor_4410(world: World) -> None:
    async with socket(world, "/ws/progress/job_9") as opened:
        assert await closed(opened) == 4404
    async with socket(world, "/ws/progress?after=OTHERLOG.5") as opened:
        assert await closed(opened) == 4410
    async with socket(world, "/ws/progress?after=nonsense") as opened:
        assert await closed(opened) == 4400
    gone = await world.client.get("/api/v1/events", params={"after": "OTHERLOG.5"})
    assert_problem(gone, 410, "gone")


async def test_what_is_no_question_closes_4400(world: World) -> None:
    async with socket(world) as opened:
        await opened.send("[]")
        assert await closed(opened) == 4400
    async with socket(world) as opened:
        await opened.send('{"type":"get_stats"}')
        assert (await next_of(opened, "connection_stats"))["data"]["active_connections"] == 1


async def test_pages_of_other_sites_get_no_socket(world: World) -> None:
    with pytest.raises(InvalidStatus):
        async with socket(world, origin="http://evil.example"):
            pass
    async with socket(world, origin=world.url) as opened:
        assert (await frame(opened))["type"] == "connection_established"


async def test_progress_comes_under_the_names_of_the_seed_and_ends_with_the_job(world: World) -> None:
    told = TrainingProgress(job_id="job_1", attempt=3, phase="training", at=NOW, step=5, steps=20, loss=0.5, eta=7.5)
    async with socket(world) as opened:
        await next_of(opened, "caught_up")
        await tell_progress(world.admin, told)
        update = await next_of(opened, "progress_update")
        assert update["seq"] is None
        data = update["data"]
        assert (data["job_id"], data["status"], data["progress_percentage"]) == ("job_1", "running", 25.0)
        assert (data["current_step"], data["total_steps"], data["loss"]) == (5, 20, 0.5)
    world.catalog.answers[queries.GetJob] = job(status="running", phase="running", position=None)
    assert (await world.client.get("/api/v1/jobs/job_1")).json()["live"]["progress"]["step"] == 5
    assert (await world.client.get("/api/v1/jobs/job_1/status")).json()["eta"] == 7.5

    async with socket(world) as opened:
        await world.catalog.append("job_1", JobSucceeded(attempt=3, step=20, artifacts=()))
        await facts(opened, 1)
    assert (await world.client.get("/api/v1/jobs/job_1")).json()["live"]["progress"] is None


async def test_a_waiting_job_says_why(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "PRESENCE_SECONDS", 0.5)
    world.catalog.answers[queries.GetJob] = job(position=2)

    async def why() -> str:
        answer: dict[str, Any] = (await world.client.get("/api/v1/jobs/job_1")).json()["live"]["waiting"]
        return f"{answer['code']}: {answer['why']}"

    assert (await why()).startswith("no-worker: no trainer connected since ")
    async with socket(world) as opened:
        for state, code in (("starting", "worker-starting: trainer starting"), ("busy", "queued: position 2")):
            await tell_presence(world.admin, Presence(service="trainer", worker="w1", state=state, at=NOW))
            while (await next_of(opened, "presence"))["data"]["state"] != state:
                pass
            assert await why() == code
        while (await next_of(opened, "presence"))["data"]["state"] != "gone":
            pass
    assert (await why()).startswith("no-worker")
    world.catalog.answers[queries.GetJob] = job(status="running", phase="running", position=None)
    assert (await world.client.get("/api/v1/jobs/job_1")).json()["live"]["waiting"] is None


async def test_a_silent_catalog_is_told_once_and_its_return_too(world: World) -> None:
    async with socket(world) as opened:
        await next_of(opened, "caught_up")
        world.catalog.silent = True
        await next_of(opened, "stale")
        assert (await world.client.get("/health/ready")).status_code == 503
        world.catalog.silent = False
        assert (await frame(opened))["type"] == "fresh"
    health = (await world.client.get("/health")).json()
    assert health["status"] == "degraded"


async def test_a_client_that_reads_nothing_is_sent_away_and_comes_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.listener.STALL_SECONDS", 0.3)
    monkeypatch.setattr(live, "MOST_BEHIND", 10)
    async with socket(world, max_queue=1, compression=None, close_timeout=0.2) as opened:
        await next_of(opened, "caught_up")
        for _ in range(120):  # more than the kernel buffers for a connection
            await world.catalog.rename("x" * 190_000)

        async def sent_away() -> bool:
            return world.feed.overflows == 1

        await eventually(sent_away)


async def test_goodbye_says_where_to_go_on(world: World) -> None:
    stored = await world.catalog.rename("last")
    async with socket(world, "/ws/progress?after=0") as opened:
        await facts(opened, 2)
        world.feed.say_goodbye()
        bye = await next_of(opened, "bye")
        assert bye["data"]["resume_after"] == f"{world.catalog.log_id}.{stored.sequence}"
        assert await closed(opened) == 1012


async def test_without_nats_nothing_hangs_and_with_it_everything_goes_on(world: World) -> None:
    async with socket(world) as opened:
        await next_of(opened, "caught_up")
        await world.server.stop()
        await next_of(opened, "stale")
        body = assert_problem(await world.client.get("/api/v1/datasets/d1"), 503, "unavailable")
        assert body["service"] == "nats"
        assert (await world.client.get("/health/ready")).json()["checks"]["nats"]["ok"] is False
        await world.server.start()
        await until_ready(world.client)
        await world.catalog.rename("after")
        assert names(await facts(opened, 1)) == ["after"]


async def test_the_log_is_read_as_lines_and_in_pages(world: World) -> None:
    for number in range(6):
        await world.catalog.rename(f"n{number}")
    lines = await world.client.get("/api/v1/events", headers={"Accept": "application/x-ndjson"})
    assert lines.headers["content-type"].startswith("application/x-ndjson")
    told = [msgspec.json.decode(line) for line in lines.text.splitlines()]
    assert [one["sequence"] for one in told] == list(range(1, 8))
    assert {"time", "actor", "causation", "cursor"} <= told[0].keys()

    found: list[int] = []
    address: str | None = "/api/v1/events?limit=3&kind=dataset"
    while address:
        answer = await world.client.get(address)
        found += [item["sequence"] for item in answer.json()["items"]]
        address = answer.links.get("next", {}).get("url")
    assert found == list(range(2, 8))
