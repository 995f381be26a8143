"""Replays over HTTP: the report, a replay still running, and one at a time."""

import asyncio

import msgspec
import pytest

from contracts.audit import Difference, ReplayReport
from contracts.errors import Conflict
from contracts.queries.log import GetReplay, StartReplay
from gateway.limits import HttpLimits
from tests.gateway.conftest import Limits, World, eventually
from tests.gateway.test_http import P, assert_problem

pytestmark = pytest.mark.asyncio(loop_scope="module")
RUNNING = ReplayReport(state="running", sequence=5, until=10)
SAME = ReplayReport(state="same", sequence=10, until=10, rows={"image": 3})
DIFFERENT = ReplayReport(
    state="different", difference=Difference(table="image", key={"ordinal": 1}, live=None, replayed={"id": "img_1"})
)


@pytest.fixture(scope="module")
def limits() -> Limits:
    return Limits(http=HttpLimits(replay_poll=0.01))


async def test_the_report_is_returned_if_the_replay_ends_in_time(world: World) -> None:
    world.catalog.query_results |= {StartReplay: RUNNING, GetReplay: RUNNING}
    request = asyncio.create_task(world.client.post(f"{P}/audit/replay", params={"wait": 60}))

    async def is_polling() -> bool:
        return GetReplay in {type(query) for query in world.catalog.received_queries}

    await eventually(is_polling)
    assert not request.done()
    world.catalog.query_results[GetReplay] = DIFFERENT
    response = await request
    assert response.status_code == 200
    assert response.json() == msgspec.to_builtins(DIFFERENT)


async def test_a_longer_replay_continues_and_returns_its_location(world: World) -> None:
    world.catalog.query_results |= {StartReplay: RUNNING, GetReplay: RUNNING}
    response = await world.client.post(f"{P}/audit/replay", params={"wait": 0})
    assert (response.status_code, response.headers["location"]) == (202, f"{P}/audit/replay")
    assert response.json()["sequence"] == 5
    world.catalog.query_results[GetReplay] = SAME
    report = await world.client.get(response.headers["location"], params={"wait": 5})
    assert (report.status_code, report.json()["rows"]) == (200, {"image": 3})


async def test_a_second_replay_at_the_same_time_is_refused(world: World) -> None:
    world.catalog.query_results[StartReplay] = Conflict("the read models are being replayed already")
    assert_problem(await world.client.post(f"{P}/audit/replay"), 409, "conflict")
    assert_problem(await world.client.post(f"{P}/audit/replay", params={"wait": 301}), 400, "invalid")
