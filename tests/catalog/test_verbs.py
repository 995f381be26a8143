"""The verbs of `python -m catalog`, as a command line gives them: a workshop into a backup, and out of it elsewhere."""

from pathlib import Path
from pkgutil import resolve_name

import pytest

from catalog import verbs
from catalog.__main__ import VERBS
from catalog.archive import Archive
from catalog.settings import Settings
from contracts.errors import SetupError, Unavailable
from contracts.events import LogRestored
from contracts.ids import JobId
from contracts.telemetry import LossBlock
from contracts.wire.bus import connect
from contracts.wire.log import EventLog
from contracts.wire.permissions import Role
from contracts.wire.server import EmbeddedServer
from contracts.wire.telling import keep_losses, read_losses
from tests.catalog.house import opened, png
from tests.conftest import BusOf

JOB = JobId("job_1")


def settings(server: EmbeddedServer, data: Path, role: Role = "catalog") -> Settings:
    user, password = server.credentials(role)
    return Settings(
        nats_url=server.url,
        nats_user=user,
        nats_password=password,
        catalog=data / "catalog",
        blobs=str(data / "blobs"),
        staging=data / "staging",
    )


def curve(first: int) -> LossBlock:
    return LossBlock(job_id=JOB, attempt=1, first=first, losses=(0.5, 0.25), rates=(1.0, 1.0))


def test_every_verb_is_there() -> None:
    assert all(callable(resolve_name(place)) for place in VERBS.values())


async def test_a_workshop_goes_into_a_backup_and_comes_out_elsewhere(
    server: EmbeddedServer, bus_of: BusOf, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here, backup, there = settings(server, tmp_path / "data"), tmp_path / "backup", tmp_path / "there"
    worker = await bus_of("trainer")
    async with opened(await bus_of("catalog"), tmp_path / "data") as house:
        cats = await house.dataset()
        await house.bring_in(cats, house.staged("one.png", png(1)))
        blocks = [curve(first) for first in (1, 3, 5)]
        for block in blocks:
            await keep_losses(worker, block)

        await verbs.backup(here, [str(backup)])  # while it runs
    await verbs.verify_backup(here, [str(backup)])

    async with EmbeddedServer(there / "nats") as other:
        await verbs.unpack(settings(other, there), [str(backup)])
        await verbs.refill(settings(other, there, "admin"), [])
        bus = await connect(other.url, *other.credentials("catalog"), "test")
        assert await read_losses(bus, JOB) == blocks
        archive = Archive(there / "catalog")
        log_id = await archive.judge(EventLog(bus))
        (last,) = (await archive.commits(archive.tail.sequence - 1, 1))[0].commit.facts
        assert isinstance(last, LogRestored)
        assert last.log_id == log_id
        await archive.close()
        await bus.close()

    assert not (there / "catalog" / "curves.ndjson").exists()
    assert "commits, 2 blobs of" in capsys.readouterr().out


async def test_a_backup_waits_for_an_archive_that_follows(
    server: EmbeddedServer, bus_of: BusOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(await bus_of("catalog"), tmp_path / "data"):
        pass
    async with opened(await bus_of("catalog"), tmp_path / "other") as house:
        await house.dataset()  # the first folder's archive does not learn of it
    monkeypatch.setattr(verbs, "ARCHIVED_WITHIN", 0.2)

    with pytest.raises(Unavailable, match="is the catalog running"):
        await verbs.backup(settings(server, tmp_path / "data"), [str(tmp_path / "backup")])
    await verbs.catch_up(settings(server, tmp_path / "data"), [])
    await verbs.backup(settings(server, tmp_path / "data"), [str(tmp_path / "backup")])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("backup", "the following arguments are required: folder; usage: python -m catalog backup"),
        ("backup here", "is given as an absolute path, not as here"),
        ("refill now", "unrecognized arguments: now"),
        ("salvage --from", "expected one argument"),
    ],
)
async def test_wrong_words_are_refused_in_a_sentence(
    server: EmbeddedServer, bus_of: BusOf, tmp_path: Path, line: str, said: str
) -> None:
    async with opened(await bus_of("catalog"), tmp_path / "data"):
        pass
    verb, *words = line.split()
    with pytest.raises(SetupError, match=said):
        await getattr(verbs, verb)(settings(server, tmp_path / "data"), words)
