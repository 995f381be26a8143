"""`loratory restore`, `accept-loss` and `backup …` on small data folders; on real ones: test_cures.py."""

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from contracts.wire.log.migration import FORMAT
from loratory.cli.app import run
from loratory.data_folder import DataFolder
from tests.loratory.conftest import create_data_folder

EVT = Path("nats/streams/jetstream/LORATORY/streams/EVT")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with a log of one commit, its archive and no keys yet; and next to it, its backup."""
    home = tmp_path_factory.mktemp("made")
    asyncio.run(create_data_folder(home / "data"))
    assert run(["backup", "create", str(home / "backup"), "--data", str(home / "data")], os.environ) == 0
    return home


@pytest.fixture
def data(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made / "data", tmp_path / "data"))


class Cli:
    """`cli("restore", …)` → its exit code; `out` and `err` are the output of it and its children."""

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self._capfd = capfd
        self.out = self.err = ""

    def __call__(self, *arguments: str | Path) -> int:
        code = run([*map(str, arguments)], os.environ)
        self.out, self.err = self._capfd.readouterr()
        return code


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capfd)


@pytest.mark.slow
def test_a_damaged_archive_is_rebuilt_and_the_log_left_unchanged(data: Path, cli: Cli) -> None:
    archive = data / "catalog" / "archive.db"
    archive.write_bytes(b"no database" * 1000)
    log_id = (data / "catalog" / "log_id").read_text()

    assert cli("restore", "--data", data) == 0

    assert "the archive was rebuilt" in cli.out
    assert "the log itself is intact\n" in cli.out
    assert (data / "catalog" / "log_id").read_text() == log_id
    assert next((data / "catalog").glob("damaged-*-archive.db")).read_bytes().startswith(b"no database")
    assert not (data / "damaged").exists()


@pytest.mark.slow
def test_a_lost_log_and_archive_are_restored_from_a_backup(data: Path, made: Path, cli: Cli) -> None:
    shutil.rmtree(data / EVT)
    shutil.rmtree(data / "catalog")

    assert cli("restore", "--data", data) == 2
    assert "give a backup with --from" in cli.err
    assert cli("restore", "--data", data, "--from", made / "backup") == 0
    assert "holds all 1 commits again" in cli.out
    assert (data / "catalog" / "keys.db").is_file()


@pytest.mark.slow
def test_lost_keys_are_restored_from_a_backup(data: Path, made: Path, cli: Cli) -> None:
    (data / "catalog" / "keys.db").unlink()

    assert cli("restore", "--data", data, "--from", made / "backup") == 0
    assert "the key file was lost; it was made again from all copies" in cli.out
    assert "the log itself is intact\n" in cli.out
    assert (data / "catalog" / "keys.db").is_file()


@pytest.mark.slow
def test_nothing_is_restored_while_loratory_runs(data: Path, cli: Cli) -> None:
    with DataFolder(data):
        assert cli("restore", "--data", data) == 2
    assert "already running on the data folder" in cli.err


@pytest.mark.slow
def test_a_backup_without_keys_needs_some_to_be_restored(data: Path, tmp_path: Path, cli: Cli) -> None:
    backup, new = tmp_path / "backup", tmp_path / "new"
    assert cli("backup", "create", backup, "--data", data, "--without-keys") == 0
    assert not (backup / "keys.db").exists()

    assert cli("backup", "restore", backup, "--data", new) == 2
    assert "give a keys.db with --keys" in cli.err
    assert not new.exists()

    assert cli("backup", "restore", backup, "--data", new, "--keys", data / "catalog" / "keys.db") == 0
    assert cli("restore", "--data", new) == 0
    assert cli.out == "the log is intact\n"


@pytest.mark.slow
def test_a_damaged_backup_creates_no_data_folder(made: Path, tmp_path: Path, cli: Cli) -> None:
    backup, new = Path(shutil.copytree(made / "backup", tmp_path / "backup")), tmp_path / "new"
    (backup / "archive.db").write_bytes(b"no database" * 1000)

    assert cli("backup", "verify", backup) == 1
    assert cli("backup", "restore", backup, "--data", new) != 0
    assert not new.exists()


@pytest.mark.parametrize(
    "command", [["backup", "create", "backup"], ["backup", "ls"], ["backup", "forget", "backup"], ["restore"]]
)
def test_without_data_a_server_address_is_refused_rather_than_another_folder_used(
    command: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(command, {**os.environ, "LORATORY_URL": "http://gpu:8000"}) == 2
    assert capfd.readouterr().err == (
        "loratory: LORATORY_URL is http://gpu:8000, but this command works on a data folder of this machine: "
        "name it with --data\n"
    )


@pytest.mark.parametrize(
    "command", [["backup", "create", "backup"], ["backup", "ls"], ["restore"], ["audit", "verify"]]
)
def test_a_data_folder_of_an_old_format_is_refused(command: list[str], tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "format").write_text(f"{FORMAT - 1}\n")
    assert cli(*command, "--data", tmp_path) == 2
    assert f"has the old format {FORMAT - 1}" in cli.err
    assert (cli.out, cli.err.count("\n")) == ("", 1)


@pytest.mark.slow
def test_a_backup_is_listed_until_it_is_forgotten(data: Path, tmp_path: Path, cli: Cli) -> None:
    backup = tmp_path / "backup"
    assert cli("backup", "create", backup, "--data", data) == 0
    assert cli("backup", "ls", "--data", data) == 0
    assert cli.out.splitlines()[0] == "Folder\tCreated\tState"
    assert f"{backup}\t20" in cli.out
    assert "folder missing" not in next(line for line in cli.out.splitlines() if line.startswith(f"{backup}\t"))
    shutil.rmtree(backup)
    cli("backup", "ls", "--data", data)
    assert "folder missing" in cli.out

    assert cli("backup", "forget", backup, "--data", data) == 0
    assert cli("backup", "forget", backup, "--data", data) == 1
    assert f"no backup in {backup} is registered" in cli.err
    cli("backup", "ls", "--data", data)
    assert str(backup) not in cli.out
    assert cli("backup", "ls", "--data", tmp_path / "typo") == 2


@pytest.mark.slow
def test_what_would_be_given_up_is_listed_and_confirmed(data: Path, cli: Cli) -> None:
    keys = data / "catalog" / "keys.db"
    keys.unlink()

    assert cli("accept-loss", "keys", "--data", data) == 2
    assert cli.out.startswith(f"lost: the key file {keys}, with it the names and captions of 0 images")
    assert cli.err == "loratory: giving up is irreversible; add --yes\n"
    assert not keys.exists()

    assert cli("accept-loss", "keys", "--data", data, "--yes") == 0
    assert "the public key that verifies audit heads is now " in cli.out
    assert keys.is_file()


@pytest.mark.slow
def test_nothing_is_given_up_that_is_not_lost(data: Path, cli: Cli) -> None:
    for kind, sentence in (
        ("keys", "the key file is there and intact"),
        ("images", "no keys of images are lost"),
        ("blobs", "no blobs are lost"),
    ):
        assert cli("accept-loss", kind, "--data", data, "--yes") == 2
        assert sentence in cli.err
    assert cli("accept-loss", "everything", "--data", data, "--yes") == 2


@pytest.mark.slow
def test_single_keys_are_not_given_up_where_the_whole_file_is_lost(data: Path, cli: Cli) -> None:
    (data / "catalog" / "keys.db").write_bytes(b"no database" * 1000)
    assert cli("accept-loss", "images", "--data", data, "--yes") == 2
    assert "the whole key file is lost" in cli.err


@pytest.mark.slow
def test_nothing_is_given_up_before_a_damaged_log_is_restored(data: Path, cli: Cli) -> None:
    shutil.rmtree(data / "nats" / "streams")
    assert cli("accept-loss", "keys", "--data", data, "--yes") == 3
    assert f"cure: `loratory restore --data {data}`" in cli.err


@pytest.mark.slow
def test_a_backup_without_keys_is_no_cure_for_lost_ones(data: Path, tmp_path: Path, cli: Cli) -> None:
    assert cli("backup", "create", tmp_path / "no-keys", "--data", data, "--without-keys") == 0
    (data / "catalog" / "keys.db").write_bytes(b"no database" * 1000)

    assert cli("restore", "--data", data, "--from", tmp_path / "no-keys") == 3
    assert "there is no copy of it; cure: `loratory" in cli.err
