"""Backups: their contents, the damage that is detected, and when they are refused."""

import os
import shutil
import sqlite3
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path

import pytest

from catalog.archive.archive import Archive
from catalog.backups import creation, extraction
from catalog.backups.manifest import FORMAT, BackupDamaged, BackupManifest, remove_from_manifest, stored_blobs
from catalog.key_file import KeysDamaged
from catalog.keys import Keys, images_in
from catalog.mending import mend
from catalog.settings import Settings
from contracts.commands.datasets import EraseImage
from contracts.commits import RecordedCommit
from contracts.errors import KeyMissing, LogDamaged, NotFound, SetupError
from contracts.events.datasets import DatasetRenamed
from contracts.events.log import LossAccepted
from contracts.ids import Digest, ImageId, JobId
from contracts.telemetry import LossBlock
from contracts.wire.blobs.store import LocalBlobs
from tests.catalog.harness import CatalogHarness, png
from tests.catalog.log_builder import LogBuilder
from tests.conftest import NOW

IMAGE = ImageId("img_1")


def plain_history() -> list[RecordedCommit]:
    """Commits that name no blobs and no images."""
    builder = LogBuilder()
    builder.create_dataset()
    for number in range(30):
        builder.append("dataset", "ds_cats", DatasetRenamed(name=f"cats {number}"))
    return builder.commits


HISTORY = plain_history()

GOLDEN = Path(__file__).parents[1] / "golden"


class BackupWorkspace:
    """A catalog's folder with a history, keys and blobs, and the folder of its backup."""

    def __init__(self, home: Path) -> None:
        self.settings = Settings(catalog=home / "catalog", blobs=str(home / "blobs"), staging=home / "staging")
        self.backup = home / "backup"
        self._ticks: Iterator[datetime] = (NOW + timedelta(seconds=tick) for tick in count())

    async def write_archive(self, commits: list[RecordedCommit], log_id: str = "01JLOG") -> None:
        archive = Archive(self.settings.catalog)
        await archive.append(commits)
        await archive.set_log_id(log_id)
        await archive.close()

    async def create(self, *, keys: bool = True, blobs: bool = True) -> BackupManifest:
        return await creation.create(
            self.settings,
            self.backup,
            clock=lambda: next(self._ticks),
            curves=loss_curve(),
            keys=keys,
            blobs=blobs,
        )

    async def put_blobs(self, *contents: bytes) -> list[Digest]:
        return [await LocalBlobs(Path(self.settings.blobs)).put(content) for content in contents]

    async def create_key(self) -> bytes:
        keys = await Keys.open(self.settings.catalog / "keys.db")
        created = await keys.create_keys([IMAGE])
        await keys.close()
        return created[IMAGE]

    async def registered_backups(self) -> list[tuple[Path, datetime]]:
        keys = await Keys.open(self.settings.catalog / "keys.db")
        found = [(backup.path, backup.at) for backup in await keys.backups()]
        await keys.close()
        return found


async def loss_curve() -> AsyncIterator[LossBlock]:
    yield LossBlock(job_id=JobId("job_1"), attempt=1, first=1, losses=(0.5, 0.25), rates=(1.0, 1.0))


@pytest.fixture
async def workspace(tmp_path: Path) -> BackupWorkspace:
    workspace = BackupWorkspace(tmp_path)
    await workspace.write_archive(HISTORY[:20])
    await workspace.create_key()
    return workspace


async def unpack_backup(workspace: BackupWorkspace, home: Path, keys: Path | None = None) -> Settings:
    settings = Settings(catalog=home / "catalog", blobs=str(home / "blobs"), staging=home / "staging")
    await extraction.unpack(settings, workspace.backup)
    await mend(settings, at=NOW, report=lambda _line: None, backup=workspace.backup, keys=keys)
    return settings


async def test_a_backup_is_unpacked_with_every_commit_key_and_blob(workspace: BackupWorkspace, tmp_path: Path) -> None:
    one, two = await workspace.put_blobs(b"one", b"two")
    key = await workspace.create_key()

    manifest = await workspace.create()
    assert await extraction.verify(workspace.backup) == manifest
    settings = await unpack_backup(workspace, tmp_path / "new")

    assert (manifest.log_id, manifest.sequence) == ("01JLOG", 20)
    assert {entry.sha256: entry.size for entry in manifest.blobs} == {one: 3, two: 3}
    archive, keys = Archive(settings.catalog), await Keys.open(settings.catalog / "keys.db")
    assert await archive.entries(0, 1000) == HISTORY[:20]
    assert await keys.key_of(IMAGE) == key
    assert await LocalBlobs(Path(settings.blobs)).get(two) == b"two"
    await archive.close()
    await keys.close()


