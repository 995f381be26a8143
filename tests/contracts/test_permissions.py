"""The table of accounts, and the wire as the services use it, each with its own key: what they need goes through."""

import subprocess
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path

import msgspec
import pytest
from nats.aio.msg import Msg

from contracts import subjects
from contracts.aggregates import REGISTRY
from contracts.commands.base import CommandMetadata
from contracts.commits import StreamRevision, build_commit
from contracts.events.jobs import JobQueued
from contracts.ids import CommandId, JobId, WorkerId
from contracts.telemetry import TELEMETRY, Applied, ImagesErased, LossBlock, Presence, TrainingProgress
from contracts.wire.log.event_log import EventLog
from contracts.wire.log.lease import Lease
from contracts.wire.log.streams import stream_configs
from contracts.wire.server import secret_files
from contracts.wire.server.accounts import ROLES, SERVICES, STORE, permissions, shares
from contracts.wire.server.binary import find_binary
from contracts.wire.service.bus import Bus
from contracts.wire.service.telemetry import publish, read_loss_curve, store_loss_block, subscribe, wake
from contracts.wire.workers.queue import QueueMessage, WorkQueue
from loratory.deploy import nats_conf
from tests.conftest import BusOf
from tests.limits import WAIT

NOW = datetime(2026, 11, 21, tzinfo=UTC)


def overlap(one: str, other: str) -> bool:
    """Whether a subject can match both patterns."""
    ones, others = one.split("."), other.split(".")
    for left, right in zip(ones, others, strict=False):
        if ">" in {left, right}:
            return True
        if "*" not in {left, right} and left != right:
            return False
    return len(ones) == len(others)


async def test_a_job_is_processed_with_every_service_as_its_own_user(bus_of: BusOf) -> None:
    catalog, trainer, gateway = await bus_of("catalog"), await bus_of("trainer"), await bus_of("gateway")
    metadata = CommandMetadata(command_id=CommandId("c1"), actor="user:test", at=NOW)
    commit = build_commit(
        "job", "j1", [JobQueued(priority="high")], expected_revision=StreamRevision(), metadata=metadata
    )
    queued = await EventLog(catalog).append(commit, StreamRevision())
    await WorkQueue(catalog, "train").put(QueueMessage(id="j1", dispatch=queued.sequence), "normal")
    await WorkQueue(catalog, "train").put(QueueMessage(id="j1", dispatch=queued.sequence + 1), "normal")
    await WorkQueue(catalog, "train").put(QueueMessage(id="j2", dispatch=queued.sequence), "low")
    assert await WorkQueue(catalog, "train").queued_ids() == {"j1", "j2"}

    delivery = await WorkQueue(trainer, "train").fetch()
    assert delivery is not None and delivery.message.id == "j1"
    await delivery.extend()
    block = LossBlock(job_id=JobId("j1"), attempt=1, first=1, losses=(0.5,), rates=(1e-4,))
    await store_loss_block(trainer, block)
    assert await read_loss_curve(gateway, JobId("j1")) == [block]
    assert await read_loss_curve(catalog, JobId("j1")) == [block]
    await delivery.nak()
    again = await WorkQueue(trainer, "train").fetch()
    assert again is not None and again.message.id == "j1"
    await again.ack()
    await WorkQueue(catalog, "train").remove("j2")
    assert await WorkQueue(trainer, "train").fetch() is None
    await expect_no_refusal(catalog, trainer, gateway)


async def test_every_service_reads_the_log_and_each_appends_what_is_its_own(bus_of: BusOf) -> None:
    buses = [await bus_of(role) for role in ROLES]
    for bus in buses:
        log_id, last = await EventLog(bus).end()
        created = await EventLog(bus).commit_at(1)
        assert created is not None and (created.commit.aggregate_id, last) == (log_id, 1)
    await expect_no_refusal(*buses)


async def test_the_catalog_holds_the_lease(bus_of: BusOf) -> None:
    catalog = await bus_of("catalog")
    lease = Lease(catalog)
    await lease.acquire()
    assert lease.is_held
    await expect_no_refusal(catalog)


async def test_messages_arrive_at_those_who_receive_them(bus_of: BusOf) -> None:
    catalog, trainer, gateway = await bus_of("catalog"), await bus_of("trainer"), await bus_of("gateway")
    received: list[tuple[str, msgspec.Struct]] = []

    async def listen(bus: Bus, kind: type[Presence | TrainingProgress | Applied | ImagesErased]) -> None:
        async def note(message: msgspec.Struct) -> None:
            received.append((bus.role, message))

        await subscribe(bus, kind, note)

    for bus, kinds in (
        (catalog, (Presence, TrainingProgress)),
        (gateway, (Presence, TrainingProgress, Applied)),
        (trainer, (Applied, ImagesErased)),
    ):
        for kind in kinds:
            await listen(bus, kind)
    woken = await trainer.subscribe(subjects.wake("train", "*"))
    for bus in (catalog, trainer, gateway):
        await bus.flush()

    presence = Presence(service="trainer", worker=WorkerId("w"), state="idle", at=NOW)
    progress = TrainingProgress(job_id=JobId("j1"), attempt=1, phase="training", at=NOW)
    applied = Applied(log_id="l", sequence=1, verified=True)
    for message in (presence, progress):
        await publish(trainer, message)
    for news in (applied, ImagesErased()):
        await publish(catalog, news)
    for bus in (catalog, gateway):
        await wake(bus, "train", "j1")
        assert (await woken.next_msg(timeout=WAIT)).subject == "ctl.train.j1"
    for bus in (trainer, catalog, gateway):
        await bus.flush()
        await bus.flush()  # delivered to the others as well: their own replies come after it
    expected: list[tuple[str, msgspec.Struct]] = [
        (role, message) for role in ("catalog", "gateway") for message in (presence, progress)
    ]
    expected += [("gateway", applied), ("trainer", applied), ("trainer", ImagesErased())]
    assert sorted(received, key=repr) == sorted(expected, key=repr)
    await expect_no_refusal(catalog, trainer, gateway)


