"""Replays: do the catalog's read models still match the log?"""

import asyncio
from typing import Annotated

from litestar import Response, get, post
from litestar.di import NamedDependency
from litestar.params import QueryParameter

from contracts.audit import ReplayReport
from contracts.queries import GetReplay, StartReplay
from gateway.clients import CatalogClient
from gateway.http.problems import problem_responses, response_spec
from gateway.http.responses import API_ROOT

POLL_SECONDS = 0.25
Wait = Annotated[int, QueryParameter(ge=0, le=300, description="Maximum time to wait for the end, in seconds.")]


@post(
    "/audit/replay",
    status_code=200,
    responses={
        **response_spec(202, ReplayReport, "Still running; get the result with GET"),
        **problem_responses(409, 415),
    },
)
async def start_replay(catalog: NamedDependency[CatalogClient], wait: Wait = 30) -> Response[ReplayReport]:
    """Rebuild a copy of every read model from the archive, compare it with the live one, report the first difference.

    The live read models are not changed. 200 with the report, or 202 if it is still running after `wait` seconds; then
    GET returns the result. 409 while a replay is running.
    """
    return _response(await _wait_for_end(catalog, await catalog.query(StartReplay()), wait))


@get("/audit/replay", responses=problem_responses())
async def get_replay(catalog: NamedDependency[CatalogClient], wait: Wait = 0) -> ReplayReport:
    """The running replay, or the result of the last one since the catalog started."""
    return await _wait_for_end(catalog, await catalog.query(GetReplay()), wait)


async def _wait_for_end(catalog: CatalogClient, report: ReplayReport, wait: int) -> ReplayReport:
    """The report at the end of the replay, or after `wait` seconds."""
    deadline = asyncio.get_running_loop().time() + wait
    while report.state == "running" and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(POLL_SECONDS)
        report = await catalog.query(GetReplay())
    return report


def _response(report: ReplayReport) -> Response[ReplayReport]:
    is_running = report.state == "running"
    headers = {"Location": f"{API_ROOT}/audit/replay"} if is_running else {}
    return Response(report, status_code=202 if is_running else 200, headers=headers)


ROUTES = [start_replay, get_replay]
