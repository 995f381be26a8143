"""Every file of a data folder, damaged in every way: it starts, or names one command that cures it, and shows the same.

The quick set damages two files; `--all` walks the whole table. Blobs never stop a start: see test_lost_bytes.py.
"""

import os
import shutil
import signal
import time
from collections.abc import Callable, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from contracts.cures import cures_in
from contracts.wire.server.accounts import ROLES
from tests.acceptance.local_stack import LocalStack, cli
from tests.acceptance.workshops import import_one_more, make_workshop, run_command, snapshot, start_with_cures
from tests.damage import damage_file, execute_sql
from tests.limits import WAIT

pytestmark = pytest.mark.slow

STREAMS = "nats/streams/jetstream/LORATORY/streams"
STREAM_FILES = [
    f"{STREAMS}/{stream}/{file}"
    for stream in ("EVT", "JOBS", "MET", "KV_catalog")
    for file in ("meta.inf", "meta.sum", "msgs/1.blk", "msgs/index.db")
]
CATALOG_FILES = [f"catalog/{name}" for name in ("archive.db", "keys.db", "read.db", "log_id", "backups.json")]
KEY_FILES = ["keys/catalog.key", *(f"nats/keys/{role}.nk" for role in ROLES)]
ESSENTIAL = ["format", *CATALOG_FILES, *KEY_FILES, *STREAM_FILES, f"{STREAMS}/KV_catalog/msgs/thw.db"]
"""Damaged one by one."""
CURED_FROM_BACKUPS = ("catalog/archive.db", "catalog/keys.db")
"""Here the cure depends on whether there is a backup."""
HARMLESS = (
    *("lock", "run/*", "logs/*", "staging/*", "work/*", "cache/*", "loras/*"),
    *("nats/lock", "nats/port", "nats/server.conf", "nats/server.log*", "nats/*.ports", f"{STREAMS}/*/obs/*"),
)
"""Damaged all at once: none of them may stop a start."""
WAL_FILES = ("catalog/archive.db-wal", "catalog/keys.db-wal", "catalog/read.db-wal")
"""What a crash leaves, with the newest transactions."""
ELSEWHERE = ("blobs/*", "catalog/*.db-shm")
"""Blobs have tests of their own; SQLite makes the index of a WAL again."""
WAYS = ("middle", "end", "emptied", "deleted", "another")
QUICK = {("catalog/keys.db", "deleted", True), ("catalog/archive.db", "middle", False)}

Shown = Mapping[str, Any]


class Workshops(NamedTuple):
    """A stopped workshop with a backup, what it shows, and another workshop."""

    data: Path
    shown: Shown
    other: Path


@pytest.fixture(scope="module")
def workshops(tmp_path_factory: pytest.TempPathFactory) -> Workshops:
    home = tmp_path_factory.mktemp("workshops")
    shown = make_workshop(home / "data", home / "pictures", seed=3, backup=home / "backup")
    make_workshop(home / "other", home / "others", seed=4)
    return Workshops(home / "data", shown, home / "other")


@pytest.fixture(scope="module")
def crashed(workshops: Workshops, tmp_path_factory: pytest.TempPathFactory) -> Workshops:
    """Both workshops, killed after one more import: its rows are in the WALs only."""
    home = tmp_path_factory.mktemp("crashed")
    shown: Shown = {}
    for name, source in (("other", workshops.other), ("data", workshops.data)):
        stack = LocalStack(Path(shutil.copytree(source, home / name)), workers=False)
        stack.start()
        with stack.client() as client, stack.http() as http:
            import_one_more(client, home / f"{name}-picture")
            shown = snapshot(http)
        kill(stack)
    return Workshops(home / "data", shown, home / "other")


def kill(stack: LocalStack) -> None:
    """Kill `up` and the catalog, which then cannot close its files; the rest ends with them."""
    catalog, nats = stack.pid("catalog"), stack.pid("nats")
    assert stack._process is not None
    stack._process.kill()
    for pid in (catalog, nats):
        os.kill(pid, signal.SIGKILL)
    stack.stop()


