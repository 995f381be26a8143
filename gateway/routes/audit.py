"""Audit of the log: a signed head, and verification of the history."""

from litestar import get, post
from litestar.di import NamedDependency
from litestar.params import JSONBody

from contracts.audit import AuditHead, AuditReport
from contracts.queries import GetAuditHead, VerifyLog
from gateway.clients import CatalogClient
from gateway.http.problems import problem_responses
from gateway.http.request_context import MinSeq
from gateway.routes.bodies import VerifyBody


@get("/audit/head", responses=problem_responses())
async def audit_head(catalog: NamedDependency[CatalogClient], min_seq: MinSeq = 0) -> AuditHead:
    """The current head of the log: a hash over all of it, signed (Ed25519). Export it to verify the log later."""
    return await catalog.query(GetAuditHead(min_seq=min_seq))


@post("/audit/verify", status_code=200, responses=problem_responses(409, 415))
async def verify_log(catalog: NamedDependency[CatalogClient], data: JSONBody[VerifyBody | None] = None) -> AuditReport:
    """Recompute all hashes, compare the log with its archive commit by commit, and report any damage.

    With an exported head: also check that history up to it was not rewritten. 409 while a verification is running.
    """
    return await catalog.verify(VerifyLog(head=data.head if data else None))


ROUTES = [audit_head, verify_log]
