"""The shapes on disk are frozen from format 4 on: a data folder of then, and its backup, are read and show the same."""

import time
from contextlib import closing
from pathlib import Path

import httpx
import msgspec
import pytest

from catalog.archive.rows import ARCHIVE
from catalog.database import open_reader
from catalog.entries import commits_at, last_sequence
from contracts.aggregates import REGISTRY
from tests.acceptance.format_folder import INTERRUPTED, show, unpack
from tests.acceptance.local_stack import LocalStack, cli
from tests.contracts.test_events import tag_of
from tests.limits import WAIT

GOLDEN = Path(__file__).parents[1] / "golden"
FOLDERS = sorted(GOLDEN.glob("folder-*.zip"))
NOT_DONE = {
    "log.restored",
    "log.voided",
    "log.loss_accepted",
    "service-key.retired",
    "job.attempt_failed",
    "job.failed",
    "tagging.attempt_failed",
    "tagging.cancel_requested",
    "tagging.cancelled",
    "tagging.failed",
    "tagging.interrupted",
}
"""What did not happen in the folder of format 4: each has its golden line."""
FEW_STEPS = 200
"""A job of more is followed until its next checkpoint, and to its end in another folder: the recipes are the same."""
EVENTS_OF_FORMAT_4 = 53
NEW_IN_TEXTS = {"dataset.text_received", "dataset.text_settings_set", "dataset.repeats_set", "dataset.mask_set"}


@pytest.mark.slow
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.stem)
def test_a_data_folder_of_an_older_version_shows_the_same_and_goes_on(folder: Path, tmp_path: Path) -> None:
    data, _ = unpack(folder, tmp_path)
    stack = LocalStack(data)
    try:
        stack.start()
        with stack.http() as http, stack.client() as client:
            (interrupted,) = (job for job in client.jobs() if job.name == INTERRUPTED)
            assert show(http) == shown_then(folder)
            report = http.post("/api/v1/audit/verify").raise_for_status().json()
            assert (report["damage"], report["foreign"]) == ([], 0)
            assert client.audit_replay().state == "same"
            wait_until_it_goes_on(http, interrupted.id)
            if (interrupted.steps or 0) <= FEW_STEPS:
                done = client.wait_job(interrupted.id, timeout=3 * WAIT)
                assert (done.status, done.step) == ("completed", done.steps)
            assert http.get("/api/v1/losses").raise_for_status().json()["items"] == []
    finally:
        stack.stop()


@pytest.mark.slow
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.stem)
def test_a_backup_of_an_older_version_is_restored_and_shows_the_same(folder: Path, tmp_path: Path) -> None:
    _, backup = unpack(folder, tmp_path)
    verified = cli("backup", "verify", backup)
    assert verified.returncode == 0, verified.stderr
    restored = cli("backup", "restore", backup, "--data", tmp_path / "restored")
    assert restored.returncode == 0, restored.stderr
    stack = LocalStack(tmp_path / "restored", workers=False)
    try:
        stack.start()
        with stack.http() as http:
            assert show(http) == shown_then(folder)
    finally:
        stack.stop()


def test_each_event_is_in_a_folder_and_still_known(tmp_path: Path) -> None:
    found = {folder.stem: events_in(unpack(folder, tmp_path / folder.stem)[0]) for folder in FOLDERS}
    known = {tag_of(event) for kind in REGISTRY.by_name.values() for event in kind.event_types}
    assert len(found["folder-4"] | NOT_DONE) == EVENTS_OF_FORMAT_4
    everywhere = set().union(*found.values())
    assert everywhere.isdisjoint(NOT_DONE)
    assert known >= everywhere | NOT_DONE
    assert found["folder-4-texts"] - found["folder-4"] == NEW_IN_TEXTS


def wait_until_it_goes_on(http: httpx.Client, job: str) -> None:
    """Until the last attempt, resumed from a checkpoint, has stored another one."""
    deadline = time.monotonic() + WAIT
    while True:
        resumed = http.get(f"/api/v1/jobs/{job}").raise_for_status().json()["attempts"][-1]["resumes"]
        checkpoints = http.get(f"/api/v1/jobs/{job}/checkpoints", params={"limit": 100}).raise_for_status().json()
        if 0 < resumed < max(one["step"] for one in checkpoints["items"]):
            return
        assert time.monotonic() < deadline, "it did not go on from its checkpoint"
        time.sleep(0.2)


def events_in(data: Path) -> set[str]:
    with closing(open_reader(data / "catalog" / ARCHIVE)) as archive:
        commits = commits_at(archive, range(1, last_sequence(archive) + 1))
        return {event.type_name for recorded in commits for event in recorded.commit.events}


def shown_then(folder: Path) -> object:
    return msgspec.json.decode(folder.with_suffix(".json").read_bytes())
