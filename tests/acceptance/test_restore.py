"""A damaged log is refused and restored to the last acknowledged commit; a deleted data folder is restored, too."""

import asyncio
import json
import re
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from contracts.wire.log.scan import log_state, scan
from contracts.wire.server.embedded import EmbeddedServer
from contracts.wire.service.bus import connect
from tests.acceptance.crawl import SavedResponse, compare, crawl
from tests.acceptance.local_stack import LocalStack, cli

LOG = Path("nats/streams/jetstream/LORATORY/streams/EVT")
API = "/api/v1"

LOG_ROUTES = re.compile(r"/events|/audit|^/api(/v1)?/status$")

Commits = dict[int, tuple[str, bytes]]
"""Subject and body by sequence."""


class StoppedStack(NamedTuple):
    """A stopped stack: its data folder, the commits of its log, and an earlier copy of the log's folder."""

    data: Path
    commits: Commits
    cursor: str
    dataset_names: list[str]
    earlier_log: Path


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory, picture_folder: Path) -> StoppedStack:
    home = tmp_path_factory.mktemp("kept")
    stack, earlier = LocalStack(home / "data", workers=False), home / "earlier"
    try:
        stack.start()
        create_datasets(stack, range(12))
        stack.stop()
        shutil.copytree(stack.data / LOG, earlier)
        stack.start()
        create_datasets(stack, range(12, 24))
        with stack.client() as client, stack.http() as http:
            client.create_dataset("basket")
            client.import_folder("basket", picture_folder)
            names, cursor = dataset_names_and_cursor(http)
    finally:
        stack.stop()
    return StoppedStack(stack.data, commits_of(stack.data), cursor, names, earlier)


def create_datasets(stack: LocalStack, numbers: range) -> None:
    with stack.http() as http:
        for number in numbers:
            http.post(f"{API}/datasets", json={"name": f"set {number}"}).raise_for_status()


def dataset_names_and_cursor(http: httpx.Client) -> tuple[list[str], str]:
    """The names of all data sets, and the cursor after the last event."""
    datasets = http.get(f"{API}/datasets", params={"limit": 100}).raise_for_status().json()
    events = http.get(f"{API}/events", params={"limit": 500}).raise_for_status().json()
    return sorted(item["name"] for item in datasets["items"]), events["items"][-1]["cursor"]


def commits_of(data: Path) -> Commits:
    """Read the log with a nats-server of its own; the stack must be stopped."""

    async def read() -> Commits:
        async with EmbeddedServer(data / "nats") as server:
            bus = await connect(server.url, *server.credentials("catalog"), "test")
            try:
                last = (await log_state(bus)).last
                return {
                    message.sequence: (message.subject, message.body)
                    async for batch in scan(bus, 0, last)
                    for message in batch
                }
            finally:
                await bus.close()

    return asyncio.run(read())


def block_file(data: Path) -> Path:
    return data / LOG / "msgs" / "1.blk"


def flip_a_bit(stopped: StoppedStack, data: Path) -> None:
    body = bytearray(block_file(data).read_bytes())
    body[len(body) // 2] ^= 1
    block_file(data).write_bytes(body)


def truncate_a_block(stopped: StoppedStack, data: Path) -> None:
    body = block_file(data).read_bytes()
    block_file(data).write_bytes(body[: len(body) * 9 // 10])


def roll_the_log_back(stopped: StoppedStack, data: Path) -> None:
    shutil.rmtree(data / LOG)
    shutil.copytree(stopped.earlier_log, data / LOG)


def delete_the_log(stopped: StoppedStack, data: Path) -> None:
    shutil.rmtree(data / LOG)


@pytest.mark.parametrize(
    "damage",
    [
        *(pytest.param(damage, marks=pytest.mark.slow) for damage in (flip_a_bit, truncate_a_block, roll_the_log_back)),
        delete_the_log,
    ],
)
def test_a_damaged_log_is_refused_and_restored_to_the_last_commit(
    stopped: StoppedStack, tmp_path: Path, damage: Callable[[StoppedStack, Path], None]
) -> None:
    stack = LocalStack(tmp_path / "data", workers=False)
    shutil.copytree(stopped.data, stack.data)
    damage(stopped, stack.data)

    refused = cli("up", "--data", stack.data, "--port", "0", "--no-tagger", "--no-trainer", timeout=60)
    assert refused.returncode == 1
    assert re.search(r"commit \d+", refused.stderr)
    assert "loratory restore" in refused.stderr

    restored = cli("restore", "--data", stack.data, timeout=60)
    assert restored.returncode == 0, restored.stderr
    assert f"holds all {len(stopped.commits)} commits again" in restored.stdout

    commits = commits_of(stack.data)
    last = max(commits)
    assert json.loads(commits.pop(last)[1])["events"][0]["type"] == "log.restored"
    assert commits == stopped.commits
    assert last == len(stopped.commits) + 1
    assert_serves_restored_data(stack, stopped, last)


@pytest.mark.slow
def test_an_intact_log_is_not_changed(stopped: StoppedStack) -> None:
    result = cli("restore", "--data", stopped.data)

    assert (result.returncode, result.stdout) == (0, "the log is intact\n")
    assert commits_of(stopped.data) == stopped.commits


def assert_serves_restored_data(stack: LocalStack, stopped: StoppedStack, last: int) -> None:
    """All data is there, new writes get the next sequence, and cursors of the old log are refused."""
    stack.start()
    try:
        with stack.http() as http:
            names, cursor = dataset_names_and_cursor(http)
            assert names == stopped.dataset_names
            created = http.post(f"{API}/datasets", json={"name": "after the restore"}).raise_for_status()
            assert int(created.headers["Loratory-Seq"]) == last + 1
            gone = http.get(f"{API}/events", params={"after": stopped.cursor})
            assert (gone.status_code, gone.json()["log_id"]) == (410, cursor.split(".")[0])
    finally:
        stack.stop()


# --- disaster recovery: create, delete, restore


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
