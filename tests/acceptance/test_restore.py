"""Disaster recovery: a data folder is created, backed up, deleted and restored. Damaged logs: test_damage.py."""

import json
import re
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.acceptance.crawl import SavedResponse, compare, crawl
from tests.acceptance.local_stack import LocalStack, cli

API = "/api/v1"

LOG_ROUTES = re.compile(r"/events|/audit|^/api(/v1)?/status$")


@pytest.mark.slow
def test_a_deleted_data_folder_is_restored_from_its_backup_with_identical_responses(
    tmp_path: Path, picture_folder: Path
) -> None:
    stack, backup = LocalStack(tmp_path / "data", workers=False), tmp_path / "backup"
    try:
        stack.start()
        with stack.client() as client, stack.http() as http:
            client.create_dataset("basket")
            client.import_folder("basket", picture_folder)
            create_one_of_everything(http, client.images("basket")[0].id)
            back_up_during_writes(stack, backup)
            client.create_dataset("newer than the backup")
            updated = cli("backup", "create", backup, "--data", stack.data)
            assert updated.returncode == 0, updated.stderr
            before = crawl_without_log(http)
        stack.stop()
        shutil.rmtree(stack.data)

        checked = cli("backup", "verify", backup)
        assert checked.returncode == 0, checked.stderr
        restored = cli("backup", "restore", backup, "--data", stack.data)
        assert restored.returncode == 0, restored.stderr

        stack.start()
        with stack.http() as http:
            assert compare(before, crawl_without_log(http)) == []
            assert http.post(f"{API}/datasets", json={"name": "after the drill"}).is_success
    finally:
        stack.stop()


def back_up_during_writes(stack: LocalStack, backup: Path) -> None:
    """The backup contains everything acknowledged before it, and is intact."""
    done = threading.Event()

    def keep_writing() -> None:
        with stack.http() as http:
            for _ in iter(done.is_set, True):
                http.put(f"{API}/datasets/basket/thresholds", json={"general": 0.3, "character": 0.8})
                http.put(f"{API}/datasets/basket/thresholds", json={"general": 0.4, "character": 0.8})

    with ThreadPoolExecutor(1) as pool, stack.http() as http:
        acknowledged = http.get(f"{API}/status").json()["log"]["applied"]
        writing = pool.submit(keep_writing)
        created = cli("backup", "create", backup, "--data", stack.data)
        done.set()
        writing.result()
    assert created.returncode == 0, created.stderr
    assert json.loads((backup / "manifest.json").read_bytes())["sequence"] >= acknowledged
    checked = cli("backup", "verify", backup)
    assert checked.returncode == 0, checked.stderr


def create_one_of_everything(http: httpx.Client, image: str) -> None:
    """One of each kind of stored data."""
    changes = [
        http.put(f"{API}/images/{image}/caption", json={"caption": "momo on a hill"}),
        http.patch(f"{API}/images/{image}/tags", json={"add": ["momo"], "remove": ["bright"]}),
        http.put(f"{API}/datasets/basket/thresholds", json={"general": 0.3, "character": 0.8}),
        http.post(f"{API}/datasets/basket/versions", json={"trigger": "momo"}),
        http.post(f"{API}/jobs", json={"dataset": "basket", "preset": "tiny-random-demo", "name": "a draft"}),
    ]
    assert all(response.is_success for response in changes), [response.text for response in changes]


def crawl_without_log(http: httpx.Client) -> dict[str, SavedResponse]:
    """All responses except those about the log itself, which has one more commit and a new id after a restore."""
    return {address: response for address, response in crawl(http).items() if not LOG_ROUTES.search(response.route)}


@pytest.mark.slow
def test_a_folder_that_is_no_backup_or_not_empty_is_refused_in_one_sentence(tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "letters").write_text("dear …")

    for words, sentence in (
        (("backup", "verify", full), f"there is no backup in {full}\n"),
        (("backup", "restore", full, "--data", full), f"{full} is not empty"),
        (("backup", "restore", full, "--data", tmp_path / "new"), f"there is no backup in {full}\n"),
        (("backup", "create", full, "--data", tmp_path / "typo"), f"{tmp_path / 'typo'} is not a Loratory data folder"),
        (("restore", "--data", tmp_path / "typo"), f"{tmp_path / 'typo'} is not a Loratory data folder"),
    ):
        result = cli(*words)
        assert result.returncode in {1, 2}
        assert sentence in result.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"full"}
    assert (full / "letters").read_text() == "dear …"
