"""Lost blobs and keys: the list of them, and reading all stored bytes to find damaged ones."""

import asyncio
from typing import Annotated

from litestar import Response, get, post
from litestar.params import QueryParameter

from contracts.losses import BlobAudit, Loss
from contracts.queries.base import Page
from contracts.queries.losses import GetBlobAudit, ListLosses, StartBlobAudit
from gateway.clients import CatalogClient
from gateway.http.problems import problem_responses, response_spec
from gateway.http.responses import API_ROOT
from gateway.routes.shared import Catalog, Limits, Paging

Wait = Annotated[int, QueryParameter(ge=0, le=300, description="Maximum time to wait for the end, in seconds.")]


@get("/losses", responses=problem_responses())
async def list_losses(paging: Paging, catalog: Catalog) -> Response[Page[Loss]]:
    """Blobs, and keys of images, that should be stored and are missing."""
    return paging.response(await catalog.query(ListLosses(**paging.query_args)))


@post(
    "/audit/blobs",
    status_code=200,
    responses=response_spec(202, BlobAudit, "Still running; get the result with GET") | problem_responses(409, 415),
)
async def start_blob_audit(catalog: Catalog, limits: Limits, wait: Wait = 30) -> Response[BlobAudit]:
    """Read all stored blobs and compare their bytes with their digests; a damaged one is missing from then on.

    200 with the result, or 202 if it is still running after `wait` seconds; then GET returns it. 409 while one runs.
    """
    audit = await _wait_for_end(catalog, await catalog.query(StartBlobAudit()), wait, limits.replay_poll)
    is_running = audit.state == "running"
    headers = {"Location": f"{API_ROOT}/audit/blobs"} if is_running else {}
    return Response(audit, status_code=202 if is_running else 200, headers=headers)


@get("/audit/blobs", responses=problem_responses())
async def get_blob_audit(catalog: Catalog, limits: Limits, wait: Wait = 0) -> BlobAudit:
    """The reading of all blobs that is running, or the result of the last one since the catalog started."""
    return await _wait_for_end(catalog, await catalog.query(GetBlobAudit()), wait, limits.replay_poll)


async def _wait_for_end(catalog: CatalogClient, audit: BlobAudit, wait: int, poll: float) -> BlobAudit:
    """The audit at its end, or after `wait` seconds."""
    deadline = asyncio.get_running_loop().time() + wait
    while audit.state == "running" and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(poll)
        audit = await catalog.query(GetBlobAudit())
    return audit
