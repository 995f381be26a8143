"""The log as clients read it: pages, lines, and streams that go on, miss nothing, repeat nothing and end."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import msgspec
import pytest
from litestar import Litestar, Request, Response, get

from contracts.errors import Unavailable
from contracts.events import JobEdited
from gateway.http import patience
from gateway.routes import event_formats
from tests.gateway.conftest import World, eventually
from tests.gateway.test_http import P, assert_problem
from tests.limits import WAIT

SSE = {"Accept": "text/event-stream"}


class Told:
    """A stream of server-sent events, read as a browser reads it."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self.last_id = ""
        self._lines = answer.aiter_lines()

    async def __anext__(self) -> dict[str, Any]:
        """The next event with data; an id alone only moves `last_id`."""
        data = ""
        async with asyncio.timeout(WAIT):
            async for line in self._lines:
                field, _, value = line.partition(": ")
                if field == "id":
                    self.last_id = value
                elif field == "data":
                    data = value
                elif not line and data:
                    found: dict[str, Any] = msgspec.json.decode(data)
                    assert found["cursor"] == self.last_id
                    return found
        raise StopAsyncIteration

    def __aiter__(self) -> "Told":
        return self

    async def names(self, count: int) -> list[str]:
        return [(await anext(self))["data"]["name"] for _ in range(count)]


@asynccontextmanager
async def stream(world: World, headers: dict[str, str] | None = None, **params: Any) -> AsyncIterator[Told]:
    async with world.client.stream("GET", f"{P}/events", params=params, headers=SSE | (headers or {})) as answer:
        assert answer.status_code == 200, await answer.aread()
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield Told(answer)


async def now(world: World) -> str:
    return str((await world.client.get(f"{P}/events", params={"limit": 1})).json()["head"])


async def test_a_stream_tells_what_was_and_goes_on_with_what_comes(world: World) -> None:
    after = await now(world)
    for name in ("a", "b"):
        await world.catalog.rename(name)
    async with stream(world, after=after) as told:
        assert await told.names(2) == ["a", "b"]
        await world.catalog.rename("c")
        assert await told.names(1) == ["c"]


async def test_who_comes_again_with_the_last_id_misses_and_repeats_nothing(world: World) -> None:
    after = await now(world)
    async with stream(world, after=after) as told:
        await world.catalog.rename("a")
        assert await told.names(1) == ["a"]
        last = told.last_id
    for name in ("b", "c"):
        await world.catalog.rename(name)
    async with stream(world, {"Last-Event-ID": last}, after=after) as told:
        assert await told.names(2) == ["b", "c"]


async def test_a_page_lines_and_a_stream_tell_the_same(world: World) -> None:
    for number in range(5):
        await world.catalog.rename(f"name {number}")
        await world.catalog.append("job_1", JobEdited(name=f"job {number}"))
    asked = {"kind": "dataset", "limit": 5}
    page = (await world.client.get(f"{P}/events", params=asked)).json()["items"]
    lines = await world.client.get(f"{P}/events", params=asked, headers={"Accept": "application/x-ndjson"})
    async with stream(world, **asked) as told:
        streamed = [one async for one in told]
    assert len(page) == 5
    assert page == streamed == [msgspec.json.decode(line) for line in lines.text.splitlines()]


async def test_a_stream_tells_only_what_was_asked_for_and_how_far_it_looked(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_formats, "QUIET_SECONDS", 0.2)
    after = await now(world)
    async with stream(world, after=after, thing="job_1", type="job.edited", actor="user:test") as told:
        stored = await world.catalog.rename("not wanted")
        found = asyncio.create_task(anext(told))

        async def moved() -> bool:
            return told.last_id.endswith(f".{stored.sequence}")

        await eventually(moved)
        asked = len(world.catalog.asked)
        await world.catalog.append("job_1", JobEdited(name="wanted"))
        assert (await found)["data"]["name"] == "wanted"
        assert len(world.catalog.asked) == asked + 1  # what does not fit is never asked for


