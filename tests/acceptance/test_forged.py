"""Forged commits change nothing and end nobody; lost and rotated keys cost nothing; a whole stack, as users run it."""

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from contracts.events.datasets import DatasetRenamed
from contracts.events.jobs import JobSucceeded
from contracts.ids import keyed_command_id
from contracts.signatures import SigningKey
from tests.acceptance.crawl import SavedResponse, compare, crawl
from tests.acceptance.forged_commits import Forger, foreign_sequences, key_of
from tests.acceptance.local_stack import LocalStack, cli
from tests.acceptance.test_restore import LOG_ROUTES
from tests.limits import WAIT

pytestmark = [pytest.mark.slow]

API = "/api/v1"


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[LocalStack]:
    stack = LocalStack(tmp_path / "data", workers=False)
    stack.start()
    yield stack
    stack.stop()


def test_forged_commits_are_named_and_change_nothing(stack: LocalStack) -> None:
    with stack.client() as client, stack.http() as http:
        dataset = client.create_dataset("cats")
        before = views(http)
        forger, renamed = Forger(stack), DatasetRenamed(name="stolen")
        forger.forge("dataset", dataset.id, renamed)
        forger.forge("dataset", dataset.id, renamed, key=SigningKey.generate())
        forger.forge("dataset", dataset.id, renamed, key=key_of(stack, "catalog"), log_id="another workshop's")
        forger.publish("job", dataset.id, b"\xff\x00 garbage")
        succeeded = JobSucceeded(attempt=1, step=1, artifacts=())
        forger.forge("job", "job_nobody_made", succeeded, key=key_of(stack, "catalog"))
        sequences = forger.sequences

        listed = http.get(f"{API}/audit/foreign", params={"min_seq": sequences[-1]}).raise_for_status().json()
        assert [one["sequence"] for one in listed["items"]] == sequences
        assert listed["items"][0]["reason"] == "it is not signed"
        assert compare(before, views(http)) == []

        response = http.patch(f"{API}/datasets/{dataset.id}", json={"name": "dogs"})  # the aggregate goes on
        assert response.status_code == 200, response.text
        report = http.post(f"{API}/audit/verify").raise_for_status().json()
        assert (report["damage"], report["foreign"]) == ([], len(sequences))
    listing = cli("audit", "foreign", "--url", stack.address)
    assert (listing.returncode, len(listing.stdout.splitlines())) == (1, len(sequences))


def test_a_message_under_the_id_of_a_command_to_come_is_not_taken_for_it(stack: LocalStack) -> None:
    forger, headers = Forger(stack), {"Idempotency-Key": "the name to come"}
    with stack.client() as client, stack.http() as http:
        dataset = client.create_dataset("cats").id
        command = keyed_command_id(actor_of(http), headers["Idempotency-Key"])
        forger.forge("dataset", dataset, DatasetRenamed(name="stolen"), command_id=command)

        for _ in range(2):  # the second answer is the first one again
            renamed = http.patch(f"{API}/datasets/{dataset}", json={"name": "dogs"}, headers=headers)
            assert renamed.status_code == 200, renamed.text
            assert http.get(f"{API}/datasets/{dataset}").json()["name"] == "dogs"
        assert forger.replay("dataset", dataset, -1) > renamed.json()["sequence"]
        assert foreign_sequences(http, forger.sequences[-1]) == forger.sequences
        assert http.get(f"{API}/datasets/{dataset}").json()["name"] == "dogs"


def test_a_message_changed_in_the_store_is_found_as_damage_not_as_a_commit(stack: LocalStack) -> None:
    with stack.client() as client:
        client.create_dataset("a data set with a name")
    stack.stop()
    (block,) = (stack.data / "nats").glob("streams/jetstream/*/streams/EVT/msgs/1.blk")
    block.write_bytes(block.read_bytes().replace(b"a data set with a name", b"a data set with a NAME"))
    report = cli("audit", "verify", "--data", stack.data)
    assert report.returncode == 1
    assert "is not in the log" in report.stdout + report.stderr or "was changed" in report.stdout + report.stderr


def test_deleted_and_rotated_keys_cost_nothing(stack: LocalStack, tmp_path: Path) -> None:
    with stack.client() as client, stack.http() as http:
        client.create_dataset("cats")
        before = views(http)
    for round_number in range(2):
        rotated = cli("keys", "rotate", "catalog", "--data", stack.data)
        assert rotated.returncode == 0, rotated.stderr
        with stack.http() as http:
            wait_for_retired_keys(http, round_number + 1)
            assert compare(before, views(http)) == []
    stack.stop()
    for key in (stack.data / "keys").iterdir():
        key.unlink()
    stack.start()
    with stack.client() as client, stack.http() as http:
        client.create_dataset("after")
        saved = views(http)
        assert http.get(f"{API}/audit/foreign").json()["total"] == 0
    created = cli("backup", "create", tmp_path / "backup", "--data", stack.data)
    assert created.returncode == 0, created.stderr
    stack.stop()
    restored = LocalStack(tmp_path / "restored", workers=False)
    assert cli("backup", "restore", tmp_path / "backup", "--data", restored.data).returncode == 0
    restored.start()
    try:
        with restored.http() as http:
            assert compare(saved, views(http)) == []
            report = http.post(f"{API}/audit/verify").raise_for_status().json()
            assert (report["damage"], report["foreign"]) == ([], 0)
    finally:
        restored.stop()


def views(http: httpx.Client) -> dict[str, SavedResponse]:
    """All responses except those about the log itself."""
    return {address: response for address, response in crawl(http).items() if not LOG_ROUTES.search(address)}


def actor_of(http: httpx.Client) -> str:
    """The actor of this client's commands."""
    return str(http.get(f"{API}/events", params={"type": "dataset.created"}).json()["items"][0]["actor"])


def wait_for_retired_keys(http: httpx.Client, number: int) -> None:
    deadline = time.monotonic() + WAIT
    while True:
        events = http.get(f"{API}/events", params={"type": "service-key.retired", "limit": 100}).json()["items"]
        if len(events) == number:
            return
        assert time.monotonic() < deadline, events
        time.sleep(0.2)
