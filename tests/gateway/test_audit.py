"""The routes of the audit: on the real catalog, and with answers that a healthy one does not give."""

import httpx
import msgspec

from contracts.audit import AuditHead, AuditReport, Damage
from contracts.errors import Conflict
from contracts.ids import Digest
from contracts.queries import GetAuditHead, VerifyLog
from contracts.telemetry import Applied
from contracts.wire.telling import tell_applied
from tests.gateway.conftest import World, eventually
from tests.gateway.stand_in import AT
from tests.gateway.test_http import assert_problem

P = "/api/v1/audit"


def test_a_whole_history_is_verified_with_and_without_a_head(address: str) -> None:
    with httpx.Client(base_url=address, timeout=60) as client:
        client.post("/api/v1/datasets", json={"name": "audited"}).raise_for_status()
        head = client.get(f"{P}/head").raise_for_status().json()
        later = client.post("/api/v1/datasets", json={"name": "audited later"}).raise_for_status()
        written = int(later.headers["loratory-seq"])
        assert client.get(f"{P}/head", params={"min_seq": written}).json()["sequence"] >= written

        for asked in ({}, {"json": {}}, {"json": {"head": head}}):
            answer = client.post(f"{P}/verify", **asked)
            report = msgspec.json.decode(answer.raise_for_status().content, type=AuditReport)
            assert report.whole
            assert report.commits == report.compared >= written

        forged = client.post(f"{P}/verify", json={"head": {**head, "sequence": head["sequence"] - 1}}).json()
        assert [(one["where"], one["kind"]) for one in forged["damage"]] == [("head", "changed")]


async def test_what_is_no_head_is_refused(world: World) -> None:
    for head in ({"sequence": 1}, {"log_id": "L", "sequence": "one"}, 7):
        assert_problem(await world.client.post(f"{P}/verify", json={"head": head}), 400, "invalid")
    assert_problem(await world.client.post(f"{P}/verify", json={"nonsense": 1}), 400, "invalid")


async def test_damage_is_an_answer_not_an_error(world: World) -> None:
    damage = Damage(where="log", kind="missing", first_bad=7, missing=2, detail="commit 7 is not in the log", since=AT)
    world.catalog.answers[VerifyLog] = AuditReport(
        log_id="L",
        commits=8,
        things=2,
        compared=6,
        chain=Digest("0" * 64),
        damage=(damage,),
        archive_seconds=0.1,
        log_seconds=0.2,
    )
    answer = await world.client.post(f"{P}/verify")
    assert answer.status_code == 200
    assert answer.json()["damage"] == [msgspec.to_builtins(damage)]


async def test_a_second_audit_is_told_to_wait(world: World) -> None:
    world.catalog.answers[VerifyLog] = Conflict("the log is being verified already; ask again when that is over")
    assert_problem(await world.client.post(f"{P}/verify"), 409, "conflict")


async def test_the_head_is_told_as_it_was_signed(world: World) -> None:
    head = AuditHead(log_id="L", sequence=3, chain=Digest("ab" * 32), at=AT, public_key="00", signature="11")
    world.catalog.answers[GetAuditHead] = head
    answer = await world.client.get(f"{P}/head")
    assert msgspec.json.decode(answer.content, type=AuditHead) == head


async def test_a_damaged_log_is_said_to_be_the_reason_when_the_catalog_ends_by_it(world: World) -> None:
    world.catalog.silent = True
    said = Applied(log_id="", sequence=0, verified=False, damage="commit 7 is not in the log")
    await tell_applied(world.admin, said)

    async def told() -> bool:
        services = {one["service"]: one for one in (await world.client.get("/health")).json()["services"]}
        return services["log"] == {"status": "unhealthy", "service": "log", "detail": said.damage}

    await eventually(told)
    assert (await world.client.get("/health/ready")).status_code == 503
