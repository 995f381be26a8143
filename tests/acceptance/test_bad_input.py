"""Bad input and failures: one clear message or problem document, nothing partly applied, other work continues."""

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

from loratory.demo import WORKER_TIMEOUT_SECONDS
from tests.acceptance.conftest import Finished
from tests.acceptance.local_stack import LocalStack, cli
from tests.limits import WAIT

pytestmark = pytest.mark.slow

GOOD_PICTURES = 3


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three good pictures, and files with every kind of defect."""
    folder = tmp_path_factory.mktemp("mixed")
    for number in range(GOOD_PICTURES):
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
def empty(stack_without_workers: LocalStack) -> str:
    """An empty data set."""
    with stack_without_workers.http() as http:
        assert http.post("/api/v1/datasets", json={"name": "empty"}).status_code == 201
    return "empty"


def cli_error(stack: LocalStack, *words: str | Path, code: int) -> str:
    """Run a command that fails; returns its single line on stderr."""
    result = cli(*words, "--url", stack.address)
    assert (result.returncode, result.stderr.count("\n")) == (code, 1), result.stdout + result.stderr
    assert result.stderr.startswith("loratory: ") and "Traceback" not in result.stderr
    return result.stderr


def problem(response: httpx.Response, status: int) -> dict[str, Any]:
    """The problem document (RFC 9457), checked to reveal no internals."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"].startswith("application/problem+json")
    document = response.json()
    assert {"type", "title", "status", "detail", "instance", "code"} <= document.keys()
    assert document["status"] == status and len(document["detail"]) > 10
    assert "Traceback" not in response.text and str(Path(__file__).parents[2]) not in response.text
    return dict(document)


def log_head(stack: LocalStack) -> str:
    """The cursor of the last event."""
    with stack.http() as http:
        return str(http.get("/api/v1/events", params={"limit": 1}).json()["head"])


@contextmanager
def assert_nothing_recorded(stack: LocalStack) -> Iterator[None]:
    before = log_head(stack)
    yield
    assert log_head(stack) == before


@pytest.mark.parametrize(("name", "sentence"), [("gone", "there is no folder"), ("bare", "is empty")])
def test_a_missing_or_empty_folder_is_refused(
    stack_without_workers: LocalStack, tmp_path: Path, name: str, sentence: str
) -> None:
    (tmp_path / "bare").mkdir()
    with assert_nothing_recorded(stack_without_workers):
        assert sentence in cli_error(stack_without_workers, "datasets", "import", "unused", tmp_path / name, code=2)
    result = cli("demo", "--no-serve", "--images", tmp_path / name, "--data", tmp_path / "data")
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert sentence in result.stderr
    assert not (tmp_path / "data").exists()


def test_defective_files_are_refused_one_by_one_and_the_rest_is_imported(
    stack_without_workers: LocalStack, mixed: Path
) -> None:
    result = cli("datasets", "import", "mixed", mixed, "--url", stack_without_workers.address)
    assert result.returncode == 0, result.stderr
    counts, heading, *reasons = result.stdout.splitlines()
    assert counts.startswith(f"{GOOD_PICTURES} images imported, 1 already present, 4 skipped")
    assert heading == "Skipped files:"
    named = {reason.split(": ")[0] for reason in reasons}
    assert named == {f"  {name}" for name in ("nothing.png", "text.png", "thread.png", "truncated.jpg")}

    with stack_without_workers.http() as http:
        refusals = {item["name"]: item for item in http.get("/api/v1/datasets/mixed/refusals").json()["items"]}
        assert {name: item["reason"] for name, item in refusals.items()} == {
            "nothing.png": "empty",
            "text.png": "unknown-format",
            "thread.png": "too-long-side",
            "truncated.jpg": "broken",
        }
        assert all(item["detail"] and len(item["detail"]) > 10 for item in refusals.values())
        images = http.get("/api/v1/datasets/mixed/images").json()["items"]
        assert sorted(image["name"] for image in images) == [f"good-{number}.png" for number in range(GOOD_PICTURES)]
        assert all(http.get(f"/api/v1/images/{image['id']}/file").status_code == 200 for image in images)


def test_the_same_files_over_http_get_one_outcome_each(stack_without_workers: LocalStack, mixed: Path) -> None:
    names = ("text.png", "good-1.png", "truncated.jpg", "thread.png", "same.png", "good-0.png")
    with stack_without_workers.http() as http:
        assert http.post("/api/v1/datasets", json={"name": "by hand"}).status_code == 201
        files = [("files", (name, (mixed / name).read_bytes())) for name in names]
        response = http.post("/api/v1/datasets/by hand/images", files=files)
        assert response.status_code == 201
        outcomes = [(item["name"], item["outcome"]) for item in response.json()["items"]]
        assert outcomes == list(
            zip(names, ("refused", "added", "refused", "refused", "added", "existing"), strict=True)
        )
        assert http.get("/api/v1/datasets/by hand").json()["images"] == 2


