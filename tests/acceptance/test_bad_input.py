"""Bad input and bad luck: one clear message or problem document, nothing half done, and the rest goes on."""

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from loratory.demo import PATIENCE
from tests.acceptance.conftest import Finished
from tests.acceptance.house import House, cli

pytestmark = [pytest.mark.slow]

GOOD = 3


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three good pictures among all that can be wrong with one."""
    folder = tmp_path_factory.mktemp("mixed")
    for number in range(GOOD):
        Image.effect_noise((80, 72 + 8 * number), 60 + number).convert("RGB").save(folder / f"good-{number}.png")
    (folder / "same.png").write_bytes((folder / "good-0.png").read_bytes())
    (folder / "text.png").write_text("this is no picture")
    Image.effect_noise((300, 300), 80).convert("RGB").save(folder / "whole.jpg", quality=95)
    (folder / "truncated.jpg").write_bytes((folder / "whole.jpg").read_bytes()[:-4000])
    (folder / "whole.jpg").unlink()
    Image.new("RGB", (1, 30_000), "white").save(folder / "thread.png")
    (folder / "nothing.png").write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def empty(quiet_house: House) -> str:
    """A data set without pictures."""
    with quiet_house.http() as http:
        assert http.post("/api/v1/datasets", json={"name": "empty"}).status_code == 201
    return "empty"


def told(house: House, *words: str | Path, code: int) -> str:
    """The one sentence on stderr with which a command ends."""
    done = cli(*words, "--url", house.address)
    assert (done.returncode, done.stderr.count("\n")) == (code, 1), done.stdout + done.stderr
    assert done.stderr.startswith("loratory: ") and "Traceback" not in done.stderr
    return done.stderr


def problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    """RFC 9457, and nothing of our insides."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"].startswith("application/problem+json")
    document = answer.json()
    assert {"type", "title", "status", "detail", "instance", "code"} <= document.keys()
    assert document["status"] == status and len(document["detail"]) > 10
    assert "Traceback" not in answer.text and str(Path(__file__).parents[2]) not in answer.text
    return dict(document)


def log_head(house: House) -> str:
    """The cursor of the last event: it stands still where nothing was done."""
    with house.http() as http:
        return str(http.get("/api/v1/events", params={"limit": 1}).json()["head"])


@contextmanager
def nothing_done(house: House) -> Iterator[None]:
    before = log_head(house)
    yield
    assert log_head(house) == before


@pytest.mark.parametrize(("name", "sentence"), [("gone", "there is no folder"), ("bare", "is empty")])
def test_a_folder_that_is_missing_or_empty(quiet_house: House, tmp_path: Path, name: str, sentence: str) -> None:
    (tmp_path / "bare").mkdir()
    with nothing_done(quiet_house):
        assert sentence in told(quiet_house, "datasets", "import", "of nobody", tmp_path / name, code=2)
    done = cli("demo", "--no-serve", "--images", tmp_path / name, "--data", tmp_path / "data")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert sentence in done.stderr
    assert not (tmp_path / "data").exists()


def test_pictures_that_are_none_are_refused_one_by_one_and_the_rest_comes_in(quiet_house: House, mixed: Path) -> None:
    done = cli("datasets", "import", "mixed", mixed, "--url", quiet_house.address)
    assert done.returncode == 0, done.stderr
    first, *reasons = done.stdout.splitlines()
    assert first.startswith(f"{GOOD} pictures imported, 1 there already, 4 refused")
    named = {reason.split(": ")[0] for reason in reasons}
    assert named == {f"  refused {name}" for name in ("nothing.png", "text.png", "thread.png", "truncated.jpg")}

    with quiet_house.http() as http:
        refusals = {item["name"]: item for item in http.get("/api/v1/datasets/mixed/refusals").json()["items"]}
        assert {name: item["reason"] for name, item in refusals.items()} == {
            "nothing.png": "empty",
            "text.png": "unknown-format",
            "thread.png": "too-long-side",
            "truncated.jpg": "broken",
        }
        assert all(item["detail"] and len(item["detail"]) > 10 for item in refusals.values())
        images = http.get("/api/v1/datasets/mixed/images").json()["items"]
        assert sorted(image["name"] for image in images) == [f"good-{number}.png" for number in range(GOOD)]
        assert all(http.get(f"/api/v1/images/{image['id']}/file").status_code == 200 for image in images)


