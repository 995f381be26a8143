"""Backups: what is in them, what is found wrong with them, and where they are refused."""

import os
import sqlite3
import stat
from collections.abc import AsyncIterator, Iterator
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path

import pytest

from catalog import backups
from catalog.archive import Archive
from catalog.backups import BackupDamaged, Manifest, making
from catalog.backups.manifest import held
from catalog.keys import Keys
from catalog.settings import Settings
from contracts.commands import EraseImage
from contracts.errors import LogDamaged, NotFound, SetupError
from contracts.events import Stored
from contracts.ids import Digest, ImageId, JobId
from contracts.telemetry import LossBlock
from contracts.wire.blobs import LocalBlobs
from tests.catalog.histories import everything
from tests.catalog.house import House, png
from tests.conftest import NOW

IMAGE = ImageId("img_1")
HISTORY = everything().commits


class Shop:
    """A catalog's folder with a history, keys and blobs, and where its backup goes."""

    def __init__(self, home: Path) -> None:
        self.settings = Settings(catalog=home / "catalog", blobs=str(home / "blobs"), staging=home / "staging")
        self.backup = home / "backup"
        self._ticks: Iterator[datetime] = (NOW + timedelta(seconds=tick) for tick in count())

    async def archive(self, commits: list[Stored], log_id: str = "01JLOG") -> None:
        archive = Archive(self.settings.catalog)
        await archive.append(commits)
        await archive.rename(log_id)
        await archive.close()

    async def create(self, *, keys: bool = True, blobs: bool = True) -> Manifest:
        return await backups.create(
            self.settings,
            self.backup,
            clock=lambda: next(self._ticks),
            curves=curve(),
            keys=keys,
            blobs=blobs,
        )

    async def put(self, *contents: bytes) -> list[Digest]:
        return [await LocalBlobs(Path(self.settings.blobs)).put(content) for content in contents]

    async def new_key(self) -> bytes:
        keys = Keys(self.settings.catalog / "keys.db")
        made = await keys.new_keys([IMAGE])
        await keys.close()
        return made[IMAGE]

    async def registered(self) -> list[tuple[Path, datetime]]:
        keys = Keys(self.settings.catalog / "keys.db")
        found = [(backup.path, backup.at) for backup in await keys.backups()]
        await keys.close()
        return found


async def curve() -> AsyncIterator[LossBlock]:
    yield LossBlock(job_id=JobId("job_1"), attempt=1, first=1, losses=(0.5, 0.25), rates=(1.0, 1.0))


@pytest.fixture
async def shop(tmp_path: Path) -> Shop:
    shop = Shop(tmp_path)
    await shop.archive(HISTORY[:20])
    return shop


async def restored(shop: Shop, home: Path, keys: Path | None = None) -> Settings:
    settings = Settings(catalog=home / "catalog", blobs=str(home / "blobs"), staging=home / "staging")
    await backups.unpack(settings, shop.backup, keys=keys)
    return settings


async def test_a_backup_is_restored_with_every_commit_key_and_blob(shop: Shop, tmp_path: Path) -> None:
    one, two = await shop.put(b"one", b"two")
    key = await shop.new_key()

    made = await shop.create()
    assert await backups.verify(shop.backup) == made
    settings = await restored(shop, tmp_path / "new")

    assert (made.log_id, made.sequence) == ("01JLOG", 20)
    assert {line.sha256: line.size for line in made.blobs} == {one: 3, two: 3}
    archive, keys = Archive(settings.catalog), Keys(settings.catalog / "keys.db")
    assert await archive.commits(0, 1000) == HISTORY[:20]
    assert await keys.key_of(IMAGE) == key
    assert await LocalBlobs(Path(settings.blobs)).get(two) == b"two"
    await archive.close()
    await keys.close()


async def test_on_one_disk_blobs_are_linked_and_what_is_restored_is_not(shop: Shop, tmp_path: Path) -> None:
    (one,) = await shop.put(b"one")
    await shop.create()
    settings = await restored(shop, tmp_path / "new")

    def inode(root: Path) -> int:
        return LocalBlobs(root).path(one).stat().st_ino

    assert inode(Path(shop.settings.blobs)) == inode(shop.backup / "blobs") != inode(Path(settings.blobs))


