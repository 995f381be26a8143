"""Replays: is what the catalog shows still what the log says?"""

import asyncio
from typing import Annotated

from litestar import Response, get, post
from litestar.di import NamedDependency
from litestar.params import QueryParameter

from contracts.audit import ReplayReport
from contracts.queries import GetReplay, StartReplay
from gateway.http.answers import ROOT
from gateway.http.problems import also, problems
from gateway.owners import Catalog

LOOK_SECONDS = 0.25
Wait = Annotated[
    int, QueryParameter(ge=0, le=300, description="Answer after so many seconds at the latest, with how far it is.")
]


@post(
    "/audit/replay",
    status_code=200,
    responses={**also(202, ReplayReport, "It goes on; ask again with GET"), **problems(409, 415)},
)
async def start_replay(catalog: NamedDependency[Catalog], wait: Wait = 30) -> Response[ReplayReport]:
    """Make every read model anew from the archive beside the live one, compare them, and name the first difference.

    Nothing live is touched. 200 with the report, or 202 when it is not over after `wait` seconds; it goes on, and GET
    tells of it. 409 while one is under way.
    """
    return _answer(await _ended(catalog, await catalog.ask(StartReplay()), wait))


@get("/audit/replay", responses=problems())
async def get_replay(catalog: NamedDependency[Catalog], wait: Wait = 0) -> ReplayReport:
    """The replay under way, or what came of the last one since the catalog started."""
    return await _ended(catalog, await catalog.ask(GetReplay()), wait)


async def _ended(catalog: Catalog, report: ReplayReport, wait: int) -> ReplayReport:
    """The report when it is over, or what it says after so many seconds."""
    until = asyncio.get_running_loop().time() + wait
    while report.state == "running" and asyncio.get_running_loop().time() < until:
        await asyncio.sleep(LOOK_SECONDS)
        report = await catalog.ask(GetReplay())
    return report


def _answer(report: ReplayReport) -> Response[ReplayReport]:
    goes_on = report.state == "running"
    headers = {"Location": f"{ROOT}/audit/replay"} if goes_on else {}
    return Response(report, status_code=202 if goes_on else 200, headers=headers)


ROUTES = [start_replay, get_replay]
