"""A replay, asked for over HTTP: its report, or that it goes on, and one at a time."""

import asyncio

import msgspec
import pytest

from contracts.audit import Difference, ReplayReport
from contracts.errors import Conflict
from contracts.queries import GetReplay, StartReplay
from gateway.routes import replays
from tests.gateway.conftest import World, eventually
from tests.gateway.test_http import P, assert_problem

RUNNING = ReplayReport(state="running", sequence=5, until=10)
SAME = ReplayReport(state="same", sequence=10, until=10, rows={"image": 3})
DIFFERENT = ReplayReport(
    state="different", difference=Difference(table="image", key={"ordinal": 1}, live=None, replayed={"id": "img_1"})
)


async def test_the_report_is_the_answer_when_it_is_over_in_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replays, "LOOK_SECONDS", 0.01)
    world.catalog.answers |= {StartReplay: RUNNING, GetReplay: RUNNING}
    asking = asyncio.create_task(world.client.post(f"{P}/audit/replay", params={"wait": 60}))

    async def waits() -> bool:
        return GetReplay in {type(query) for query in world.catalog.asked}

    await eventually(waits)
    assert not asking.done()
    world.catalog.answers[GetReplay] = DIFFERENT
    answer = await asking
    assert answer.status_code == 200
    assert answer.json() == msgspec.to_builtins(DIFFERENT)


async def test_what_takes_longer_goes_on_and_says_where_to_ask(world: World) -> None:
    world.catalog.answers |= {StartReplay: RUNNING, GetReplay: RUNNING}
    answer = await world.client.post(f"{P}/audit/replay", params={"wait": 0})
    assert (answer.status_code, answer.headers["location"]) == (202, f"{P}/audit/replay")
    assert answer.json()["sequence"] == 5
    world.catalog.answers[GetReplay] = SAME
    report = await world.client.get(answer.headers["location"], params={"wait": 5})
    assert (report.status_code, report.json()["rows"]) == (200, {"image": 3})


async def test_a_second_one_meanwhile_is_refused(world: World) -> None:
    world.catalog.answers[StartReplay] = Conflict("the read models are being replayed already")
    assert_problem(await world.client.post(f"{P}/audit/replay"), 409, "conflict")
    assert_problem(await world.client.post(f"{P}/audit/replay", params={"wait": 301}), 400, "invalid")