async def test_where_links_cannot_be_made_blobs_are_copied(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    (one,) = await shop.put(b"one")

    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    made = await shop.create()

    assert await backups.verify(shop.backup) == made
    assert await LocalBlobs(shop.backup / "blobs").get(one) == b"one"


async def test_a_backup_is_brought_up_to_date(shop: Shop) -> None:
    await shop.put(b"one")
    first = await shop.create()
    await shop.archive(HISTORY, "01JRESTORED")
    await shop.put(b"two")

    second = await shop.create()

    assert (first.sequence, second.sequence) == (20, len(HISTORY))
    assert len(second.blobs) == 2
    assert second.log_id == "01JRESTORED"
    assert await backups.verify(shop.backup) == second
    assert await shop.registered() == [(shop.backup, NOW + timedelta(seconds=5))]  # when the second was finished


async def test_a_backup_that_was_cut_off_is_made_again(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(making, "write_manifest", fail)
        with pytest.raises(OSError, match="No space left"):
            await shop.create()
    with pytest.raises(NotFound):
        await backups.verify(shop.backup)

    made = await shop.create()

    assert await backups.verify(shop.backup) == made


async def test_what_is_left_out_is_not_there(shop: Shop, tmp_path: Path) -> None:
    (one,) = await shop.put(b"one")
    await shop.new_key()

    made = await shop.create(keys=False, blobs=False)

    assert await backups.verify(shop.backup) == made
    assert {path.name for path in shop.backup.iterdir()} == {"archive.db", "curves.ndjson", "manifest.json"}
    assert [line.sha256 for line in made.blobs] == [one]
    with pytest.raises(SetupError, match="holds no keys"):
        await restored(shop, tmp_path / "new")
    settings = await restored(shop, tmp_path / "with-keys", keys=shop.settings.catalog / "keys.db")
    assert (settings.catalog / "keys.db").is_file()


async def test_it_is_readable_by_its_owner_only(shop: Shop) -> None:
    await shop.create()

    assert stat.S_IMODE(shop.backup.stat().st_mode) == 0o700
    assert {stat.S_IMODE((shop.backup / name).stat().st_mode) for name in ("archive.db", "keys.db")} == {0o600}


# --- what is refused


async def test_a_folder_with_other_things_is_refused_and_left_alone(shop: Shop) -> None:
    shop.backup.mkdir()
    (shop.backup / "letters").write_text("dear …")

    with pytest.raises(SetupError, match="holds other things"):
        await shop.create()
    assert {path.name for path in shop.backup.iterdir()} == {"letters"}


async def test_the_backup_of_another_log_is_not_written_over(shop: Shop, tmp_path: Path) -> None:
    other = Shop(tmp_path / "other")
    await other.archive(HISTORY[:1])
    other.backup = shop.backup
    longer = everything().commits
    await shop.create()

    with pytest.raises(SetupError, match="of another log"):
        await other.create()  # an older state of the same log is no better
    await other.archive(longer)
    assert (await other.create()).sequence == len(longer)


async def test_an_archive_that_is_damaged_is_not_backed_up(shop: Shop) -> None:
    damage(shop.settings.catalog, "UPDATE entry SET body = body || ' ' WHERE sequence = 7")

    with pytest.raises(LogDamaged):
        await shop.create()
    with pytest.raises(NotFound):
        await backups.verify(shop.backup)


async def test_a_backup_is_not_restored_over_anything(shop: Shop) -> None:
    await shop.create()

    with pytest.raises(SetupError, match="into an empty folder"):
        await backups.unpack(shop.settings, shop.backup)


async def test_a_backup_of_a_later_format_is_refused(shop: Shop) -> None:
    await shop.create()
    manifest = shop.backup / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"format": 1', '"format": 2'))

    with pytest.raises(SetupError, match="has format 2, this Loratory knows up to 1"):
        await backups.verify(shop.backup)


# --- what is found


def damage(folder: Path, change: str) -> None:
    connection = sqlite3.connect(folder / "archive.db", isolation_level=None)
    connection.execute(change)
    connection.close()


async def test_one_byte_changed_in_its_archive_is_found(shop: Shop, tmp_path: Path) -> None:
    await shop.create()
    damage(shop.backup, "UPDATE entry SET body = replace(body, 'c', 'k') WHERE sequence = 7")

    with pytest.raises(BackupDamaged, match="commit 7"):
        await backups.verify(shop.backup)
    with pytest.raises(LogDamaged):
        await restored(shop, tmp_path / "new")


async def test_an_archive_that_was_cut_or_is_no_database_is_found(shop: Shop) -> None:
    await shop.create()
    damage(shop.backup, "DELETE FROM entry WHERE sequence = 20")
    with pytest.raises(BackupDamaged, match="ends at 19"):
        await backups.verify(shop.backup)

    (shop.backup / "archive.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(BackupDamaged, match="the archive's file is damaged"):
        await backups.verify(shop.backup)


async def test_each_damaged_or_missing_blob_is_named(shop: Shop, tmp_path: Path) -> None:
    one, two, _ = await shop.put(b"one", b"two", b"three")
    await shop.create()
    copies = LocalBlobs(shop.backup / "blobs")
    copies.path(one).unlink()
    copies.path(two).unlink()
    copies.path(two).write_bytes(b"tow")

    with pytest.raises(BackupDamaged) as caught:
        await backups.verify(shop.backup)
    assert caught.value.facts == {"troubles": 2}
    assert f"blob {one} is missing" in caught.value.detail
    assert f"blob {two} is damaged" in caught.value.detail
    with pytest.raises(BackupDamaged):
        await restored(shop, tmp_path / "new")


async def test_curves_that_are_damaged_or_gone_are_found(shop: Shop, tmp_path: Path) -> None:
    await shop.create()
    for harm in (lambda file: file.write_bytes(b"{}\n"), Path.unlink):
        harm(shop.backup / "curves.ndjson")
        with pytest.raises(BackupDamaged, match=r"curves\.ndjson is missing or damaged"):
            await backups.verify(shop.backup)
        with pytest.raises(BackupDamaged, match=r"curves\.ndjson is missing or damaged"):
            await restored(shop, tmp_path / harm.__name__)


async def test_keys_that_are_gone_are_found(shop: Shop) -> None:
    await shop.create()
    (shop.backup / "keys.db").unlink()

    with pytest.raises(BackupDamaged, match=r"keys\.db is missing"):
        await backups.verify(shop.backup)


async def test_what_was_erased_is_not_missed(shop: Shop, tmp_path: Path) -> None:
    one, two = await shop.put(b"one", b"two")
    await shop.create()
    LocalBlobs(shop.backup / "blobs").path(one).unlink()

    backups.strike_out(shop.backup, {one})
    backups.strike_out(tmp_path / "nowhere", {one})

    assert [line.sha256 for line in (await backups.verify(shop.backup)).blobs] == [two]


async def test_a_picture_that_is_erased_while_it_is_copied_is_not_missed(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = await shop.put(b"one", b"two")

    def erased_after_it_was_listed(store: LocalBlobs) -> Iterator[tuple[Digest, int]]:
        for digest, size in list(held(store)):
            if store.root == Path(shop.settings.blobs) and digest == one:
                store.path(one).unlink()
            yield digest, size

    monkeypatch.setattr(making, "held", erased_after_it_was_listed)

    assert [line.sha256 for line in (await shop.create()).blobs] == [two]


@pytest.mark.parametrize("keys", [True, False])
async def test_a_backup_is_whole_after_what_it_held_was_erased(house: House, tmp_path: Path, keys: bool) -> None:
    cats = await house.dataset()
    lost, _ = [(await house.bring_in(cats, house.staged("a.png", png(colour)))).files[0] for colour in (1, 2)]
    shop = Shop(tmp_path / "data")
    before = await shop.create(keys=keys)
    row = await house.image(lost.image)

    receipt = await house.tell(EraseImage(image=lost.image))

    assert house.erasing.sweeper.left(receipt.sequence) == ()
    after = await backups.verify(shop.backup)
    assert {line.sha256 for line in before.blobs} - {line.sha256 for line in after.blobs} == {
        digest for digest in (row.source, row.picture, row.thumbnail) if digest
    }
    again = await shop.create(keys=keys)
    assert [line.sha256 for line in again.blobs] == [line.sha256 for line in after.blobs]