def test_a_folder_without_any_good_picture_ends_with_one_sentence(
    stack_without_workers: LocalStack, mixed: Path, tmp_path: Path
) -> None:
    (tmp_path / "text.png").write_bytes((mixed / "text.png").read_bytes())
    result = cli("datasets", "import", "nothing good", tmp_path, "--url", stack_without_workers.address)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == "loratory: all files were skipped"


def test_a_job_on_an_empty_data_set_is_refused(stack_without_workers: LocalStack, empty: str) -> None:
    with stack_without_workers.http() as http, assert_nothing_recorded(stack_without_workers):
        for route in ("training/single", "jobs"):
            document = problem(
                http.post(f"/api/v1/{route}", json={"dataset": empty, "preset": "tiny-random-demo"}), 422
            )
            assert "empty" in document["detail"]
        assert "empty" in cli_error(stack_without_workers, "train", empty, "--preset", "tiny-random-demo", code=1)
        assert http.get(f"/api/v1/datasets/{empty}/versions").json()["total"] == 0
        problem(http.post(f"/api/v1/datasets/{empty}/versions", json={}), 422)
        problem(http.post("/api/v1/tagging/runs", json={"dataset": empty, "model": "demo"}), 422)


def test_an_unknown_preset_data_set_or_field_is_refused(stack_without_workers: LocalStack, mixed: Path) -> None:
    cli("datasets", "import", "for presets", mixed, "--url", stack_without_workers.address)
    with stack_without_workers.http() as http, assert_nothing_recorded(stack_without_workers):
        body: dict[str, object] = {"dataset": "for presets", "preset": "nope"}
        assert "nope" in problem(http.post("/api/v1/training/single", json=body), 422)["detail"]
        assert "nope" in cli_error(stack_without_workers, "train", "for presets", "--preset", "nope", code=1)
        body = {"dataset": "unknown-set", "preset": "tiny-random-demo"}
        assert "unknown-set" in problem(http.post("/api/v1/training/single", json=body), 404)["detail"]
        body = {"dataset": "for presets", "preset": "tiny-random-demo", "changes": {"optimizer.speed": 3}}
        assert "optimizer.speed" in json.dumps(problem(http.post("/api/v1/training/single", json=body), 422))
        problem(http.post("/api/v1/training/single", json={"dataset": "for presets", "speed": 3}), 400)
        torn = http.post("/api/v1/training/single", content=b"{", headers={"Content-Type": "application/json"})
        problem(torn, 400)
        deep = http.post("/api/v1/jobs", content=b"[" * 20_000, headers={"Content-Type": "application/json"})
        assert problem(deep, 400)["detail"] == "the body is nested too deeply"
        problem(http.get("/api/v1/jobs/job_unknown"), 404)
        problem(http.get("/api/v1/images/img_unknown/file"), 404)


def test_an_invalid_base_folder_is_refused_or_fails_the_job(
    stack: LocalStack, finished: Finished, tmp_path: Path
) -> None:
    with assert_nothing_recorded(stack):
        assert "there is no folder" in cli_error(stack, "train", finished.dataset, "--base", tmp_path / "gone", code=2)
        assert "no model_index.json" in cli_error(stack, "train", finished.dataset, "--base", tmp_path, code=2)
    # Over HTTP only the trainer can check the folder: the job fails at once, with a reason.
    for path, sentence in ((tmp_path / "gone", "there is no base folder"), (tmp_path, "no model_index.json")):
        with stack.client() as client:
            changes: dict[str, object] = {"base": {"type": "folder", "path": str(path)}}
            job = client.wait_job(
                client.train(finished.dataset, preset="tiny-random-demo", changes=changes).id, timeout=120
            )
        assert (job.status, len(job.attempts)) == ("failed", 1)
        assert sentence in (job.error or "")
    assert not list((stack.data / "work" / "trainer").glob("*/*/*.safetensors"))


