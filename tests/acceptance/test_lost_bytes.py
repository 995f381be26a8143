"""Blobs or keys that are gone are noticed at the start, said everywhere, and stop nothing else."""

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.acceptance.local_stack import LocalStack, cli
from tests.limits import WAIT

pytestmark = [pytest.mark.slow]

API = "/api/v1"
CURES = {"2 manifests": "accept-loss blobs", "2 keys": "accept-loss images"}
"""By the beginning of what is lost; there is no backup."""


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The data folder of a stopped stack with a data set of two images, one of them a BMP, and a frozen version."""
    home = tmp_path_factory.mktemp("kept")
    stack = LocalStack(home / "data", workers=False)
    (home / "pictures").mkdir()
    Image.new("RGB", (64, 48), "red").save(home / "pictures" / "0.png")
    Image.new("RGB", (64, 48), "blue").save(home / "pictures" / "1.bmp")
    try:
        stack.start()
        with stack.client() as client:
            client.create_dataset("cats")
            client.import_folder("cats", home / "pictures")
        with stack.http() as http:
            http.post(f"{API}/datasets/cats/versions", json={}).raise_for_status()
    finally:
        stack.stop()
    yield stack.data


@pytest.fixture
def data(stopped: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stopped, tmp_path / "data"))


def cure(data: Path, named: str) -> str:
    command = next(command for start, command in CURES.items() if named.startswith(start))
    return f"cure: `loratory {command} --data {data}`"


def lose_blobs(data: Path) -> None:
    shutil.rmtree(data / "blobs")


def empty_keys(data: Path) -> None:
    with closing(sqlite3.connect(data / "catalog/keys.db")) as keys:
        keys.execute("DELETE FROM key")
        keys.commit()


LOST_BLOBS = "2 manifests, 2 pictures, 2 sources, 2 thumbnails are missing"
LOST_KEYS = "2 keys are missing"


@pytest.mark.parametrize(("lose", "named"), [(lose_blobs, LOST_BLOBS), (empty_keys, LOST_KEYS)])
def test_every_command_on_a_stopped_folder_names_the_loss_and_fails(
    data: Path, tmp_path: Path, lose: Callable[[Path], None], named: str
) -> None:
    assert cli("audit", "verify", "--data", data).returncode == 0
    lose(data)

    audit = cli("audit", "verify", "--data", data)
    assert (audit.returncode, named in audit.stdout, cure(data, named) in audit.stderr) == (1, True, True)
    assert "history is intact" in audit.stdout
    as_json = cli("audit", "verify", "--data", data, "--json")
    assert sum(json.loads(as_json.stdout)["losses"]["counts"].values()) == (8 if lose is lose_blobs else 2)
    doctor = json.loads(cli("doctor", "--data", data, "--json").stdout)
    assert [(check["verdict"], named in check["text"]) for check in doctor if check["name"] == "data folder"] == [
        ("bad", True)
    ]
    backup = cli("backup", "create", tmp_path / "backup", "--data", data)
    assert (backup.returncode, named in backup.stdout, "the backup is incomplete" in backup.stderr) == (1, True, True)
    verified = cli("backup", "verify", tmp_path / "backup")
    assert (verified.returncode, "is not in it" in verified.stderr) == (1, True)


@pytest.mark.parametrize(("lose", "named"), [(lose_blobs, LOST_BLOBS), (empty_keys, LOST_KEYS)])
def test_a_stack_starts_degraded_says_so_and_serves_everything_else(
    data: Path, lose: Callable[[Path], None], named: str
) -> None:
    lose(data)
    stack = LocalStack(data, workers=False)
    try:
        stack.start()
        with stack.http() as http:
            ready = until_degraded(http)
            assert (ready.status_code, ready.json()["ready"]) == (200, True)
            health = http.get("/health").json()
            storage = next(service for service in health["services"] if service["service"] == "storage")
            assert (health["status"], storage["status"], storage["detail"]) == (
                "degraded",
                "unhealthy",
                f"{named}; {cure(data, named)}",
            )
            assert http.get(f"{API}/losses").json()["total"] == (8 if lose is lose_blobs else 2)
            images = http.get(f"{API}/images").json()["items"]
            assert [image["erased"] for image in images] == [False, False]
            check_problems(http, images[0]["id"], "blob-missing" if lose is lose_blobs else "key-missing")
            training = http.post(f"{API}/jobs", json={"dataset": "cats", "version": 1})
            assert training.status_code == 409
            http.patch(f"{API}/images/{images[0]['id']}/tags", json={"add": ["cat"]}).raise_for_status()
            http.post(f"{API}/datasets", json={"name": "dogs"}).raise_for_status()
        assert cli("audit", "verify", "--url", stack.address).returncode == 1
        assert f"is degraded: {named}" in cli("doctor", "--url", stack.address, "--data", data).stdout
    finally:
        stack.stop()


def until_degraded(http: httpx.Client) -> httpx.Response:
    """The first comparison begins with the start and ends soon after it."""
    for _ in range(int(WAIT * 20)):
        ready = http.get("/health/ready")
        if ready.json()["status"] == "degraded":
            return ready
        http.get(f"{API}/losses")
    raise AssertionError(ready.text)


def check_problems(http: httpx.Client, image: str, code: str) -> None:
    """Never 410: nothing was erased."""
    answers: list[Any] = [http.get(f"{API}/images/{image}/{part}") for part in ("file", "thumbnail")]
    answers += [http.get(f"{API}/images/{image}/file?original=true")]
    answers += [http.get(f"{API}/images/{image}")] if code == "key-missing" else []
    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(409, code)] * len(answers)
    assert all("loratory restore --from BACKUP" in answer.json()["detail"] for answer in answers)


def test_derived_bytes_are_made_again_after_the_start(data: Path) -> None:
    stack = LocalStack(data, workers=False)
    with closing(sqlite3.connect(data / "catalog/read.db")) as rows:
        derived = [
            digest
            for row in rows.execute("SELECT thumbnail, picture FROM image WHERE format = 'BMP'")
            for digest in row
        ]
    files = [data / "blobs" / digest[:2] / digest[2:4] / digest for digest in derived]
    before = [file.read_bytes() for file in files]
    for file in files:
        file.unlink()
    try:
        stack.start()
        with stack.http() as http:
            image = http.get(f"{API}/images").json()["items"][1]["id"]
            assert http.get(f"{API}/images/{image}/thumbnail").content == before[0]
            assert http.get(f"{API}/images/{image}/file").content == before[1]
            assert http.get(f"{API}/losses").json()["total"] == 0
    finally:
        stack.stop()
    assert [file.read_bytes() for file in files] == before