async def test_a_backup_on_the_same_disk_links_blobs_but_unpacking_copies_them(
    workspace: BackupWorkspace, tmp_path: Path
) -> None:
    (one,) = await workspace.put_blobs(b"one")
    await workspace.create()
    settings = await unpack_backup(workspace, tmp_path / "new")

    def inode(root: Path) -> int:
        return LocalBlobs(root).path(one).stat().st_ino

    assert inode(Path(workspace.settings.blobs)) == inode(workspace.backup / "blobs") != inode(Path(settings.blobs))


async def test_blobs_are_copied_where_hard_links_fail(
    workspace: BackupWorkspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    (one,) = await workspace.put_blobs(b"one")

    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    manifest = await workspace.create()

    assert await extraction.verify(workspace.backup) == manifest
    assert await LocalBlobs(workspace.backup / "blobs").get(one) == b"one"


async def test_a_backup_is_updated(workspace: BackupWorkspace) -> None:
    await workspace.put_blobs(b"one")
    first = await workspace.create()
    await workspace.write_archive(HISTORY, "01JRESTORED")
    await workspace.put_blobs(b"two")

    second = await workspace.create()

    assert (first.sequence, second.sequence) == (20, len(HISTORY))
    assert len(second.blobs) == 2
    assert second.log_id == "01JRESTORED"
    assert await extraction.verify(workspace.backup) == second
    finished = NOW + timedelta(seconds=5)  # of the second
    assert await workspace.registered_backups() == [(workspace.backup, finished)]


async def test_an_interrupted_backup_can_be_repeated(
    workspace: BackupWorkspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(creation, "write_manifest", fail)
        with pytest.raises(OSError, match="No space left"):
            await workspace.create()
    with pytest.raises(NotFound):
        await extraction.verify(workspace.backup)

    manifest = await workspace.create()

    assert await extraction.verify(workspace.backup) == manifest


async def test_a_backup_can_leave_out_keys_and_blobs(workspace: BackupWorkspace, tmp_path: Path) -> None:
    (one,) = await workspace.put_blobs(b"one")
    await workspace.create_key()

    manifest = await workspace.create(keys=False, blobs=False)

    assert await extraction.verify(workspace.backup) == manifest
    assert {path.name for path in workspace.backup.iterdir()} == {"archive.db", "curves.ndjson", "manifest.json"}
    assert [entry.sha256 for entry in manifest.blobs] == [one]
    with pytest.raises(KeysDamaged, match="there is no copy of it"):
        await unpack_backup(workspace, tmp_path / "new")
    settings = await unpack_backup(workspace, tmp_path / "with-keys", keys=workspace.settings.catalog / "keys.db")
    assert (settings.catalog / "keys.db").is_file()


async def test_a_backup_is_readable_only_by_its_owner(workspace: BackupWorkspace) -> None:
    await workspace.create()

    assert stat.S_IMODE(workspace.backup.stat().st_mode) == 0o700
    assert {stat.S_IMODE((workspace.backup / name).stat().st_mode) for name in ("archive.db", "keys.db")} == {0o600}


# --- refusals


async def test_a_folder_with_other_contents_is_refused_and_unchanged(workspace: BackupWorkspace) -> None:
    workspace.backup.mkdir()
    (workspace.backup / "letters").write_text("dear …")

    with pytest.raises(SetupError, match="has other contents"):
        await workspace.create()
    assert {path.name for path in workspace.backup.iterdir()} == {"letters"}


async def test_a_backup_of_another_log_is_not_overwritten(workspace: BackupWorkspace, tmp_path: Path) -> None:
    other = BackupWorkspace(tmp_path / "other")
    await other.write_archive(HISTORY[:1])
    other.backup = workspace.backup
    longer = plain_history()
    await workspace.create()

    with pytest.raises(SetupError, match="of another log"):
        await other.create()  # an older state of the same log is refused too
    await other.write_archive(longer)
    await other.create_key()
    assert (await other.create()).sequence == len(longer)


async def test_a_damaged_archive_is_not_backed_up(workspace: BackupWorkspace) -> None:
    damage_archive(workspace.settings.catalog, "UPDATE entry SET body = body || ' ' WHERE sequence = 7")

    with pytest.raises(LogDamaged):
        await workspace.create()
    with pytest.raises(NotFound):
        await extraction.verify(workspace.backup)


async def test_a_backup_is_not_unpacked_over_existing_data(workspace: BackupWorkspace) -> None:
    await workspace.create()

    with pytest.raises(SetupError, match="into an empty data folder"):
        await extraction.unpack(workspace.settings, workspace.backup)


@pytest.mark.parametrize("other", [FORMAT - 1, FORMAT + 1])
async def test_a_backup_of_another_format_is_refused(workspace: BackupWorkspace, other: int) -> None:
    await workspace.create()
    manifest = workspace.backup / "manifest.json"
    manifest.write_text(manifest.read_text().replace(f'"format": {FORMAT}', f'"format": {other}'))

    with pytest.raises(SetupError, match=f"has format {other}, but this Loratory reads format {FORMAT} only"):
        await extraction.verify(workspace.backup)


@pytest.mark.parametrize("name", ["archive.db", "keys.db"])
async def test_a_backup_with_files_of_a_newer_version_is_refused_and_nothing_is_unpacked(
    workspace: BackupWorkspace, tmp_path: Path, name: str
) -> None:
    await workspace.create()
    set_schema_number(workspace.backup / name, 99)

    sentence = (
        rf"^{name} was written by a newer version of Loratory \(schema 99; this one knows \d\); upgrade Loratory$"
    )
    with pytest.raises(SetupError, match=sentence):
        await extraction.verify(workspace.backup)
    with pytest.raises(SetupError, match=sentence):
        await unpack_backup(workspace, tmp_path / "new")
    if name == "keys.db":
        with pytest.raises(SetupError, match=sentence):
            await unpack_backup(workspace, tmp_path / "new", keys=workspace.backup / name)
    assert not (tmp_path / "new").exists()


async def test_keys_of_an_older_version_are_backed_up_and_unpacked(workspace: BackupWorkspace, tmp_path: Path) -> None:
    key = "483004a05933285c5bd081b12ba432b938d64f62018188316a7d1c2c4e63f9c8"
    shutil.copy(GOLDEN / "keys-0.db", workspace.settings.catalog / "keys.db")
    manifest = await workspace.create()
    shutil.copy(GOLDEN / "keys-0.db", workspace.backup / "keys.db")

    assert await extraction.verify(workspace.backup) == manifest
    settings = await unpack_backup(workspace, tmp_path / "new")

    keys = await Keys.open(settings.catalog / "keys.db")
    assert await keys.key_of(ImageId("img_1")) == bytes.fromhex(key)
    await keys.close()


def set_schema_number(file: Path, number: int) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.execute(f"PRAGMA user_version = {number}")


# --- damage


def damage_archive(folder: Path, change: str) -> None:
    connection = sqlite3.connect(folder / "archive.db", isolation_level=None)
    connection.execute(change)
    connection.close()


async def test_a_changed_byte_in_a_backups_archive_is_detected(workspace: BackupWorkspace, tmp_path: Path) -> None:
    await workspace.create()
    damage_archive(workspace.backup, "UPDATE entry SET body = replace(body, 'c', 'k') WHERE sequence = 7")

    with pytest.raises(BackupDamaged, match="commit 7"):
        await extraction.verify(workspace.backup)
    with pytest.raises(LogDamaged):
        await unpack_backup(workspace, tmp_path / "new")


async def test_a_truncated_or_invalid_archive_in_a_backup_is_detected(workspace: BackupWorkspace) -> None:
    await workspace.create()
    damage_archive(workspace.backup, "DELETE FROM entry WHERE sequence = 20")
    with pytest.raises(BackupDamaged, match="ends at 19"):
        await extraction.verify(workspace.backup)

    (workspace.backup / "archive.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(BackupDamaged, match="the archive's file is damaged"):
        await extraction.verify(workspace.backup)


async def test_each_damaged_or_missing_blob_is_listed(workspace: BackupWorkspace, tmp_path: Path) -> None:
    one, two, _ = await workspace.put_blobs(b"one", b"two", b"three")
    await workspace.create()
    copies = LocalBlobs(workspace.backup / "blobs")
    copies.path(one).unlink()
    copies.path(two).unlink()
    copies.path(two).write_bytes(b"tow")

    with pytest.raises(BackupDamaged) as caught:
        await extraction.verify(workspace.backup)
    assert caught.value.extra == {"problems": 2}
    assert f"blob {one} is missing" in caught.value.detail
    assert f"blob {two} is damaged" in caught.value.detail
    with pytest.raises(BackupDamaged):
        await unpack_backup(workspace, tmp_path / "new")


async def test_damaged_or_missing_loss_curves_are_detected(workspace: BackupWorkspace, tmp_path: Path) -> None:
    await workspace.create()
    for damage_file in (lambda file: file.write_bytes(b"{}\n"), Path.unlink):
        damage_file(workspace.backup / "curves.ndjson")
        with pytest.raises(BackupDamaged, match=r"curves\.ndjson is missing or damaged"):
            await extraction.verify(workspace.backup)
        with pytest.raises(BackupDamaged, match=r"curves\.ndjson is missing or damaged"):
            await unpack_backup(workspace, tmp_path / damage_file.__name__)


async def test_missing_keys_are_detected(workspace: BackupWorkspace) -> None:
    await workspace.create()
    (workspace.backup / "keys.db").unlink()

    with pytest.raises(BackupDamaged, match=r"keys\.db is missing"):
        await extraction.verify(workspace.backup)


async def test_an_erased_blob_is_not_reported_as_missing(workspace: BackupWorkspace, tmp_path: Path) -> None:
    one, two = await workspace.put_blobs(b"one", b"two")
    await workspace.create()
    LocalBlobs(workspace.backup / "blobs").path(one).unlink()

    remove_from_manifest(workspace.backup, {one})
    remove_from_manifest(tmp_path / "nowhere", {one})

    assert [entry.sha256 for entry in (await extraction.verify(workspace.backup)).blobs] == [two]


async def test_a_blob_erased_during_the_backup_is_not_reported_as_missing(
    workspace: BackupWorkspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = await workspace.put_blobs(b"one", b"two")

    def erased_after_it_was_listed(store: LocalBlobs) -> Iterator[tuple[Digest, int]]:
        for digest, size in list(stored_blobs(store)):
            if store.root == Path(workspace.settings.blobs) and digest == one:
                store.path(one).unlink()
            yield digest, size

    monkeypatch.setattr(creation, "stored_blobs", erased_after_it_was_listed)

    assert [entry.sha256 for entry in (await workspace.create()).blobs] == [two]


@pytest.mark.parametrize("keys", [True, False])
async def test_a_backup_is_intact_after_its_images_were_erased(
    harness: CatalogHarness, tmp_path: Path, keys: bool
) -> None:
    cats = await harness.dataset()
    erased, _ = [(await harness.import_files(cats, harness.stage("a.png", png(colour)))).files[0] for colour in (1, 2)]
    workspace = BackupWorkspace(tmp_path / "data")
    before = await workspace.create(keys=keys)
    row = await harness.image(erased.image)

    result = await harness.execute(EraseImage(image=erased.image))

    assert harness.purger.pending(result.sequence) == ()
    after = await extraction.verify(workspace.backup)
    assert {entry.sha256 for entry in before.blobs} - {entry.sha256 for entry in after.blobs} == {
        digest for digest in (row.source, row.picture, row.thumbnail) if digest
    }
    again = await workspace.create(keys=keys)
    assert [entry.sha256 for entry in again.blobs] == [entry.sha256 for entry in after.blobs]


# --- what was missing already


@pytest.mark.slow
async def test_a_backup_of_a_catalog_that_lost_its_bytes_says_so_and_does_not_verify(
    harness: CatalogHarness, tmp_path: Path
) -> None:
    cats = await harness.dataset()
    image = (await harness.import_files(cats, harness.stage("a.png", png(1)))).files[0].image
    row, workspace = await harness.image(image), BackupWorkspace(tmp_path / "data")
    await harness.blobs.delete([row.source, row.thumbnail])

    manifest = await workspace.create()

    assert manifest.losses.counts == {"source": 1, "picture": 1, "thumbnail": 1}
    with pytest.raises(BackupDamaged, match=f"the thumbnail of {image} .* is not in it") as caught:
        await extraction.verify(workspace.backup)
    assert caught.value.extra == {"problems": 3}
    await harness.append("log", "log_1", LossAccepted(blobs=(row.source, row.thumbnail)))
    assert not (await workspace.create()).losses.counts
    assert await extraction.verify(workspace.backup)


async def test_a_backup_with_keys_that_were_lost_since_keeps_them(harness: CatalogHarness, tmp_path: Path) -> None:
    cats = await harness.dataset()
    image = (await harness.import_files(cats, harness.stage("a.png", png(1)))).files[0].image
    workspace = BackupWorkspace(tmp_path / "data")
    await workspace.create()
    with closing(sqlite3.connect(workspace.settings.catalog / "keys.db")) as keys:
        keys.execute("DELETE FROM key")
        keys.commit()

    with pytest.raises(KeyMissing, match="1 keys were lost since this backup was made"):
        await workspace.create()
    assert images_in(workspace.backup / "keys.db") == {image}
    assert await extraction.verify(workspace.backup)

    workspace.backup = tmp_path / "another"
    assert (await workspace.create()).losses.counts == {"key": 1}
    with pytest.raises(BackupDamaged, match=f"the key of {image} is not in it"):
        await extraction.verify(workspace.backup)
