"""The maintenance commands of `python -m catalog`: a backup, its restore elsewhere, and invalid arguments."""

from pathlib import Path
from pkgutil import resolve_name

import pytest

from catalog import maintenance_commands
from catalog.__main__ import MAINTENANCE_COMMANDS
from catalog.archive.archive import Archive
from catalog.settings import Settings
from contracts.commits import RecordedCommit
from contracts.errors import SetupError, Unavailable
from contracts.events.log import LogRestored
from contracts.ids import JobId
from contracts.telemetry import LossBlock
from contracts.wire.log.event_log import EventLog
from contracts.wire.server.accounts import Role
from contracts.wire.server.embedded import EmbeddedServer
from contracts.wire.service.bus import connect
from contracts.wire.service.telemetry import read_loss_curve, store_loss_block
from tests.catalog.harness import open_catalog, png
from tests.conftest import BusOf

JOB = JobId("job_1")


def settings(server: EmbeddedServer, data: Path, role: Role = "catalog") -> Settings:
    user, key = server.credentials(role)
    return Settings(
        nats_url=server.url,
        nats_user=user,
        nats_nkey_file=key.path,
        catalog=data / "catalog",
        blobs=str(data / "blobs"),
        staging=data / "staging",
    )


def loss_block(first: int) -> LossBlock:
    return LossBlock(job_id=JOB, attempt=1, first=first, losses=(0.5, 0.25), rates=(1.0, 1.0))


def test_every_command_can_be_imported() -> None:
    assert all(callable(resolve_name(target)) for target in MAINTENANCE_COMMANDS.values())


async def test_a_data_folder_is_backed_up_and_restored_elsewhere(
    server: EmbeddedServer, bus_of: BusOf, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source_settings, backup, restored_folder = (
        settings(server, tmp_path / "data"),
        tmp_path / "backup",
        tmp_path / "there",
    )
    worker = await bus_of("trainer")
    async with open_catalog(await bus_of("catalog"), tmp_path / "data") as harness:
        cats = await harness.dataset()
        await harness.import_files(cats, harness.stage("one.png", png(1)))
        blocks = [loss_block(first) for first in (1, 3, 5)]
        for block in blocks:
            await store_loss_block(worker, block)

        await maintenance_commands.backup(source_settings, [str(backup)])  # while it runs
    await maintenance_commands.verify_backup(source_settings, [str(backup)])

    async with EmbeddedServer(restored_folder / "nats") as other:
        await maintenance_commands.unpack(settings(other, restored_folder), [str(backup)])
        await maintenance_commands.refill(settings(other, restored_folder, "admin"), [])
        bus = await connect(other.url, *other.credentials("catalog"), "test")
        assert await read_loss_curve(bus, JOB) == blocks
        archive = Archive(restored_folder / "catalog")
        log_id = await archive.verify_on_start(EventLog(bus))
        (entry,) = await archive.entries(archive.tail.sequence - 1, 1)
        assert isinstance(entry, RecordedCommit)
        (last,) = entry.commit.events
        assert isinstance(last, LogRestored)
        assert last.log_id == log_id
        await archive.close()
        await bus.close()

    assert not (restored_folder / "catalog" / "curves.ndjson").exists()
    assert "commits, 2 blobs of" in capsys.readouterr().out


async def test_a_backup_waits_for_the_archive_to_catch_up(
    server: EmbeddedServer, bus_of: BusOf, tmp_path: Path
) -> None:
    async with open_catalog(await bus_of("catalog"), tmp_path / "data"):
        pass
    async with open_catalog(await bus_of("catalog"), tmp_path / "other") as harness:
        await harness.dataset()  # the archive in the first folder does not get this commit

    with pytest.raises(Unavailable, match="is the catalog running"):
        await maintenance_commands.backup(
            settings(server, tmp_path / "data"), [str(tmp_path / "backup")], archive_timeout=0.2
        )
    await maintenance_commands.catch_up(settings(server, tmp_path / "data"), [])
    await maintenance_commands.backup(settings(server, tmp_path / "data"), [str(tmp_path / "backup")])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("backup", "the following arguments are required: folder; usage: python -m catalog backup"),
        ("backup here", "must be an absolute path, not here"),
        ("refill now", "unrecognized arguments: now"),
        ("salvage --from", "expected one argument"),
    ],
)
async def test_invalid_arguments_are_refused_with_a_sentence(
    server: EmbeddedServer, bus_of: BusOf, tmp_path: Path, line: str, message: str
) -> None:
    async with open_catalog(await bus_of("catalog"), tmp_path / "data"):
        pass
    command, *arguments = line.split()
    with pytest.raises(SetupError, match=message):
        await getattr(maintenance_commands, command)(settings(server, tmp_path / "data"), arguments)
