"""The audit routes: with the real catalog, and with results that a healthy one does not return."""

from typing import Any

import httpx
import msgspec
import pytest

from contracts.audit import AuditHead, AuditReport, Damage
from contracts.errors import Conflict
from contracts.ids import Digest
from contracts.losses import BlobAudit, Loss, LossReport
from contracts.queries.base import Page
from contracts.queries.log import GetAuditHead, VerifyLog
from contracts.queries.losses import GetBlobAudit, ListLosses, StartBlobAudit
from contracts.telemetry import Applied, LossesFound
from contracts.wire.service.telemetry import publish
from tests.gateway.conftest import World, eventually
from tests.gateway.fake_catalog import AT
from tests.gateway.test_http import assert_problem

P = "/api/v1/audit"
LOSS = Loss(kind="picture", id="0" * 64, owner="img_1")


@pytest.mark.slow
def test_an_intact_log_is_verified_with_and_without_a_head(address: str) -> None:
    with httpx.Client(base_url=address, timeout=60) as client:
        client.post("/api/v1/datasets", json={"name": "audited"}).raise_for_status()
        head = client.get(f"{P}/head").raise_for_status().json()
        later = client.post("/api/v1/datasets", json={"name": "audited later"}).raise_for_status()
        written = int(later.headers["loratory-seq"])
        assert client.get(f"{P}/head", params={"min_seq": written}).json()["sequence"] >= written

        requests: tuple[dict[str, Any], ...] = ({}, {"json": {}}, {"json": {"head": head}})
        for request in requests:
            response = client.post(f"{P}/verify", **request)
            report = msgspec.json.decode(response.raise_for_status().content, type=AuditReport)
            assert report.is_intact
            assert report.commits == report.compared >= written

        forged = client.post(f"{P}/verify", json={"head": {**head, "sequence": head["sequence"] - 1}}).json()
        assert [(one["where"], one["kind"]) for one in forged["damage"]] == [("head", "changed")]


@pytest.mark.asyncio(loop_scope="module")
async def test_an_invalid_head_is_refused(world: World) -> None:
    for head in ({"sequence": 1}, {"log_id": "L", "sequence": "one"}, 7):
        assert_problem(await world.client.post(f"{P}/verify", json={"head": head}), 400, "invalid")
    assert_problem(await world.client.post(f"{P}/verify", json={"nonsense": 1}), 400, "invalid")


@pytest.mark.asyncio(loop_scope="module")
async def test_damage_is_reported_as_a_result_not_an_error(world: World) -> None:
    damage = Damage(where="log", kind="missing", first_bad=7, missing=2, detail="commit 7 is not in the log", since=AT)
    world.catalog.query_results[VerifyLog] = AuditReport(
        log_id="L",
        commits=8,
        aggregates=2,
        foreign=0,
        signature_seconds=0.1,
        compared=6,
        chain=Digest("0" * 64),
        damage=(damage,),
        archive_seconds=0.1,
        log_seconds=0.2,
    )
    response = await world.client.post(f"{P}/verify")
    assert response.status_code == 200
    assert response.json()["damage"] == [msgspec.to_builtins(damage)]


@pytest.mark.asyncio(loop_scope="module")
async def test_a_second_verification_at_the_same_time_is_a_conflict(world: World) -> None:
    world.catalog.query_results[VerifyLog] = Conflict("the log is being verified already; ask again when that is over")
    assert_problem(await world.client.post(f"{P}/verify"), 409, "conflict")


@pytest.mark.asyncio(loop_scope="module")
async def test_the_head_is_returned_as_it_was_signed(world: World) -> None:
    head = AuditHead(log_id="L", sequence=3, chain=Digest("ab" * 32), at=AT, public_key="00", signature="11")
    world.catalog.query_results[GetAuditHead] = head
    response = await world.client.get(f"{P}/head")
    assert msgspec.json.decode(response.content, type=AuditHead) == head


@pytest.mark.asyncio(loop_scope="module")
async def test_health_reports_the_damage_for_which_the_catalog_stopped(world: World) -> None:
    world.catalog.is_silent = True
    announced = Applied(log_id="", sequence=0, verified=False, damage="commit 7 is not in the log")
    await publish(world.catalog.bus, announced)

    async def is_reported() -> bool:
        services = {one["service"]: one for one in (await world.client.get("/health")).json()["services"]}
        return bool(services["log"] == {"status": "unhealthy", "service": "log", "detail": announced.damage})

    await eventually(is_reported)
    assert (await world.client.get("/health/ready")).status_code == 503


@pytest.mark.asyncio(loop_scope="module")
async def test_missing_bytes_make_it_degraded_but_ready(world: World) -> None:
    losses = LossReport(checked_at=AT, blobs=9, keys=3, counts={"picture": 2, "key": 1}, first=(LOSS,))

    async def status() -> str:
        return str((await world.client.get("/health/ready")).json()["status"])

    async def is_well() -> bool:
        return await status() == "ready"

    async def is_degraded() -> bool:
        return await status() == "degraded"

    await eventually(is_well)
    await publish(world.catalog.bus, LossesFound(report=losses))
    await eventually(is_degraded)
    response = await world.client.get("/health/ready")
    assert response.status_code == 200
    ready = response.json()
    assert ready["ready"]
    assert msgspec.convert(ready["losses"], LossReport) == losses
    health = (await world.client.get("/health")).json()
    assert health["status"] == "degraded"
    assert {"status": "unhealthy", "service": "storage", "detail": losses.describe()} in health["services"]

    await publish(world.catalog.bus, LossesFound(report=LossReport(checked_at=AT, blobs=9, keys=3)))
    await eventually(is_well)


@pytest.mark.asyncio(loop_scope="module")
async def test_losses_are_listed_page_by_page(world: World) -> None:
    world.catalog.query_results[ListLosses] = Page(items=(LOSS,), total=2, next="1")
    response = await world.client.get("/api/v1/losses", params={"limit": 1})
    assert response.json() == {"items": [msgspec.to_builtins(LOSS)], "total": 2, "next": "1"}
    assert world.catalog.received_queries[-1] == ListLosses(limit=1)


@pytest.mark.asyncio(loop_scope="module")
async def test_reading_all_blobs_is_waited_for_or_asked_for_later(world: World) -> None:
    running, ended = BlobAudit(state="running", read=3), BlobAudit(state="ended", read=9, damaged=1)
    world.catalog.query_results |= {StartBlobAudit: running, GetBlobAudit: running}
    response = await world.client.post(f"{P}/blobs", params={"wait": 0})
    assert (response.status_code, response.headers["location"]) == (202, f"{P}/blobs")
    world.catalog.query_results[GetBlobAudit] = ended
    for answer in (await world.client.post(f"{P}/blobs"), await world.client.get(f"{P}/blobs", params={"wait": 5})):
        assert (answer.status_code, msgspec.json.decode(answer.content, type=BlobAudit)) == (200, ended)
    world.catalog.query_results[StartBlobAudit] = Conflict("the blobs are being read already")
    assert_problem(await world.client.post(f"{P}/blobs"), 409, "conflict")