def cases() -> list[Any]:
    """Each essential file in each way, with and without a backup where that matters."""
    found = [(file, how, has) for file in ESSENTIAL for how in WAYS for has in (True, False)]
    found = [case for case in found if case[0] in CURED_FROM_BACKUPS or not case[2]]
    return [pytest.param(*case, marks=() if case in QUICK else pytest.mark.drill) for case in found]


@pytest.mark.parametrize(("file", "how", "has_backup"), cases())
def test_a_damaged_file_is_cured_by_the_command_that_the_refusal_names(
    workshops: Workshops, tmp_path: Path, file: str, how: str, has_backup: bool
) -> None:
    data = Path(shutil.copytree(workshops.data, tmp_path / "data"))
    if not has_backup and file != "catalog/backups.json":
        (data / "catalog" / "backups.json").write_bytes(b"[]")
    damage_file(data / file, how, workshops.other / file)

    commands, shown = started_with_cures(data)

    if any("accept-loss keys" in command for command in commands):
        assert not has_backup
        assert_only_texts_are_lost(workshops.shown, shown)
    else:
        assert shown == workshops.shown
    assert not has_backup or file != "catalog/keys.db" or all("--from" in command for command in commands)


@pytest.mark.drill
@pytest.mark.parametrize("how", WAYS)
def test_files_that_are_made_again_are_never_refused(workshops: Workshops, tmp_path: Path, how: str) -> None:
    data = Path(shutil.copytree(workshops.data, tmp_path / "data"))
    damaged = [file for file in files_of(data) if matches(file, HARMLESS)]
    assert len(damaged) >= 5
    for file in damaged:
        if how != "another" or (workshops.other / file).exists():
            damage_file(data / file, how, workshops.other / file)

    assert started_with_cures(data) == ([], workshops.shown)


@pytest.mark.drill
@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("file", WAL_FILES)
def test_a_damaged_wal_loses_nothing_that_another_file_has(
    crashed: Workshops, tmp_path: Path, file: str, how: str
) -> None:
    data = Path(shutil.copytree(crashed.data, tmp_path / "data"))
    damage_file(data / file, how, crashed.other / file)

    _, shown = started_with_cures(data)

    images = {image for image in images_of(shown) if shown[image]["key_missing"]}
    assert len(images) <= (1 if file == "catalog/keys.db-wal" else 0)  # the newest key is in no other file
    lost = {key for key in shown if key.partition("/")[0] in images}
    assert {shown[key] for key in lost - images} <= {"key-missing"}
    assert {key: value for key, value in shown.items() if key not in lost} == {
        key: value for key, value in crashed.shown.items() if key not in lost
    }
    assert not any(shown[image]["erased"] for image in images_of(shown))


def test_the_tables_above_name_every_file_of_a_data_folder(workshops: Workshops) -> None:
    known = (*ESSENTIAL, *HARMLESS, *WAL_FILES, *ELSEWHERE)
    assert [file for file in files_of(workshops.data) if not matches(file, known)] == []
    assert [file for file in ESSENTIAL if not (workshops.data / file).exists()] == []


def started_with_cures(data: Path) -> tuple[list[str], Shown]:
    """The commands that were needed to start it, and what it shows then."""
    stack = LocalStack(data, workers=False)
    try:
        commands = start_with_cures(stack)
        with stack.http() as http:
            return commands, snapshot(http)
    finally:
        stack.stop()


def assert_only_texts_are_lost(before: Shown, after: Shown) -> None:
    """Names and captions cannot be read, which is said and is no erasure; all bytes are there."""
    images = images_of(before)
    assert {key: value for key, value in after.items() if key not in images} == {
        key: value for key, value in before.items() if key not in images
    }
    assert [(after[image]["erased"], after[image]["key_missing"]) for image in images] == [(False, True)] * len(images)


def images_of(shown: Shown) -> list[str]:
    return [key for key in shown if key.startswith("img_") and "/" not in key]


def files_of(data: Path) -> list[str]:
    return sorted(str(file.relative_to(data)) for file in data.rglob("*") if file.is_file())


