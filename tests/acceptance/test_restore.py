"""A damaged log is refused by name and restored to the last acknowledged commit; a wiped workshop comes back too."""

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

from contracts.wire.bus import connect
from contracts.wire.scan import log_state, scan
from contracts.wire.server import EmbeddedServer
from tests.acceptance.crawl import Answer, crawl, differences
from tests.acceptance.house import House, cli

pytestmark = [pytest.mark.slow]

LOG = Path("nats/streams/jetstream/LORATORY/streams/EVT")
P = "/api/v1"

OF_THE_LOG = re.compile(r"/events|/audit|^/api(/v1)?/status$")

Commits = dict[int, tuple[str, bytes]]
"""Subject and body by sequence."""


class Kept(NamedTuple):
    """A workshop that has ended: its folder, a copy of its log's commits, the log's folder of an earlier hour."""

    data: Path
    commits: Commits
    cursor: str
    names: list[str]
    earlier: Path


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory, basket: Path) -> Kept:
    home = tmp_path_factory.mktemp("kept")
    house, earlier = House(home / "data", workers=False), home / "earlier"
    try:
        house.start()
        write(house, range(12))
        house.stop()
        shutil.copytree(house.data / LOG, earlier)
        house.start()
        write(house, range(12, 24))
        with house.client() as client, house.http() as http:
            client.create_dataset("basket")
            client.import_folder("basket", basket)
            names, cursor = told(http)
    finally:
        house.stop()
    return Kept(house.data, commits_of(house.data), cursor, names, earlier)


def write(house: House, numbers: range) -> None:
    with house.http() as http:
        for number in numbers:
            http.post(f"{P}/datasets", json={"name": f"set {number}"}).raise_for_status()


def told(http: httpx.Client) -> tuple[list[str], str]:
    """All names of data sets, and the cursor after everything."""
    listed = http.get(f"{P}/datasets", params={"limit": 100}).raise_for_status().json()
    lines = http.get(f"{P}/events", params={"limit": 500}).raise_for_status().json()
    return sorted(item["name"] for item in listed["items"]), lines["items"][-1]["cursor"]


def commits_of(data: Path) -> Commits:
    """The log itself as a server has it that opens the folder; the workshop must be stopped."""

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


def block(data: Path) -> Path:
    return data / LOG / "msgs" / "1.blk"


