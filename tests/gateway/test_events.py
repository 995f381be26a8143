"""Reading events: pages, lines, and streams that continue, miss nothing, repeat nothing and end."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import msgspec
import pytest
from litestar import Litestar, Request, Response, get

from contracts.errors import Unavailable
from contracts.events.jobs import JobEdited
from gateway.http import stall_timeout
from gateway.limits import LIVE_LIMITS, HttpLimits
from gateway.live.ring import EventRing
from tests.gateway.conftest import Limits, World, eventually
from tests.gateway.test_http import P, assert_problem
from tests.gateway.test_live import wait_until_released
from tests.limits import WAIT

SSE = {"Accept": "text/event-stream"}
MAX_STREAMS = 3


@pytest.fixture(scope="module")
def limits() -> Limits:
    return Limits(http=HttpLimits(event_streams=MAX_STREAMS, keepalive=0.2, catalog_retry=0.05))


class EventStream:
    """A stream of server-sent events, read as a browser reads it."""

    def __init__(self, response: httpx.Response) -> None:
        self.last_id = ""
        self._lines = response.aiter_lines()

    async def __anext__(self) -> dict[str, Any]:
        """The next event with data; an id alone only updates `last_id`."""
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

    def __aiter__(self) -> "EventStream":
        return self

    async def names(self, count: int) -> list[str]:
        return [(await anext(self))["data"]["name"] for _ in range(count)]


@asynccontextmanager
async def open_stream(world: World, headers: dict[str, str] | None = None, **params: Any) -> AsyncIterator[EventStream]:
    async with world.client.stream("GET", f"{P}/events", params=params, headers=SSE | (headers or {})) as response:
        assert response.status_code == 200, await response.aread()
        assert response.headers["content-type"].startswith("text/event-stream")
        yield EventStream(response)


async def head_cursor(world: World) -> str:
    return str((await world.client.get(f"{P}/events", params={"limit": 1})).json()["head"])


@pytest.mark.asyncio(loop_scope="module")
async def test_a_stream_sends_past_events_and_continues_with_new_ones(world: World) -> None:
    after = await head_cursor(world)
    for name in ("a", "b"):
        await world.catalog.rename(name)
    async with open_stream(world, after=after) as events:
        assert await events.names(2) == ["a", "b"]
        await world.catalog.rename("c")
        assert await events.names(1) == ["c"]


@pytest.mark.asyncio(loop_scope="module")
async def test_a_client_that_reconnects_with_the_last_id_misses_and_repeats_nothing(world: World) -> None:
    after = await head_cursor(world)
    async with open_stream(world, after=after) as events:
        await world.catalog.rename("a")
        assert await events.names(1) == ["a"]
        last = events.last_id
    for name in ("b", "c"):
        await world.catalog.rename(name)
    async with open_stream(world, {"Last-Event-ID": last}, after=after) as events:
        assert await events.names(2) == ["b", "c"]


@pytest.mark.asyncio(loop_scope="module")
async def test_a_client_that_reconnects_while_a_new_gateway_still_reads_the_log_misses_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    after = await head_cursor(world)
    await world.catalog.rename("a")
    recorded = await world.catalog.rename("b")
    await wait_until_released(world, recorded.sequence)
    read = world.feed.ring.after(world.feed.received(after)) or []
    catching_up = EventRing(LIVE_LIMITS, oldest=world.feed.received(after), newest=world.feed.ring.newest)
    monkeypatch.setattr(world.feed.reader, "ring", catching_up)
    async with open_stream(world, after=after) as events:
        subscribers = world.feed.subscribers
        subscribers.wake()

        async def have_looked() -> bool:
            return bool(subscribers) and not any(subscriber.wake.is_set() for subscriber in subscribers)

        await eventually(have_looked)
        for event in read:
            catching_up.append(event)
        subscribers.wake()
        assert await events.names(2) == ["a", "b"]


@pytest.mark.asyncio(loop_scope="module")
async def test_a_page_lines_and_a_stream_have_the_same_events(world: World) -> None:
    for number in range(5):
        await world.catalog.rename(f"name {number}")
        await world.catalog.append("job_1", JobEdited(name=f"job {number}"))
    params: dict[str, Any] = {"aggregate_kind": "dataset", "limit": 5}
    page = (await world.client.get(f"{P}/events", params=params)).json()["items"]
    lines = await world.client.get(f"{P}/events", params=params, headers={"Accept": "application/x-ndjson"})
    async with open_stream(world, **params) as events:
        streamed = [event async for event in events]
    assert len(page) == 5
    assert page == streamed == [msgspec.json.decode(line) for line in lines.text.splitlines()]


@pytest.mark.asyncio(loop_scope="module")
async def test_a_stream_sends_only_matching_events_and_its_current_position(world: World) -> None:
    after = await head_cursor(world)
    async with open_stream(world, after=after, aggregate_id="job_1", type="job.edited", actor="user:test") as events:
        recorded = await world.catalog.rename("does not match")
        matching = asyncio.create_task(anext(events))

        async def has_advanced() -> bool:
            return events.last_id.endswith(f".{recorded.sequence}")

        await eventually(has_advanced)
        query_count = len(world.catalog.received_queries)
        await world.catalog.append("job_1", JobEdited(name="matches"))
        assert (await matching)["data"]["name"] == "matches"
        assert len(world.catalog.received_queries) == query_count + 1  # no query for events that cannot match


@pytest.mark.asyncio(loop_scope="module")
async def test_the_filters_reach_the_catalog(world: World) -> None:
    params = {
        "aggregate_kind": "job",
        "aggregate_id": "job_1",
        "type": "job.*",
        "actor": "svc:trainer/*",
        "from": "2026-01-02T03:04:05Z",
        "until": "2026-01-03T00:00:00+01:00",
    }
    assert (await world.client.get(f"{P}/events", params=params)).status_code == 200
    query = msgspec.to_builtins(world.catalog.received_queries[-1])
    assert query["since"] == "2026-01-02T03:04:05Z"
    assert msgspec.json.decode(f'"{query["until"]}"', type=datetime) == datetime(2026, 1, 2, 23, tzinfo=UTC)
    for name in ("aggregate_kind", "aggregate_id", "type", "actor"):
        assert query[name] == params[name]


@pytest.mark.asyncio(loop_scope="module")
async def test_an_invalid_filter_is_refused(world: World) -> None:
    for params in ({"aggregate_kind": "picture"}, {"from": "2026-01-02T03:04:05"}, {"until": "soon"}, {"limit": 0}):
        assert_problem(await world.client.get(f"{P}/events", params=params), 400, "invalid")
    gone = await world.client.get(f"{P}/events", headers=SSE | {"Last-Event-ID": "OTHERLOG.5"})
    assert_problem(gone, 410, "gone")
    assert_problem(await world.client.get(f"{P}/events", headers=SSE, params={"after": "x"}), 400, "invalid")


@pytest.mark.asyncio(loop_scope="module")
async def test_a_stream_ends_at_its_until_time(world: World) -> None:
    renamed = await world.catalog.rename("a")

    async def is_released() -> bool:
        return world.feed.ring.filled_to.sequence >= renamed.sequence

    await eventually(is_released)
    until = datetime.now(UTC) + timedelta(seconds=0.3)
    async with open_stream(world, until=until.isoformat()) as events:
        types = [event["type"] async for event in events]
    assert types[-1] == "dataset.renamed"
    assert datetime.now(UTC) >= until


@pytest.mark.asyncio(loop_scope="module")
async def test_a_stream_loses_nothing_while_the_catalog_is_unavailable(world: World) -> None:
    after = await head_cursor(world)
    async with open_stream(world, after=after) as events:
        world.catalog.fault = Unavailable("it is being restarted")
        await world.catalog.rename("a")
        names = asyncio.create_task(events.names(1))

        async def has_failed_twice() -> bool:
            return world.catalog.fault_count > 1

        await eventually(has_failed_twice)
        world.catalog.fault = None
        assert await names == ["a"]


@pytest.mark.asyncio(loop_scope="module")
async def test_a_gateway_that_stops_ends_its_streams(world: World) -> None:
    async with open_stream(world, after=await head_cursor(world)) as events:
        world.feed.close_for_restart()
        assert [event async for event in events] == []
    assert world.feed.open_streams == 0


@pytest.mark.asyncio(loop_scope="module")
async def test_the_number_of_open_streams_is_limited(world: World) -> None:
    async def are_closed() -> bool:
        return world.feed.open_streams == 0

    await eventually(are_closed)
    after = await head_cursor(world)
    async with AsyncExitStack() as stack:
        for _ in range(MAX_STREAMS):
            events = await stack.enter_async_context(open_stream(world, after=after))
        await world.catalog.rename("a")
        await events.names(1)
        assert_problem(await world.client.get(f"{P}/events", headers=SSE), 503, "unavailable")

    await eventually(are_closed)
    async with open_stream(world, after=after) as events:
        assert await events.names(1) == ["a"]


@pytest.mark.asyncio(loop_scope="module")
async def test_a_client_that_stops_reading_is_disconnected() -> None:
    closed = asyncio.Event()

    async def endless() -> AsyncGenerator[bytes, None]:
        try:
            while True:
                yield b"more"
        finally:
            closed.set()

    @get("/")
    async def stream_without_end(request: Request[Any, Any, Any]) -> Response[Any]:
        return stall_timeout.stream_response(request, endless(), "text/plain")

    async def never() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            await never()

    app = Litestar([stream_without_end], openapi_config=None, logging_config=None)
    scope: dict[str, Any] = {
        "type": "http",
        "method": "GET",
        "path": "/",
        "raw_path": b"/",
        "query_string": b"",
        "headers": [],
    }
    scope |= {"scheme": "http", "root_path": "", "http_version": "1.1", "client": None, "server": None, "asgi": {}}
    async with asyncio.timeout(WAIT):
        await stall_timeout.with_stall_timeout(app, 0.05)(scope, never, send)  # type: ignore[arg-type]  # a minimal scope
    assert closed.is_set()


@pytest.mark.asyncio(loop_scope="module")
async def test_no_event_is_sent_before_queries_show_it(world: World) -> None:
    """The catalog's archive can be ahead of its read model for a moment."""
    after = await head_cursor(world)
    _, world.catalog.applied = await world.catalog.log.end()
    async with open_stream(world, after=after) as events:
        first = await world.catalog.rename("a")
        second = await world.catalog.rename("b")
        names = asyncio.create_task(events.names(2))
        world.catalog.applied = first.sequence

        async def first_was_sent() -> bool:
            return events.last_id.endswith(f".{first.sequence}")

        await eventually(first_was_sent)
        assert not names.done()
        world.catalog.applied = second.sequence
        assert await names == ["a", "b"]