def matches(file: str, patterns: tuple[str, ...] | list[str]) -> bool:
    return any(fnmatch(file, pattern) for pattern in patterns)


# --- losses that do not stop a start


def lose_blobs(data: Path) -> None:
    shutil.rmtree(data / "blobs")


def damage_sources(data: Path) -> None:
    """Other bytes of another length, from which nothing can be made again."""
    for blob in (data / "blobs").rglob("*/*/*"):
        if blob.is_file():
            blob.write_bytes(b"?")


def lose_all_keys(data: Path) -> None:
    execute_sql(data / "catalog" / "keys.db", "DELETE FROM key")


@pytest.mark.drill
@pytest.mark.parametrize("lose", [lose_blobs, damage_sources, lose_all_keys])
def test_what_is_lost_comes_back_by_the_command_that_health_names(
    workshops: Workshops, tmp_path: Path, lose: Callable[[Path], None]
) -> None:
    data = Path(shutil.copytree(workshops.data, tmp_path / "data"))
    lose(data)

    (command,) = cures_of_losses(data)
    assert "--from" in command
    run_command(command)

    assert started_with_cures(data) == ([], workshops.shown)
    assert cures_of_losses(data) == []


@pytest.mark.drill
@pytest.mark.parametrize(("lose", "kind"), [(lose_blobs, "blobs"), (lose_all_keys, "images")])
def test_without_a_backup_the_command_gives_up_what_is_lost(
    workshops: Workshops, tmp_path: Path, lose: Callable[[Path], None], kind: str
) -> None:
    data = Path(shutil.copytree(workshops.data, tmp_path / "data"))
    (data / "catalog" / "backups.json").write_bytes(b"[]")
    execute_sql(data / "catalog" / "keys.db", "DELETE FROM backup")
    lose(data)

    (command,) = cures_of_losses(data)
    assert command == f"loratory accept-loss {kind} --data {data}"
    assert "given up: " in run_command(command)

    assert cures_of_losses(data) == []
    audited = cli("audit", "verify", "--data", data)
    assert audited.returncode == 0, audited.stdout + audited.stderr


def cures_of_losses(data: Path) -> list[str]:
    """The commands that `/health` of the started workshop names, once it has compared what is stored."""
    stack = LocalStack(data, workers=False)
    deadline = time.monotonic() + WAIT
    try:
        stack.start()
        with stack.http() as http:
            while not http.get("/health/ready").json()["losses"].get("checked_at"):
                assert time.monotonic() < deadline
            services = http.get("/health").json()["services"]
            return [command for service in services for command in cures_in(service["detail"])]
    finally:
        stack.stop()


# --- several losses at once


def lose_log_and_keys(data: Path) -> None:
    """And all that is known of backups."""
    shutil.rmtree(data / STREAMS / "EVT")
    for name in ("keys.db", "backups.json"):
        (data / "catalog" / name).unlink()


def test_without_log_keys_and_backup_history_is_kept_under_a_new_root_key(workshops: Workshops, tmp_path: Path) -> None:
    data = Path(shutil.copytree(workshops.data, tmp_path / "data"))
    lose_log_and_keys(data)

    commands, shown = started_with_cures(data)

    assert commands == [f"loratory accept-loss keys --data {data}"]
    assert_only_texts_are_lost(workshops.shown, shown)
    audited = cli("audit", "verify", "--data", data)
    assert (audited.returncode, "foreign" in audited.stdout) == (0, False), audited.stdout + audited.stderr
    (data / "catalog" / "archive.db").unlink()  # the new log alone says which root keys there were
    assert started_with_cures(data)[1] == shown


def test_without_log_archive_keys_and_backup_it_is_said_what_is_left(workshops: Workshops, tmp_path: Path) -> None:
    data = Path(shutil.copytree(workshops.data, tmp_path / "data"))
    lose_log_and_keys(data)
    (data / "catalog" / "archive.db").unlink()

    refused = cli("restore", "--data", data)

    assert refused.returncode == 2
    assert "history, tags and names cannot be brought back: `loratory up --data FOLDER`" in refused.stderr