@pytest.mark.parametrize("service", ["tagger", "trainer"])
async def test_a_worker_registers_its_key_with_the_catalog_and_nobody_elses(bus_of: BusOf, service: str) -> None:
    catalog, worker = await bus_of("catalog"), await bus_of(service)  # type: ignore[arg-type]  # of the parameters
    other = "tagger" if service == "trainer" else "trainer"
    await worker.publish(subjects.service_key(other), b"mine")
    await worker.flush()
    assert worker.error_counts["not_permitted"] == 1

    async def register(request: Msg) -> None:
        await request.respond(b"registered")

    await catalog.subscribe(subjects.service_key(service), cb=register)
    await catalog.flush()
    reply = await worker.request(subjects.service_key(service), b"key", timeout=WAIT)
    assert reply.data == b"registered"


async def expect_no_refusal(*buses: Bus) -> None:
    for bus in buses:
        await bus.flush()
    assert {bus.role: dict(bus.error_counts) for bus in buses if bus.error_counts} == {}


def test_services_send_only_requests_to_jetstream_that_change_no_stream_or_consumer() -> None:
    allowed = {"STREAM.INFO", "STREAM.MSG.GET", "DIRECT.GET", "CONSUMER.MSG.NEXT", "STREAM.PURGE"}
    for share in shares():
        if share.subject.startswith(f"{subjects.STORE_API}."):
            request = share.subject.removeprefix(f"{subjects.STORE_API}.")
            assert any(request.startswith(f"{verb}.") for verb in allowed), share
            assert share.kind == "service"
            assert not set(share.subject) & set("*>"), share
            assert share.local_subject == f"log.api.{request}"
    purging = [share for share in shares() if ".PURGE." in share.subject]
    assert [(share.subject, share.consumers) for share in purging] == [("$JS.API.STREAM.PURGE.JOBS", ("catalog",))]


def test_nothing_that_a_stream_stores_comes_by_a_stream_import() -> None:
    stored = [subject for config in stream_configs() for subject in config.subjects or []]
    assert stored
    imported = [share.subject for share in shares() if share.kind == "stream"]
    assert [(one, other) for one in imported for other in stored if overlap(one, other)] == []
    services = [share for share in shares() if share.kind == "service"]
    assert all(
        share.provider == STORE for share in services if any(overlap(share.subject, subject) for subject in stored)
    )


def test_no_two_exports_of_an_account_overlap() -> None:
    for one, other in combinations(shares(), 2):
        assert one.provider != other.provider or not overlap(one.subject, other.subject), (one, other)


def test_a_worker_fetches_its_own_work_and_nobody_answers_for_another() -> None:
    allowed = {role: permissions(role) for role in ROLES}
    assert not any("tag-" in subject for subject in allowed["trainer"].publish)
    assert not any("train-" in subject for subject in allowed["tagger"].publish)
    assert {role for role in SERVICES if "_R_.>" in allowed[role].publish} == {kind.owner for kind in REGISTRY.kinds}
    for role in SERVICES:
        assert not any(subject.startswith("evt.log") for subject in allowed[role].publish)
        inboxes = [subject for subject in allowed[role].subscribe if subject.startswith("_INBOX")]
        assert inboxes == [f"_INBOX_{role}.>"]


def test_each_message_is_published_by_its_publishers_alone() -> None:
    for kind in TELEMETRY:
        for role in SERVICES:
            subject = kind.pattern(service=role)
            assert (subject in permissions(role).publish) == (role in kind.publishers), (kind, role)


def test_the_configuration_for_containers_includes_the_users_of_each_account(tmp_path: Path) -> None:
    (tmp_path / "nats.conf").write_text(nats_conf().replace("/data/nats", str(tmp_path / "data")))
    check = [str(find_binary()), "-t", "-c", str(tmp_path / "nats.conf")]
    refused = subprocess.run(check, capture_output=True, check=False)
    assert refused.returncode != 0
    assert b"users/admin.conf" in refused.stderr
    secret_files.write_secrets(tmp_path)
    assert subprocess.run(check, capture_output=True, check=False).returncode == 0


def test_nobody_may_answer_what_it_was_not_asked() -> None:
    assert "allow_responses" not in nats_conf()
