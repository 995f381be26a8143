"""Giving up the key file: a new root key replaces the lost one, and every reader of the log accepts what it signs."""

import shutil
from pathlib import Path

import pytest

from catalog.accepting import accept_loss, find_lost
from catalog.archive.archive import Archive
from catalog.key_file import KeysDamaged
from catalog.keys import Keys
from catalog.restoring import catch_up
from catalog.service_keys import check_root
from catalog.settings import Settings
from contracts.commits import ForeignMessage, RecordedCommit
from contracts.errors import SetupError
from contracts.events.log import LossAccepted
from contracts.events.service_keys import ServiceKeyRootEstablished
from contracts.wire.log.event_log import EventLog
from contracts.wire.service.bus import Bus
from tests.catalog.harness import open_catalog, png
from tests.conftest import NOW, BusOf


def settings_of(data: Path) -> Settings:
    return Settings(catalog=data / "catalog", blobs=str(data / "blobs"), staging=data / "staging")


async def make_workshop(bus: Bus, data: Path) -> str:
    """One image in a data set; its id."""
    async with open_catalog(bus, data) as harness:
        cats = await harness.dataset()
        return (await harness.import_files(cats, harness.stage("a.png", png(1)))).files[0].image


async def give_up_keys(bus: Bus, data: Path) -> bytes:
    """Returns the new public root key."""
    (data / "catalog" / "keys.db").unlink()
    await accept_loss(bus, settings_of(data), "keys", at=NOW, report=ignore)
    async with await Keys.open(data / "catalog" / "keys.db") as keys:
        return await keys.public_key()


def ignore(_line: str) -> None:
    """Progress is not of interest here."""


async def entries_of(data: Path) -> list[RecordedCommit | ForeignMessage]:
    async with Archive(data / "catalog") as archive:
        await archive.verify()
        return await archive.entries(0, 10_000)


async def test_a_new_root_key_replaces_the_lost_one_before_it_signs_anything_else(
    bus_of: BusOf, tmp_path: Path
) -> None:
    bus, image = await bus_of("catalog"), await make_workshop(await bus_of("catalog"), tmp_path)
    before = await entries_of(tmp_path)

    root = await give_up_keys(await bus_of("admin"), tmp_path)

    established, accepted = [
        event
        for entry in (await entries_of(tmp_path))[len(before) :]
        if isinstance(entry, RecordedCommit)
        for event in entry.commit.events
    ]
    assert isinstance(established, ServiceKeyRootEstablished)
    assert (established.public_key, bool(established.replaces)) == (root.hex(), True)
    assert isinstance(accepted, LossAccepted)
    assert accepted.images == (image,)
    async with open_catalog(bus, tmp_path) as harness:  # it authorizes the services and appends as before
        await harness.dataset("dogs")


@pytest.mark.slow
async def test_an_archive_that_is_made_again_accepts_all_root_keys_in_their_order(
    bus_of: BusOf, tmp_path: Path
) -> None:
    admin = await bus_of("admin")
    await make_workshop(await bus_of("catalog"), tmp_path)
    for number in range(2):
        await give_up_keys(admin, tmp_path)
        async with open_catalog(await bus_of("catalog"), tmp_path) as harness:
            await harness.dataset(f"dogs {number}")
    complete = await entries_of(tmp_path)
    (tmp_path / "catalog" / "archive.db").unlink()

    await catch_up(admin, tmp_path / "catalog")

    assert not [entry for entry in complete if isinstance(entry, ForeignMessage)]
    assert [entry.body for entry in await entries_of(tmp_path)] == [entry.body for entry in complete]
    assert not [entry for entry in await entries_of(tmp_path) if isinstance(entry, ForeignMessage)]


async def test_without_keys_and_archive_the_log_itself_names_the_root_key(bus_of: BusOf, tmp_path: Path) -> None:
    admin = await bus_of("admin")
    await make_workshop(await bus_of("catalog"), tmp_path)
    complete = await entries_of(tmp_path)
    for name in ("archive.db", "keys.db"):
        (tmp_path / "catalog" / name).unlink()

    await catch_up(admin, tmp_path / "catalog")

    assert await entries_of(tmp_path) == complete


async def test_an_older_key_file_with_the_replaced_root_key_is_refused_or_accepted(
    bus_of: BusOf, tmp_path: Path
) -> None:
    admin, settings = await bus_of("admin"), settings_of(tmp_path)
    await make_workshop(await bus_of("catalog"), tmp_path)
    keys = tmp_path / "catalog" / "keys.db"
    shutil.copyfile(keys, tmp_path / "older.db")
    await give_up_keys(admin, tmp_path)
    with pytest.raises(SetupError, match="the key file is there and intact"):
        await find_lost(settings, "keys", at=NOW)
    shutil.copyfile(tmp_path / "older.db", keys)

    async with Archive(settings.catalog) as archive, await Keys.open(keys) as older:
        with pytest.raises(KeysDamaged, match="its root key is"):
            await check_root(archive, older, EventLog(admin))
    lost = await accept_loss(admin, settings, "keys", at=NOW, report=ignore)
    assert (lost.images, lost.blobs) == ((), ())
    async with open_catalog(await bus_of("catalog"), tmp_path) as harness:
        await harness.dataset("dogs")
