"""A damaged log is detected at start-up, while the services run, and by an audit, and restored to the last commit."""

import asyncio
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from playwright.sync_api import expect, sync_playwright

from contracts.cures import cures_in
from contracts.wire.log.scan import log_state, scan
from contracts.wire.server.embedded import EmbeddedServer
from contracts.wire.service.bus import connect
from tests.acceptance.local_stack import LocalStack, cli
from tests.damage import MESSAGE_FOLDER, block_files, delete_index, delete_log, flip_bit_in_text, truncate_within
from tests.gateway.browser import BROWSER_ARGS, CHROMIUM
from tests.limits import WAIT

API = "/api/v1"
LOG = Path(MESSAGE_FOLDER).parent
SETS = 24

Commits = dict[int, tuple[str, bytes]]
"""Subject and body by sequence."""


class StoppedStack(NamedTuple):
    """A stopped stack: its folder, an earlier copy of its log, the last sequence of both, and what it has and shows."""

    data: Path
    earlier_log: Path
    earlier_last: int
    last: int
    commits: Commits
    cursor: str
    dataset_names: list[str]

    def sequence_of(self, number: int) -> int:
        """The sequence of the data set with this number."""
        return self.last - SETS + 1 + number


def create_datasets(stack: LocalStack, numbers: range) -> int:
    """Create data sets; returns the sequence of the last one."""
    with stack.http() as http:
        for number in numbers:
            response = http.post(f"{API}/datasets", json={"name": f"set {number:02}"}).raise_for_status()
    return int(response.headers["Loratory-Seq"])


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory, picture_folder: Path) -> StoppedStack:
    home = tmp_path_factory.mktemp("kept")
    stack = LocalStack(home / "data", workers=False)
    try:
        stack.start()
        with stack.client() as client:
            client.create_dataset("basket")
            client.import_folder("basket", picture_folder)
        earlier_last = create_datasets(stack, range(SETS // 2))
        stack.stop()
        shutil.copytree(stack.data / "nats" / LOG, home / "earlier")
        stack.start()
        last = create_datasets(stack, range(SETS // 2, SETS))
        with stack.http() as http:
            names, cursor = dataset_names_and_cursor(http)
    finally:
        stack.stop()
    return StoppedStack(stack.data, home / "earlier", earlier_last, last, commits_of(stack.data), cursor, names)


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


@pytest.fixture
def data(stopped: StoppedStack, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    shutil.copytree(stopped.data, tmp_path / "data")
    return tmp_path / "data"


# Each function damages the log and returns the first missing sequence and how many commits are missing.


def flip(stopped: StoppedStack, nats: Path) -> tuple[int, int]:
    flip_bit_in_text(block_files(nats)[0], b'"name":"set 20"')
    return stopped.sequence_of(20), 1


def flip_after_a_crash(stopped: StoppedStack, nats: Path) -> tuple[int, int]:
    flip(stopped, nats)
    delete_index(nats)
    return stopped.sequence_of(20), SETS - 20


def truncate_block(stopped: StoppedStack, nats: Path) -> tuple[int, int]:
    truncate_within(block_files(nats)[0], b'"name":"set 20"')
    return stopped.sequence_of(20), SETS - 20


def roll_back(stopped: StoppedStack, nats: Path) -> tuple[int, int]:
    shutil.rmtree(nats / LOG)
    shutil.copytree(stopped.earlier_log, nats / LOG)
    return stopped.earlier_last + 1, stopped.last - stopped.earlier_last


def delete(stopped: StoppedStack, nats: Path) -> tuple[int, int]:
    delete_log(nats)
    return 1, stopped.last


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage",
    [
        flip,
        delete,
        *(pytest.param(way, marks=pytest.mark.drill) for way in (flip_after_a_crash, truncate_block, roll_back)),
    ],
)
def test_a_damaged_log_is_refused_and_restored_to_the_last_commit(
    stopped: StoppedStack, data: Path, damage: Callable[[StoppedStack, Path], tuple[int, int]]
) -> None:
    first, missing = damage(stopped, data / "nats")

    refused = cli("up", "--data", data, "--port", "0", "--no-tagger", "--no-trainer")

    assert refused.returncode == 1
    assert "Loratory is at" not in refused.stdout
    summary = f"of {stopped.last} archived commits {missing} are missing and 0 changed, from commit {first} on"
    assert summary in refused.stderr
    assert first == 1 or f"the last good one is commit {first - 1} of 20" in refused.stderr
    assert cures_in(refused.stderr) == [f"loratory restore --data {data}"]

    audited = cli("audit", "verify", "--data", data)
    assert audited.returncode == 1
    assert f"log missing from commit {first} on: " in audited.stdout
    assert summary in audited.stdout

    restored = cli("restore", "--data", data)
    assert restored.returncode == 0, restored.stderr
    assert f"holds all {len(stopped.commits)} commits again" in restored.stdout
    commits = commits_of(data)
    last = max(commits)
    assert json.loads(commits.pop(last)[1])["events"][0]["type"] == "log.restored"
    assert commits == stopped.commits
    assert last == len(stopped.commits) + 1
    assert_serves_restored_data(LocalStack(data, workers=False), stopped, last)


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


@pytest.mark.slow
def test_an_intact_log_is_not_changed(stopped: StoppedStack) -> None:
    result = cli("restore", "--data", stopped.data)

    assert (result.returncode, result.stdout) == (0, "the log is intact\n")
    assert commits_of(stopped.data) == stopped.commits


@pytest.mark.slow
def test_a_changed_byte_of_the_archive_is_found_by_an_audit_and_at_the_next_start(
    stopped: StoppedStack, data: Path
) -> None:
    stack = LocalStack(data, workers=False)
    try:
        stack.start()
        assert cli("audit", "verify", "--url", stack.address).stdout.endswith("history is intact\n")
        flip_bit_in_text(data / "catalog" / "archive.db", b'"name":"set 05"')
        audited = cli("audit", "verify", "--url", stack.address)
    finally:
        stack.stop()
    assert audited.returncode == 1
    assert f"archive changed from commit {stopped.sequence_of(5)} on: " in audited.stdout

    refused = cli("up", "--data", data, "--port", "0", "--no-tagger", "--no-trainer")
    assert refused.returncode == 1
    assert f"commit {stopped.sequence_of(5)} of the archive" in refused.stderr


@pytest.mark.slow
def test_a_log_rolled_back_while_the_services_run_stops_them_before_anything_is_written(
    stopped: StoppedStack, data: Path
) -> None:
    stack = LocalStack(data, workers=False)
    try:
        stack.start()
        restart_on(stack, lambda: roll_back(stopped, data / "nats"))
        assert (
            f"the log ends at {stopped.earlier_last}, but commits up to {stopped.last} were read from it"
            in stack.output
        )
        assert f"the last good one is commit {stopped.earlier_last} of 20" in stack.output
        assert cures_in(stack.output) == [f"loratory restore --data {data}"]
    finally:
        stack.stop()
    audited = cli("audit", "verify", "--data", data)
    assert f"log missing from commit {stopped.earlier_last + 1} on: " in audited.stdout


@pytest.mark.slow
@pytest.mark.chromium
@pytest.mark.skipif(CHROMIUM is None, reason="chromium: not installed on this machine")
def test_an_open_page_says_what_cures_a_log_that_was_damaged_while_it_ran(stopped: StoppedStack, data: Path) -> None:
    stack = LocalStack(data, workers=False)
    try:
        stack.start()
        with sync_playwright() as playwright:
            page = playwright.chromium.launch(executable_path=CHROMIUM, args=BROWSER_ARGS).new_page()
            expect.set_options(timeout=WAIT * 1000)
            page.goto(f"{stack.address}/#/datasets")
            expect(page.get_by_role("status").get_by_text("live", exact=True)).to_be_visible()
            restart_on(stack, lambda: roll_back(stopped, data / "nats"))
            expect(page.get_by_role("alert").locator("code")).to_have_text(f"loratory restore --data {data}")
        assert cures_in(stack.output) == [f"loratory restore --data {data}"]
    finally:
        stack.stop()


def restart_on(stack: LocalStack, change: Callable[[], object]) -> None:
    """Kill the NATS server, and change its files before `up` starts it again; returns once `up` has ended."""
    up = stack._process
    assert up is not None
    up.send_signal(signal.SIGSTOP)
    os.kill(stack.pid("nats"), signal.SIGKILL)
    change()
    up.send_signal(signal.SIGCONT)
    assert up.wait(WAIT) == 1
