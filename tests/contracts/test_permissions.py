"""The wire as services use it, each as its own user: least privilege must not stop anybody's work."""

import asyncio
import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from contracts import subjects
from contracts.commands import Origin
from contracts.events import JobQueued
from contracts.ids import CommandId, JobId
from contracts.telemetry import LossBlock
from contracts.wire.bus import Bus, connect
from contracts.wire.follow import Follower
from contracts.wire.log import EventLog, Head, draw_up
from contracts.wire.permissions import ROLES, Role, permissions
from contracts.wire.queue import Hint, WorkQueue
from contracts.wire.server import EmbeddedServer
from contracts.wire.server_binary import find_binary
from contracts.wire.server_config import ServerSettings, render_config
from contracts.wire.streams import migrate
from contracts.wire.telling import keep_losses, read_losses
from tests.limits import WAIT

NOW = datetime(2026, 11, 21, tzinfo=UTC)


async def first_commit(bus: Bus) -> int:
    """The sequence of the first commit a follower sees."""
    async for batch in Follower(bus, after=0).batches():
        return batch[0].sequence
    raise AssertionError("a follower never ends by itself")


async def test_a_job_goes_its_way_with_every_service_as_its_own_user(tmp_path: Path) -> None:
    async with EmbeddedServer(tmp_path / "nats") as server:
        lines: dict[Role, Bus] = {role: await connect(server.url, *server.credentials(role), role) for role in ROLES}
        catalog, trainer, gateway = lines["catalog"], lines["trainer"], lines["gateway"]
        await migrate(lines["admin"], at=NOW, lease=10.0)

        origin = Origin(command=CommandId("c1"), actor="user:test", at=NOW)
        commit = draw_up("job", "j1", [JobQueued(priority="high")], after=Head(), origin=origin)
        queued = await EventLog(catalog).append(commit, Head())
        await WorkQueue(catalog, "train").put(Hint(id="j1", dispatch=queued.sequence), "high")
        assert await WorkQueue(catalog, "train").waiting() == {"j1"}

        taken = await WorkQueue(trainer, "train").take()
        assert taken is not None
        await taken.still_at_it()
        block = LossBlock(job_id=JobId("j1"), attempt=1, first=1, losses=(0.5,), rates=(1e-4,))
        await keep_losses(trainer, block)
        assert await read_losses(gateway, JobId("j1")) == [block]
        await taken.done()
        await WorkQueue(catalog, "train").drop("j1")
        assert await WorkQueue(trainer, "train").take() is None

        async with asyncio.timeout(WAIT):
            for bus in lines.values():
                assert await first_commit(bus) == 1
        for bus in lines.values():
            await bus.flush()
        assert {role: dict(bus.troubles) for role, bus in lines.items() if bus.troubles} == {}
        for bus in lines.values():
            await bus.close()


def test_a_trainer_takes_no_tagging_and_nobody_but_admin_changes_streams() -> None:
    allowed = {role: permissions(role).publish for role in ROLES}
    assert not any("tag-" in subject for subject in allowed["trainer"])
    assert not any("train-" in subject for subject in allowed["tagger"])
    made_anew = {"catalog": {f"$JS.API.STREAM.CREATE.{subjects.QUEUE}"}}
    for role in ROLES[1:]:
        changes = {subject for subject in allowed[role] for verb in ("CREATE", "UPDATE") if f"STREAM.{verb}" in subject}
        assert changes == made_anew.get(role, set())
        assert not any("STREAM.DELETE" in subject or "SNAPSHOT" in subject for subject in allowed[role])
    assert [role for role in ROLES if f"$JS.API.STREAM.PURGE.{subjects.QUEUE}" in allowed[role]] == ["catalog"]


def test_the_configuration_for_containers_takes_passwords_from_the_environment(tmp_path: Path) -> None:
    settings = ServerSettings(store=str(tmp_path / "data"), host="0.0.0.0", port=4222)  # noqa: S104 - text only
    passwords: dict[Role, str] = {role: f"$LORATORY_{role.upper()}_PASSWORD" for role in ROLES}
    (tmp_path / "nats.conf").write_text(render_config(settings, passwords))
    check = [find_binary(), "-t", "-c", tmp_path / "nats.conf"]
    given = {f"LORATORY_{role.upper()}_PASSWORD": "phush" for role in ROLES}
    assert subprocess.run(check, env=os.environ | given, capture_output=True, check=False).returncode == 0
    assert b"LORATORY_ADMIN_PASSWORD" in subprocess.run(check, capture_output=True, check=False).stderr
