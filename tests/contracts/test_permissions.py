"""The wire as the services use it, each as its own user: least privilege must not prevent their work."""

import asyncio
import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from contracts import subjects
from contracts.commands.base import CommandMetadata
from contracts.commits import StreamRevision, build_commit
from contracts.events.jobs import JobQueued
from contracts.ids import CommandId, JobId
from contracts.telemetry import LossBlock
from contracts.wire.log.event_log import EventLog
from contracts.wire.log.follow import Follower
from contracts.wire.log.migration import migrate
from contracts.wire.server.binary import find_binary
from contracts.wire.server.config import ServerSettings, render_config
from contracts.wire.server.embedded import EmbeddedServer
from contracts.wire.server.permissions import ROLES, Role, permissions
from contracts.wire.service.bus import Bus, connect
from contracts.wire.service.telemetry import read_loss_curve, store_loss_block
from contracts.wire.workers.queue import QueueMessage, WorkQueue
from tests.limits import WAIT

NOW = datetime(2026, 11, 21, tzinfo=UTC)


async def first_commit(bus: Bus) -> int:
    """The sequence of the first commit a follower sees."""
    async for batch in Follower(bus, after=0).batches():
        return batch[0].sequence
    raise AssertionError("a follower never ends by itself")


async def test_a_job_is_processed_with_every_service_as_its_own_user(tmp_path: Path) -> None:
    async with EmbeddedServer(tmp_path / "nats") as server:
        connections: dict[Role, Bus] = {
            role: await connect(server.url, *server.credentials(role), role) for role in ROLES
        }
        catalog, trainer, gateway = connections["catalog"], connections["trainer"], connections["gateway"]
        await migrate(connections["admin"], at=NOW, lease=10.0)

        metadata = CommandMetadata(command_id=CommandId("c1"), actor="user:test", at=NOW)
        commit = build_commit(
            "job", "j1", [JobQueued(priority="high")], expected_revision=StreamRevision(), metadata=metadata
        )
        queued = await EventLog(catalog).append(commit, StreamRevision())
        await WorkQueue(catalog, "train").put(QueueMessage(id="j1", dispatch=queued.sequence), "high")
        assert await WorkQueue(catalog, "train").queued_ids() == {"j1"}

        delivery = await WorkQueue(trainer, "train").fetch()
        assert delivery is not None
        await delivery.extend()
        block = LossBlock(job_id=JobId("j1"), attempt=1, first=1, losses=(0.5,), rates=(1e-4,))
        await store_loss_block(trainer, block)
        assert await read_loss_curve(gateway, JobId("j1")) == [block]
        await delivery.ack()
        await WorkQueue(catalog, "train").remove("j1")
        assert await WorkQueue(trainer, "train").fetch() is None

        async with asyncio.timeout(WAIT):
            for bus in connections.values():
                assert await first_commit(bus) == 1
        for bus in connections.values():
            await bus.flush()
        assert {role: dict(bus.error_counts) for role, bus in connections.items() if bus.error_counts} == {}
        for bus in connections.values():
            await bus.close()


def test_a_trainer_fetches_no_tagging_work_and_only_admin_changes_streams() -> None:
    allowed = {role: permissions(role).publish for role in ROLES}
    assert not any("tag-" in subject for subject in allowed["trainer"])
    assert not any("train-" in subject for subject in allowed["tagger"])
    creatable = {"catalog": {f"$JS.API.STREAM.CREATE.{subjects.QUEUE}"}}
    for role in ROLES[1:]:
        changes = {subject for subject in allowed[role] for verb in ("CREATE", "UPDATE") if f"STREAM.{verb}" in subject}
        assert changes == creatable.get(role, set())
        assert not any("STREAM.DELETE" in subject or "SNAPSHOT" in subject for subject in allowed[role])
    assert [role for role in ROLES if f"$JS.API.STREAM.PURGE.{subjects.QUEUE}" in allowed[role]] == ["catalog"]


def test_the_server_configuration_for_containers_takes_passwords_from_the_environment(tmp_path: Path) -> None:
    settings = ServerSettings(store=str(tmp_path / "data"), host="0.0.0.0", port=4222)  # noqa: S104 - text only
    passwords: dict[Role, str] = {role: f"$LORATORY_{role.upper()}_PASSWORD" for role in ROLES}
    (tmp_path / "nats.conf").write_text(render_config(settings, passwords))
    check = [str(find_binary()), "-t", "-c", str(tmp_path / "nats.conf")]
    environment = {f"LORATORY_{role.upper()}_PASSWORD": "phush" for role in ROLES}
    assert subprocess.run(check, env=os.environ | environment, capture_output=True, check=False).returncode == 0
    assert b"LORATORY_ADMIN_PASSWORD" in subprocess.run(check, capture_output=True, check=False).stderr