def test_the_same_files_over_http_are_told_one_by_one(quiet_house: House, mixed: Path) -> None:
    names = ("text.png", "good-1.png", "truncated.jpg", "thread.png", "same.png", "good-0.png")
    with quiet_house.http() as http:
        assert http.post("/api/v1/datasets", json={"name": "by hand"}).status_code == 201
        files = [("files", (name, (mixed / name).read_bytes())) for name in names]
        answer = http.post("/api/v1/datasets/by hand/images", files=files)
        assert answer.status_code == 201
        outcomes = [(item["name"], item["outcome"]) for item in answer.json()["items"]]
        assert outcomes == list(
            zip(names, ("refused", "added", "refused", "refused", "added", "existing"), strict=True)
        )
        assert http.get("/api/v1/datasets/by hand").json()["images"] == 2


def test_a_folder_of_nothing_good_is_one_sentence_at_the_end(quiet_house: House, mixed: Path, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_bytes((mixed / "text.png").read_bytes())
    done = cli("datasets", "import", "nothing good", tmp_path, "--url", quiet_house.address)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "loratory: none of the files was taken"


def test_a_job_on_an_empty_data_set(quiet_house: House, empty: str) -> None:
    with quiet_house.http() as http, nothing_done(quiet_house):
        for route in ("training/single", "jobs"):
            document = problem(http.post(f"/api/v1/{route}", json={"dataset": empty, "preset": "stand-in-demo"}), 422)
            assert "empty" in document["detail"]
        assert "empty" in told(quiet_house, "train", empty, "--preset", "stand-in-demo", code=1)
        assert http.get(f"/api/v1/datasets/{empty}/versions").json()["total"] == 0
        problem(http.post(f"/api/v1/datasets/{empty}/versions", json={}), 422)
        problem(http.post("/api/v1/tagging/runs", json={"dataset": empty}), 422)


def test_an_unknown_preset_data_set_or_field(quiet_house: House, mixed: Path) -> None:
    cli("datasets", "import", "for presets", mixed, "--url", quiet_house.address)
    with quiet_house.http() as http, nothing_done(quiet_house):
        asked = {"dataset": "for presets", "preset": "nope"}
        assert "nope" in problem(http.post("/api/v1/training/single", json=asked), 422)["detail"]
        assert "nope" in told(quiet_house, "train", "for presets", "--preset", "nope", code=1)
        asked = {"dataset": "nobody's", "preset": "stand-in-demo"}
        assert "nobody's" in problem(http.post("/api/v1/training/single", json=asked), 404)["detail"]
        asked = {"dataset": "for presets", "preset": "stand-in-demo", "changes": {"optimizer.speed": 3}}
        assert "optimizer.speed" in json.dumps(problem(http.post("/api/v1/training/single", json=asked), 422))
        problem(http.post("/api/v1/training/single", json={"dataset": "for presets", "speed": 3}), 400)
        torn = http.post("/api/v1/training/single", content=b"{", headers={"Content-Type": "application/json"})
        problem(torn, 400)
        deep = http.post("/api/v1/jobs", content=b"[" * 20_000, headers={"Content-Type": "application/json"})
        assert problem(deep, 400)["detail"] == "the body is nested too deeply"
        problem(http.get("/api/v1/jobs/job_of_nobody"), 404)
        problem(http.get("/api/v1/images/img_of_nobody/file"), 404)


def test_a_base_folder_that_is_none(house: House, finished: Finished, tmp_path: Path) -> None:
    with nothing_done(house):
        assert "there is no folder" in told(house, "train", finished.dataset, "--base", tmp_path / "gone", code=2)
        assert "no model_index.json" in told(house, "train", finished.dataset, "--base", tmp_path, code=2)
    # Over HTTP only the trainer can look: the job fails with a reason, and at once.
    for path, sentence in ((tmp_path / "gone", "there is no base folder"), (tmp_path, "no model_index.json")):
        with house.client() as client:
            changes = {"base": {"type": "folder", "path": str(path)}}
            job = client.wait_job(
                client.train(finished.dataset, preset="stand-in-demo", changes=changes).id, timeout=120
            )
        assert (job.status, len(job.attempts)) == ("failed", 1)
        assert sentence in (job.error or "")
    assert not list((house.data / "work" / "trainer").glob("*/*/*.safetensors"))


def test_a_job_waits_for_a_trainer_and_says_so_and_is_cancelled_twice(quiet_house: House, mixed: Path) -> None:
    cli("datasets", "import", "to cancel", mixed, "--url", quiet_house.address)
    with quiet_house.http() as http:
        asked = {"dataset": "to cancel", "preset": "stand-in-demo"}
        job = http.post("/api/v1/training/single", json=asked).json()["id"]
        waiting = http.get(f"/api/v1/jobs/{job}").json()["live"]["waiting"]
        assert waiting["code"] == "no-worker"
        assert waiting["why"].startswith("no trainer connected since ")
        shown = cli("jobs", "ls", "--dataset", "to cancel", "--url", quiet_house.address)
        assert "no trainer connected since " in shown.stdout

        assert http.post(f"/api/v1/jobs/{job}/cancel").status_code == 202
        with nothing_done(quiet_house):
            again = http.post(f"/api/v1/jobs/{job}/cancel")
            assert again.status_code == 200
        done = cli("jobs", "cancel", job, "--url", quiet_house.address)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"job {job} is cancelled\n", "")
        with nothing_done(quiet_house):
            assert problem(http.post(f"/api/v1/jobs/{job}/start"), 409)["code"] == "illegal-transition"
        assert http.get(f"/api/v1/jobs/{job}").json()["status"] == "cancelled"