def test_a_job_without_a_trainer_reports_why_it_waits_and_can_be_cancelled_twice(
    stack_without_workers: LocalStack, mixed: Path
) -> None:
    cli("datasets", "import", "to cancel", mixed, "--url", stack_without_workers.address)
    with stack_without_workers.http() as http:
        body = {"dataset": "to cancel", "preset": "tiny-random-demo"}
        job = http.post("/api/v1/training/single", json=body).json()["id"]
        deadline = time.monotonic() + WAIT
        while (waiting := http.get(f"/api/v1/jobs/{job}").json()["live"]["waiting"])["code"] == "freezing":
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert waiting["code"] == "no-worker"
        assert waiting["why"].startswith("no trainer connected since ")
        shown = cli("jobs", "ls", "--dataset", "to cancel", "--url", stack_without_workers.address)
        assert "no trainer connected since " in shown.stdout

        assert http.post(f"/api/v1/jobs/{job}/cancel").status_code == 202
        with assert_nothing_recorded(stack_without_workers):
            repeated = http.post(f"/api/v1/jobs/{job}/cancel")
            assert repeated.status_code == 200
        result = cli("jobs", "cancel", job, "--url", stack_without_workers.address)
        assert (result.returncode, result.stdout, result.stderr) == (0, f"job {job} is cancelled\n", "")
        with assert_nothing_recorded(stack_without_workers):
            assert problem(http.post(f"/api/v1/jobs/{job}/start"), 409)["code"] == "illegal-transition"
        assert http.get(f"/api/v1/jobs/{job}").json()["status"] == "cancelled"


def test_a_second_up_on_the_same_data_folder_is_refused(stack_without_workers: LocalStack) -> None:
    result = cli("up", "--data", stack_without_workers.data, "--port", "0")
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert f"is already running on the data folder {stack_without_workers.data}" in result.stderr
    with stack_without_workers.http() as http:
        assert http.get("/health/ready").status_code == 200


def test_a_port_in_use_is_refused(stack_without_workers: LocalStack, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = cli("up", "--data", tmp_path / "data", "--port", str(port))
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert f"port {port} on 127.0.0.1 is not available" in result.stderr
    assert not (tmp_path / "data" / "nats" / "streams").exists()
    result = cli("up", "--data", tmp_path / "data", "--port", "99999")
    assert (result.returncode, result.stderr) == (
        2,
        "loratory: 99999 is not a port number; use 1 to 65535, or 0 for any free port\n",
    )


@pytest.mark.parametrize(
    "stop_signal",
    [pytest.param(signal.SIGSTOP, id="stopped", marks=pytest.mark.slow), pytest.param(signal.SIGKILL, id="killed")],
)
def test_the_gateway_answers_503_while_nats_is_unavailable_and_recovers(
    stack_without_workers: LocalStack, stop_signal: signal.Signals
) -> None:
    pid = stack_without_workers.pid("nats")
    with stack_without_workers.http() as http:
        os.kill(pid, stop_signal)
        try:
            if stop_signal == signal.SIGSTOP:
                response = http.get("/api/v1/datasets")
                document = problem(response, 503)
                assert (document["code"], document["service"]) == ("unavailable", "nats")
                assert document["detail"].startswith("NATS did not answer")
                assert response.headers["retry-after"] == "1"
                ready = http.get("/health/ready")
                assert ready.status_code == 503 and "nats" in ready.text.lower()
                assert http.get("/health/live").status_code == 200
                assert http.get("/").status_code == 200
        finally:
            if stop_signal == signal.SIGSTOP:
                os.kill(pid, signal.SIGCONT)
        deadline = time.monotonic() + WAIT
        while (response := http.get("/api/v1/datasets")).status_code != 200:
            document = problem(response, 503)
            assert time.monotonic() < deadline, document
            time.sleep(0.2)
        name = f"after {stop_signal.name}"
        while (
            response := http.post("/api/v1/datasets", json={"name": name}, headers={"Idempotency-Key": name})
        ).is_error:
            assert response.status_code == 503 and time.monotonic() < deadline, response.text
            time.sleep(0.2)
        names = [item["name"] for item in http.get("/api/v1/datasets", params={"limit": 500}).json()["items"]]
        assert names.count(name) == 1


@pytest.mark.slow
def test_the_demo_fails_with_a_reason_if_no_trainer_becomes_ready(tmp_path: Path, mixed: Path) -> None:
    assert WORKER_TIMEOUT_SECONDS == 60
    (tmp_path / "no-folder").write_text("a trainer cannot keep its bases in a file")
    demo = cli(
        *("demo", "--no-serve", "--data", tmp_path / "data", "--images", mixed, "--worker-timeout", "2"),
        LORATORY_BASES=str(tmp_path / "no-folder"),
    )
    assert (demo.returncode, demo.stderr.count("\n")) == (1, 1), demo.stdout + demo.stderr
    assert demo.stderr.startswith("loratory: no worker for 2 s: no trainer connected since ")
    assert f"trainer is not started again: it ended because the folder {tmp_path / 'no-folder'} cannot" in demo.stderr
    remaining = subprocess.run(["pgrep", "-f", str(tmp_path / "data")], capture_output=True, text=True, check=False)
    assert remaining.stdout == ""