async def test_the_filters_reach_the_catalog(world: World) -> None:
    asked = {
        "kind": "job",
        "thing": "job_1",
        "type": "job.*",
        "actor": "svc:trainer/*",
        "from": "2026-01-02T03:04:05Z",
        "until": "2026-01-03T00:00:00+01:00",
    }
    assert (await world.client.get(f"{P}/events", params=asked)).status_code == 200
    found = msgspec.to_builtins(world.catalog.asked[-1])
    assert found["since"] == "2026-01-02T03:04:05Z"
    assert msgspec.json.decode(f'"{found["until"]}"', type=datetime) == datetime(2026, 1, 2, 23, tzinfo=UTC)
    assert {name: found[name] for name in ("kind", "thing", "type", "actor")} == {
        name: asked[name] for name in ("kind", "thing", "type", "actor")
    }


async def test_a_filter_that_is_none_is_refused(world: World) -> None:
    for asked in ({"kind": "picture"}, {"from": "2026-01-02T03:04:05"}, {"until": "soon"}, {"limit": 0}):
        assert_problem(await world.client.get(f"{P}/events", params=asked), 400, "invalid")
    gone = await world.client.get(f"{P}/events", headers=SSE | {"Last-Event-ID": "OTHERLOG.5"})
    assert_problem(gone, 410, "gone")
    assert_problem(await world.client.get(f"{P}/events", headers=SSE, params={"after": "x"}), 400, "invalid")


async def test_a_stream_ends_when_its_time_is_over(world: World) -> None:
    await world.catalog.rename("a")
    until = datetime.now(UTC) + timedelta(seconds=1)
    async with stream(world, until=until.isoformat()) as told:
        told_in_time = [one["type"] async for one in told]
    assert told_in_time[-1] == "dataset.renamed"
    assert datetime.now(UTC) >= until


async def test_a_catalog_that_is_away_for_a_while_costs_a_stream_nothing(world: World) -> None:
    after = await now(world)
    async with stream(world, after=after) as told:
        world.catalog.fault = Unavailable("it is being restarted")
        await world.catalog.rename("a")
        found = asyncio.create_task(told.names(1))

        async def asked_in_vain() -> bool:
            return world.catalog.faults > 1

        await eventually(asked_in_vain)
        world.catalog.fault = None
        assert await found == ["a"]


async def test_a_gateway_that_goes_ends_its_streams(world: World) -> None:
    async with stream(world, after=await now(world)) as told:
        world.feed.say_goodbye()
        assert [one async for one in told] == []
    assert world.feed.streams == 0


async def test_only_so_many_streams_are_open_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_formats, "MOST_STREAMS", 1)
    after = await now(world)
    async with stream(world, after=after) as told:
        await world.catalog.rename("a")
        await told.names(1)
        assert_problem(await world.client.get(f"{P}/events", headers=SSE), 503, "unavailable")

    async def left() -> bool:
        return world.feed.streams == 0

    await eventually(left)
    async with stream(world, after=after) as told:
        assert await told.names(1) == ["a"]


async def test_who_takes_nothing_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "STALL_SECONDS", 0.05)
    closed = asyncio.Event()

    async def endless() -> AsyncGenerator[bytes, None]:
        try:
            while True:
                yield b"more"
        finally:
            closed.set()

    @get("/")
    async def stream_without_end(request: Request[Any, Any, Any]) -> Response[Any]:
        return patience.streamed(request, endless(), "text/plain")

    async def never() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            await never()

    app = patience.patient(Litestar([stream_without_end], openapi_config=None, logging_config=None))
    scope = {"type": "http", "method": "GET", "path": "/", "raw_path": b"/", "query_string": b"", "headers": []}
    scope |= {"scheme": "http", "root_path": "", "http_version": "1.1", "client": None, "server": None, "asgi": {}}
    async with asyncio.timeout(WAIT):
        await app(scope, never, send)  # type: ignore[arg-type]  # as much of a scope as it takes
    assert closed.is_set()


async def test_nothing_is_told_before_it_can_be_asked_for(world: World) -> None:
    """The catalog's archive is ahead of its read model for a moment."""
    after = await now(world)
    _, world.catalog.applied = await world.catalog.log.end()
    async with stream(world, after=after) as told:
        first = await world.catalog.rename("a")
        second = await world.catalog.rename("b")
        found = asyncio.create_task(told.names(2))
        world.catalog.applied = first.sequence

        async def shown() -> bool:
            return told.last_id.endswith(f".{first.sequence}")

        await eventually(shown)
        assert not found.done()
        world.catalog.applied = second.sequence
        assert await found == ["a", "b"]