def test_a_second_up_on_the_same_data(quiet_house: House) -> None:
    done = cli("up", "--data", quiet_house.data, "--port", "0")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert f"already runs on the data folder {quiet_house.data}" in done.stderr
    with quiet_house.http() as http:
        assert http.get("/health/ready").status_code == 200


def test_a_port_in_use(quiet_house: House, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = cli("up", "--data", tmp_path / "data", "--port", str(port))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert f"port {port} on 127.0.0.1 cannot be used" in done.stderr
    assert not (tmp_path / "data" / "nats" / "streams").exists()
    done = cli("up", "--data", tmp_path / "data", "--port", "99999")
    assert (done.returncode, done.stderr) == (
        2,
        "loratory: 99999 is no port; ports go from 1 to 65535, and 0 takes a free one\n",
    )


@pytest.mark.parametrize("how", [signal.SIGSTOP, signal.SIGKILL], ids=["hangs", "dies"])
def test_nats_is_away_while_the_gateway_serves(quiet_house: House, how: signal.Signals) -> None:
    pid = quiet_house.pid("nats")
    with quiet_house.http() as http:
        os.kill(pid, how)
        try:
            if how == signal.SIGSTOP:
                answer = http.get("/api/v1/datasets")
                document = problem(answer, 503)
                assert (document["code"], document["service"]) == ("unavailable", "nats")
                assert document["detail"].startswith("NATS did not answer")
                assert answer.headers["retry-after"] == "1"
                ready = http.get("/health/ready")
                assert ready.status_code == 503 and "nats" in ready.text.lower()
                assert http.get("/health/live").status_code == 200
                assert http.get("/").status_code == 200
        finally:
            if how == signal.SIGSTOP:
                os.kill(pid, signal.SIGCONT)
        until = time.monotonic() + 60
        while (answer := http.get("/api/v1/datasets")).status_code != 200:
            document = problem(answer, 503)
            assert time.monotonic() < until, document
            time.sleep(0.2)
        name = f"after it {how.name}"
        while (
            answer := http.post("/api/v1/datasets", json={"name": name}, headers={"Idempotency-Key": name})
        ).is_error:
            assert answer.status_code == 503 and time.monotonic() < until, answer.text
            time.sleep(0.2)
        names = [item["name"] for item in http.get("/api/v1/datasets", params={"limit": 500}).json()["items"]]
        assert names.count(name) == 1


def test_the_demo_fails_with_a_reason_when_no_trainer_comes(tmp_path: Path, mixed: Path) -> None:
    assert PATIENCE == 60
    (tmp_path / "no-folder").write_text("a trainer cannot keep its bases in a file")
    demo = cli(
        *("demo", "--no-serve", "--data", tmp_path / "data", "--images", mixed, "--patience", "2"),
        LORATORY_BASES=str(tmp_path / "no-folder"),
    )
    assert (demo.returncode, demo.stderr.count("\n")) == (1, 1), demo.stdout + demo.stderr
    assert demo.stderr.startswith("loratory: it has waited for 2 s: no trainer connected since ")
    assert f"trainer ended (exit code 2: the folder {tmp_path / 'no-folder'} cannot be made" in demo.stderr
    left = subprocess.run(["pgrep", "-f", str(tmp_path / "data")], capture_output=True, text=True, check=False)
    assert left.stdout == ""
