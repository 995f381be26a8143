"""Audit: a signed head of the log, verification of its history, and replays that compare the read models with it."""

import asyncio
from typing import Annotated

from litestar import Response, get, post
from litestar.params import JSONBody, QueryParameter

from contracts.audit import AuditHead, AuditReport, ReplayReport
from contracts.queries.base import Page
from contracts.queries.log import ForeignView, GetAuditHead, GetReplay, ListForeign, StartReplay, VerifyLog
from gateway.clients import CatalogClient
from gateway.http.problems import problem_responses, response_spec
from gateway.http.request_context import MinSeq
from gateway.http.responses import API_ROOT
from gateway.routes.shared import Body, Catalog, Limits

ForeignAfter = Annotated[int, QueryParameter(ge=0, description="The sequence after which to list.")]
ForeignLimit = Annotated[int, QueryParameter(ge=1, le=500, description="Maximum number of messages.")]
Wait = Annotated[int, QueryParameter(ge=0, le=300, description="Maximum time to wait for the end, in seconds.")]


class VerifyBody(Body, frozen=True):
    """`head`: an exported audit head; history up to it must not have been rewritten since."""

    head: AuditHead | None = None


@get("/audit/head", responses=problem_responses())
async def audit_head(catalog: Catalog, min_seq: MinSeq = 0) -> AuditHead:
    """The current head of the log: a hash over all of it, signed (Ed25519). Export it to verify the log later."""
    return await catalog.query(GetAuditHead(min_seq=min_seq))


@post("/audit/verify", status_code=200, responses=problem_responses(409, 415))
async def verify_log(catalog: Catalog, data: JSONBody[VerifyBody | None] = None) -> AuditReport:
    """Recompute all hashes, compare the log with its archive commit by commit, and report any damage.

    With an exported head: also check that history up to it was not rewritten. 409 while a verification is running.
    """
    return await catalog.verify(VerifyLog(head=data.head if data else None))


@get("/audit/foreign", responses=problem_responses())
async def list_foreign(
    catalog: Catalog, after: ForeignAfter = 0, limit: ForeignLimit = 100, min_seq: MinSeq = 0
) -> Page[ForeignView]:
    """Messages of the log that no known writer appended, oldest first. They changed nothing."""
    return await catalog.query(ListForeign(after=after, limit=limit, min_seq=min_seq))


@post(
    "/audit/replay",
    status_code=200,
    responses=response_spec(202, ReplayReport, "Still running; get the result with GET") | problem_responses(409, 415),
)
async def start_replay(catalog: Catalog, limits: Limits, wait: Wait = 30) -> Response[ReplayReport]:
    """Rebuild a copy of every read model from the archive, compare it with the live one, report the first difference.

    The live read models are not changed. 200 with the report, or 202 if it is still running after `wait` seconds; then
    GET returns the result. 409 while a replay is running.
    """
    return _response(await _wait_for_end(catalog, await catalog.query(StartReplay()), wait, limits.replay_poll))


@get("/audit/replay", responses=problem_responses())
async def get_replay(catalog: Catalog, limits: Limits, wait: Wait = 0) -> ReplayReport:
    """The running replay, or the result of the last one since the catalog started."""
    return await _wait_for_end(catalog, await catalog.query(GetReplay()), wait, limits.replay_poll)


async def _wait_for_end(catalog: CatalogClient, report: ReplayReport, wait: int, poll: float) -> ReplayReport:
    """The report at the end of the replay, or after `wait` seconds."""
    deadline = asyncio.get_running_loop().time() + wait
    while report.state == "running" and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(poll)
        report = await catalog.query(GetReplay())
    return report


def _response(report: ReplayReport) -> Response[ReplayReport]:
    is_running = report.state == "running"
    headers = {"Location": f"{API_ROOT}/audit/replay"} if is_running else {}
    return Response(report, status_code=202 if is_running else 200, headers=headers)
