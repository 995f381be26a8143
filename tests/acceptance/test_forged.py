"""Forged commits change nothing and end nobody; lost and rotated keys cost nothing; a whole stack, as users run it."""

import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import msgspec
import pytest

from contracts.commands.base import CommandMetadata
from contracts.commits import StreamRevision, build_commit, encode_commit
from contracts.events.base import Event
from contracts.events.datasets import DatasetRenamed
from contracts.events.jobs import JobEdited, JobSucceeded
from contracts.ids import CommandId, ulid
from contracts.signatures import HEADER, Signer, SigningKey
from contracts.wire.log.event_log import EventLog
from contracts.wire.server.embedded import running_server
from contracts.wire.service.bus import Bus, connect
from tests.acceptance.crawl import SavedResponse, compare, crawl
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


class ForgedCommit(msgspec.Struct, frozen=True, kw_only=True):
    """A commit on an aggregate's subject, at the right revision and with the right hash, but not of its owner.

    `key`: signs it; `raw`: is published instead of it.
    """

    kind: str
    aggregate_id: str
    event: Event
    key: SigningKey | None = None
    log_id: str | None = None
    raw: bytes | None = None

    def forge(self, stack: LocalStack) -> int:
        """Publishes it as someone with the password of `admin`, who may publish anything; returns its sequence."""

        async def publish() -> int:
            async with await connect(*running_server(stack.data / "nats", "admin"), "forger") as bus:
                return await self._publish(bus)

        return asyncio.run(publish())

    async def _publish(self, bus: Bus) -> int:
        log = EventLog(bus)
        history = await log.load(self.kind, self.aggregate_id)
        metadata = CommandMetadata(command_id=CommandId(ulid()), actor="user:local", at=datetime.now(UTC))
        revision = history.revision if history.commits else StreamRevision()
        commit = build_commit(self.kind, self.aggregate_id, [self.event], expected_revision=revision, metadata=metadata)
        body, subject = self.raw or encode_commit(commit), f"evt.{self.kind}.{self.aggregate_id}"
        log_id = self.log_id or (await log.end())[0]
        headers = {} if self.key is None else {HEADER: Signer(self.key, log_id).sign(subject, body)}
        return int((await bus.jetstream().publish(subject, body, headers=headers)).seq)


def key_of(stack: LocalStack, service: str) -> SigningKey:
    return SigningKey(bytes.fromhex((stack.data / "keys" / f"{service}.key").read_text().strip()))


def test_forged_commits_are_named_and_change_nothing(stack: LocalStack) -> None:
    with stack.client() as client, stack.http() as http:
        dataset = client.create_dataset("cats")
        before = views(http)
        forged = [
            ForgedCommit(kind="dataset", aggregate_id=dataset.id, event=DatasetRenamed(name="stolen")),
            ForgedCommit(
                kind="dataset", aggregate_id=dataset.id, event=DatasetRenamed(name="stolen"), key=SigningKey.generate()
            ),
            ForgedCommit(
                kind="dataset",
                aggregate_id=dataset.id,
                event=DatasetRenamed(name="stolen"),
                key=key_of(stack, "catalog"),
                log_id="another workshop's",
            ),
            ForgedCommit(kind="job", aggregate_id=dataset.id, event=JobEdited(name="x"), raw=b"\xff\x00 garbage"),
            ForgedCommit(
                kind="job",
                aggregate_id="job_nobody_made",
                event=JobSucceeded(attempt=1, step=1, artifacts=()),
                key=key_of(stack, "catalog"),
            ),
        ]
        sequences = [one.forge(stack) for one in forged]

        listed = http.get(f"{API}/audit/foreign", params={"min_seq": sequences[-1]}).raise_for_status().json()
        assert [one["sequence"] for one in listed["items"]] == sequences
        assert listed["items"][0]["reason"] == "it is not signed"
        assert compare(before, views(http)) == []

        renamed = http.patch(f"{API}/datasets/{dataset.id}", json={"name": "dogs"})  # the aggregate goes on
        assert renamed.status_code == 200, renamed.text
        report = http.post(f"{API}/audit/verify").raise_for_status().json()
        assert (report["damage"], report["foreign"]) == ([], len(forged))
    listing = cli("audit", "foreign", "--url", stack.address)
    assert (listing.returncode, len(listing.stdout.splitlines())) == (1, len(forged))


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


def wait_for_retired_keys(http: httpx.Client, number: int) -> None:
    deadline = time.monotonic() + WAIT
    while True:
        events = http.get(f"{API}/events", params={"type": "service-key.retired", "limit": 100}).json()["items"]
        if len(events) == number:
            return
        assert time.monotonic() < deadline, events
        time.sleep(0.2)