def flip_a_bit(kept: Kept, data: Path) -> None:
    body = bytearray(block(data).read_bytes())
    body[len(body) // 2] ^= 1
    block(data).write_bytes(body)


def cut_a_block(kept: Kept, data: Path) -> None:
    body = block(data).read_bytes()
    block(data).write_bytes(body[: len(body) * 9 // 10])


def put_an_earlier_hour_back(kept: Kept, data: Path) -> None:
    shutil.rmtree(data / LOG)
    shutil.copytree(kept.earlier, data / LOG)


def delete_it(kept: Kept, data: Path) -> None:
    shutil.rmtree(data / LOG)


@pytest.mark.parametrize("harm", [flip_a_bit, cut_a_block, put_an_earlier_hour_back, delete_it])
def test_a_damaged_log_is_refused_and_restored_to_the_last_commit(
    kept: Kept, tmp_path: Path, harm: Callable[[Kept, Path], None]
) -> None:
    house = House(tmp_path / "data", workers=False)
    shutil.copytree(kept.data, house.data)
    harm(kept, house.data)

    refused = cli("up", "--data", house.data, "--port", "0", "--no-tagger", "--no-trainer", timeout=60)
    assert refused.returncode == 1
    assert re.search(r"commit \d+", refused.stderr)
    assert "loratory restore" in refused.stderr

    restored = cli("restore", "--data", house.data, timeout=60)
    assert restored.returncode == 0, restored.stderr
    assert f"holds all {len(kept.commits)} commits again" in restored.stdout

    commits = commits_of(house.data)
    last = max(commits)
    assert json.loads(commits.pop(last)[1])["facts"][0]["type"] == "log.restored"
    assert commits == kept.commits
    assert last == len(kept.commits) + 1
    serves_again(house, kept, last)


def test_a_whole_log_is_left_alone(kept: Kept) -> None:
    answer = cli("restore", "--data", kept.data)

    assert (answer.returncode, answer.stdout) == (0, "the log is whole; there is nothing to restore\n")
    assert commits_of(kept.data) == kept.commits


def serves_again(house: House, kept: Kept, last: int) -> None:
    """All that was there is, writes go on behind it, and who followed the old log must start again."""
    house.start()
    try:
        with house.http() as http:
            assert told(http)[0] == kept.names
            made = http.post(f"{P}/datasets", json={"name": "after the restore"}).raise_for_status()
            assert int(made.headers["Loratory-Seq"]) == last + 1
            gone = http.get(f"{P}/events", params={"after": kept.cursor})
            assert (gone.status_code, gone.json()["log_id"]) == (410, told(http)[1].split(".")[0])
    finally:
        house.stop()


# --- the drill: create, wipe, restore


def test_a_wiped_workshop_comes_back_from_its_backup_with_the_same_answers(tmp_path: Path, basket: Path) -> None:
    house, backup = House(tmp_path / "data", workers=False), tmp_path / "backup"
    try:
        house.start()
        with house.client() as client, house.http() as http:
            client.create_dataset("basket")
            client.import_folder("basket", basket)
            furnish(http, client.images("basket")[0].id)
            back_up_while_somebody_writes(house, backup)
            client.create_dataset("of today")
            made = cli("backup", "create", backup, "--data", house.data)  # brought up to date
            assert made.returncode == 0, made.stderr
            before = crawled(http)
        house.stop()
        shutil.rmtree(house.data)

        checked = cli("backup", "verify", backup)
        assert checked.returncode == 0, checked.stderr
        restored = cli("backup", "restore", backup, "--data", house.data)
        assert restored.returncode == 0, restored.stderr

        house.start()
        with house.http() as http:
            assert differences(before, crawled(http)) == []
            assert http.post(f"{P}/datasets", json={"name": "after the drill"}).is_success
    finally:
        house.stop()


def back_up_while_somebody_writes(house: House, backup: Path) -> None:
    """What was acknowledged before is in it, and it is whole."""
    done = threading.Event()

    def go_on() -> None:
        with house.http() as http:
            for _ in iter(done.is_set, True):
                http.put(f"{P}/datasets/basket/thresholds", json={"general": 0.3, "character": 0.8})
                http.put(f"{P}/datasets/basket/thresholds", json={"general": 0.4, "character": 0.8})

    with ThreadPoolExecutor(1) as pool, house.http() as http:
        acknowledged = http.get(f"{P}/status").json()["log"]["applied"]
        writing = pool.submit(go_on)
        made = cli("backup", "create", backup, "--data", house.data)
        done.set()
        writing.result()
    assert made.returncode == 0, made.stderr
    assert json.loads((backup / "manifest.json").read_bytes())["sequence"] >= acknowledged
    checked = cli("backup", "verify", backup)
    assert checked.returncode == 0, checked.stderr


def furnish(http: httpx.Client, image: str) -> None:
    """Something of all that lasts."""
    changes = [
        http.put(f"{P}/images/{image}/caption", json={"caption": "momo on a hill"}),
        http.patch(f"{P}/images/{image}/tags", json={"add": ["momo"], "remove": ["bright"]}),
        http.put(f"{P}/datasets/basket/thresholds", json={"general": 0.3, "character": 0.8}),
        http.post(f"{P}/datasets/basket/versions", json={"trigger": "momo"}),
        http.post(f"{P}/jobs", json={"dataset": "basket", "preset": "stand-in-demo", "name": "a draft"}),
    ]
    assert all(answer.is_success for answer in changes), [answer.text for answer in changes]


def crawled(http: httpx.Client) -> dict[str, Answer]:
    """All answers but those about the log itself: it has one commit more now, and another name."""
    return {address: answer for address, answer in crawl(http).items() if not OF_THE_LOG.search(answer.route)}


def test_what_is_no_backup_or_no_empty_folder_is_refused_in_one_sentence(tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "letters").write_text("dear …")

    for words, sentence in (
        (("backup", "verify", full), f"there is no backup in {full}\n"),
        (("backup", "restore", full, "--data", full), f"{full} is not empty"),
        (("backup", "restore", full, "--data", tmp_path / "new"), f"there is no backup in {full}\n"),
        (("backup", "create", full, "--data", tmp_path / "typo"), f"{tmp_path / 'typo'} is no data folder"),
        (("restore", "--data", tmp_path / "typo"), f"{tmp_path / 'typo'} is no data folder"),
    ):
        answer = cli(*words)
        assert answer.returncode in {1, 2}
        assert sentence in answer.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"full"}
    assert (full / "letters").read_text() == "dear …"
