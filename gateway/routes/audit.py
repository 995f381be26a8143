"""The log's soundness: where history ends, signed, and whether it is what it was."""

from litestar import get, post
from litestar.di import NamedDependency
from litestar.params import JSONBody

from contracts.audit import AuditHead, AuditReport
from contracts.queries import GetAuditHead, VerifyLog
from gateway.http.asking import MinSeq
from gateway.http.problems import problems
from gateway.owners import Catalog
from gateway.routes.bodies import VerifyBody


@get("/audit/head", responses=problems())
async def audit_head(catalog: NamedDependency[Catalog], min_seq: MinSeq = 0) -> AuditHead:
    """Where the log ends now: a hash over all of it, signed (Ed25519). Kept elsewhere, it is a witness for later."""
    return await catalog.ask(GetAuditHead(min_seq=min_seq))


@post("/audit/verify", status_code=200, responses=problems(409, 415))
async def verify_log(catalog: NamedDependency[Catalog], data: JSONBody[VerifyBody | None] = None) -> AuditReport:
    """Compute all hashes again, lay the log beside its archive commit by commit, and say what is wrong, if anything.

    With a head that was exported before: was anything up to it rewritten since? 409 while another one is under way.
    """
    return await catalog.verify(VerifyLog(head=data.head if data else None))


ROUTES = [audit_head, verify_log]
