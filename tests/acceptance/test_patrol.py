"""Blobs and keys that are lost while Loratory runs: noticed without a restart, said everywhere, cured as it says."""

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import expect, sync_playwright

from contracts.cures import cures_in
from contracts.wire.blobs.store import LocalBlobs
from tests.acceptance.local_stack import LocalStack, cli
from tests.acceptance.workshops import API, make_workshop, run_command, snapshot
from tests.damage import execute_sql
from tests.gateway.browser import BROWSER_ARGS, CHROMIUM
from tests.limits import WAIT

pytestmark = [pytest.mark.slow]

OFTEN = {"LORATORY_COMPARE_SECONDS": "0.3", "LORATORY_PATROL_SECONDS": "1"}
LOST = {"source": 2, "picture": 2, "key": 1}
"""Of a PNG, source and picture are one blob."""
NAMED = "1 key, 2 pictures, 2 sources are missing"


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, object]]:
    """A stopped workshop with a backup, and what it shows."""
    home = tmp_path_factory.mktemp("workshop")
    shown = make_workshop(home / "data", home / "pictures", seed=5, backup=home / "backup")
    return home / "data", shown


@pytest.fixture
def running(workshop: tuple[Path, dict[str, object]], tmp_path: Path) -> Iterator[LocalStack]:
    """A copy of it, running, whose watch looks often."""
    stack = LocalStack(Path(shutil.copytree(workshop[0], tmp_path / "data")), workers=False, **OFTEN)
    try:
        stack.start()
        yield stack
    finally:
        stack.stop()


def images_of(http: httpx.Client) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = http.get(f"{API}/images").raise_for_status().json()["items"]
    return items


def flip_bit(file: Path) -> None:
    """In a file of its own: a backup on the same disk may be a link to the old one."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    damaged = file.with_name("damaged")
    damaged.write_bytes(content)
    damaged.replace(file)


def damage_three_images(stack: LocalStack, images: list[dict[str, Any]]) -> None:
    """A damaged source of the same size, a deleted one, and a deleted key."""
    blobs = LocalBlobs(stack.data / "blobs")
    flip_bit(blobs.path(images[0]["source"]))
    blobs.path(images[1]["source"]).unlink()
    keys = stack.data / "catalog" / "keys.db"
    execute_sql(keys, "DELETE FROM key WHERE image_id = ?", images[2]["id"])
    execute_sql(keys, "PRAGMA wal_checkpoint(TRUNCATE)")  # a key that is gone with the WAL only is that of another WAL


def until_lost(http: httpx.Client, counts: dict[str, int]) -> dict[str, Any]:
    """The readiness once these are missing; it must stay 200."""
    deadline = time.monotonic() + WAIT
    while True:
        answer = http.get("/health/ready")
        ready: dict[str, Any] = answer.json()
        assert (answer.status_code, ready["ready"]) == (200, True)
        if ready["losses"].get("checked_at") and ready["losses"]["counts"] == counts:
            return ready
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.05)


def test_what_is_lost_while_it_runs_is_said_everywhere_and_comes_back_by_the_command_named(
    workshop: tuple[Path, dict[str, object]], running: LocalStack, tmp_path: Path
) -> None:
    with running.http() as http:
        assert until_lost(http, {})["status"] == "ready"
        images = images_of(http)
        damage_three_images(running, images)

        ready = until_lost(http, LOST)

        assert ready["status"] == "degraded"
        assert {(loss["kind"], loss["owner"]) for loss in ready["losses"]["first"]} == {
            *((kind, image["id"]) for kind in ("source", "picture") for image in images[:2]),
            ("key", images[2]["id"]),
        }
        storage = next(one for one in http.get("/health").json()["services"] if one["service"] == "storage")
        assert (storage["status"], storage["detail"].startswith(f"{NAMED}; cure: ")) == ("unhealthy", True)
        (command,) = cures_in(storage["detail"])
        assert http.get(f"{API}/images/{images[0]['id']}/file").json()["code"] == "blob-missing"
        assert http.get(f"{API}/images/{images[2]['id']}").json()["code"] == "key-missing"
        http.post(f"{API}/datasets", json={"name": "dogs"}).raise_for_status()  # everything else works

        check_commands(running, tmp_path / "late", command)
        (again,) = cures_in(until_lost(http, LOST)["losses"]["cure"])
        assert again == command  # not the newer backup, which lacks the same
        http.delete(f"{API}/datasets/dogs").raise_for_status()
    running.stop()
    run_command(command)

    running.start()
    with running.http() as http:
        assert until_lost(http, {})["status"] == "ready"
        assert snapshot(http) == workshop[1]
    assert cli("audit", "verify", "--url", running.address).returncode == 0


def check_commands(stack: LocalStack, backup: Path, cure: str) -> None:
    """Every command names the losses, and fails."""
    doctor = cli("doctor", "--url", stack.address, "--data", stack.data, "--json")
    checks = {check["name"]: check for check in json.loads(doctor.stdout)}
    assert doctor.returncode == 1
    for name in ("server", "data folder"):
        assert (checks[name]["verdict"], NAMED in checks[name]["text"]) == ("bad", True), checks[name]
    audit = cli("audit", "verify", "--url", stack.address)
    assert (audit.returncode, NAMED in audit.stdout, cures_in(audit.stdout)) == (1, True, [cure])
    assert "history is intact" in audit.stdout
    created = cli("backup", "create", backup, "--data", stack.data)
    assert (created.returncode, NAMED in created.stdout, "the backup is incomplete" in created.stderr) == (
        1,
        True,
        True,
    )
    verified = cli("backup", "verify", backup)
    assert (verified.returncode, "is not in it" in verified.stderr) == (1, True)


def test_previews_are_made_again_while_it_runs(running: LocalStack) -> None:
    with running.http() as http:
        until_lost(http, {})
        files = [LocalBlobs(running.data / "blobs").path(image["thumbnail"]) for image in images_of(http)]
        before = [file.read_bytes() for file in files]
        flip_bit(files[0])
        files[1].unlink()

        deadline = time.monotonic() + WAIT
        while [file.is_file() and file.read_bytes() for file in files] != before:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        until_lost(http, {})


@pytest.mark.chromium
@pytest.mark.skipif(CHROMIUM is None, reason="chromium: not installed on this machine")
def test_an_open_page_says_what_is_lost_and_what_brings_it_back(running: LocalStack) -> None:
    with running.http() as http, sync_playwright() as playwright:
        until_lost(http, {})
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=BROWSER_ARGS)
        page = browser.new_page()
        page.set_default_timeout(WAIT * 1000)
        expect.set_options(timeout=WAIT * 1000)
        page.goto(f"{running.address}/#/datasets")
        expect(page.get_by_role("status").get_by_text("live", exact=True)).to_be_visible()
        alert = page.get_by_role("alert")
        expect(alert).to_have_count(0)
        image = images_of(http)[0]
        source = LocalBlobs(running.data / "blobs").path(image["source"])
        kept = source.rename(source.with_suffix(".kept"))

        expect(alert).to_contain_text("1 picture, 1 source are missing")  # without a reload
        (command,) = cures_in(until_lost(http, {"source": 1, "picture": 1})["losses"]["cure"])
        expect(alert.locator("code")).to_have_text(command)
        page.goto(f"{running.address}/#/datasets/{image['dataset_id']}/images/{image['id']}")
        expect(page.get_by_text("The file of this image is missing; this is its preview.")).to_be_visible()
        page.goto(f"{running.address}/#/jobs")

        kept.rename(source)
        expect(alert).to_have_count(0)
        browser.close()
