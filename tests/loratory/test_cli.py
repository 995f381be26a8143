"""The command line: output, errors and exit codes."""

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from contracts.wire.log.migration import FORMAT
from loratory import Client
from loratory.cli.app import COMMANDS, run
from loratory.cli.doctor import Check, local_checks
from loratory.cli.options import parse_recipe_overrides
from tests.loratory.conftest import Cli


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*command.split(), "--help"], {}) == 0
    assert f"Usage: loratory {command}" in capsys.readouterr().out


def test_help_imports_no_client_no_server_and_no_torch() -> None:
    code = (
        "import sys; from loratory.cli.app import run; run(['--help'], {}); print(sorted(sys.modules), file=sys.stderr)"
    )
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr
    assert not any(f"'{name}'" in modules for name in ("httpx", "nats", "torch", "websockets", "loratory.client"))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nope"], "Unknown command"),
        (["datasets", "show"], "requires an argument"),
        (["jobs", "ls", "--nope"], "Unknown option"),
        (["jobs", "ls", "--url", "nowhere"], "not a server address"),
        (["train", "cats", "--set", "rank"], "--set takes FIELD=VALUE"),
        (["train", "cats", "--base", "/nowhere/at/all"], "there is no folder /nowhere/at/all"),
        (["datasets", "import", "cats", "/nowhere/at/all"], "there is no folder /nowhere/at/all"),
        (["erase", "image", "img_1"], "erasing is irreversible; add --yes"),
        (["demo", "--images", "/nowhere/at/all"], "there is no folder /nowhere/at/all"),
    ],
)
def test_wrong_usage_is_one_sentence_and_exit_code_2(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments, {}) == 2
    out, err = capsys.readouterr()
    assert sentence in err
    assert (out, err.count("\n")) == ("", 1)


def test_a_folder_without_a_base_model_is_refused_before_any_request(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["train", "cats", "--base", str(tmp_path)], {}) == 2
    assert "has no model_index.json" in capsys.readouterr().err


def test_a_missing_server_is_one_sentence_and_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["jobs", "ls", "--url", "http://127.0.0.1:9"], {}) == 1
    assert capsys.readouterr().err.startswith("loratory: no Loratory server at http://127.0.0.1:9 (")


def test_recipe_overrides_are_json_where_possible() -> None:
    assert parse_recipe_overrides(
        ["optimizer.lr=1e-4", "data.shuffle_tags=true", "device=cpu", 'sampling.prompts=["a=b"]']
    ) == {
        "optimizer.lr": 1e-4,
        "data.shuffle_tags": True,
        "device": "cpu",
        "sampling.prompts": ["a=b"],
    }


def test_a_data_set_is_created_filled_shown_and_listed(cli: Cli, image_folder: Path) -> None:
    assert cli("datasets", "import", "squares", image_folder) == 0
    assert cli.out.startswith(
        "3 images imported, 1 already present, 1 skipped, 0 texts read as tags, 1 as captions, 1 other "
    )
    assert "Skipped files:\n  text.png: " in cli.out
    assert cli("datasets", "show", "squares", "--json") == 0
    assert json.loads(cli.out)["images"] == 3
    assert cli("datasets", "show", "squares") == 0
    assert cli.out.startswith("Data set squares\n")
    assert re.search(r"Skipped files: +1\n", cli.out)
    assert re.search(r"Auto-tag threshold: +above 0.35 \(characters: above 0.85\)\n", cli.out)
    assert cli("datasets", "ls") == 0
    assert cli.out.startswith("Name\tImages\tTagged\tCaptioned\tVersion\tId\n")
    assert "squares\t3\t" in cli.out


def test_a_missing_folder_leaves_no_empty_data_set_behind(cli: Cli, tmp_path: Path) -> None:
    assert cli("datasets", "import", "of nobody", tmp_path / "gone") == 2
    assert cli("datasets", "show", "of nobody") == 1
    assert cli.err.count("\n") == 1


def test_versions_are_frozen_listed_and_compared(cli: Cli, image_folder: Path, server_url: str) -> None:
    assert cli("datasets", "import", "for versions", image_folder) == 0
    assert cli("datasets", "freeze", "for versions", "--trigger", "zwx") == 0
    assert cli.out == "1\n"
    with Client(server_url) as client:
        image = client.images("for versions")[0].id
        edited = httpx.patch(f"{server_url}/api/v1/images/{image}/tags", json={"add": ["compared"]})
        edited.raise_for_status()
        assert client.freeze("for versions", "zwx").version == 2
        assert [version.version for version in client.versions("for versions")] == [1, 2]
        assert [(change.image, change.change) for change in client.version_diff("for versions", 2, 1)] == [
            (image, "changed")
        ]
    assert cli("datasets", "versions", "for versions") == 0
    assert [line.split("\t")[:4] for line in cli.out.splitlines()] == [
        ["Version", "Images", "Erased", "Trigger"],
        *(["1", "3", "", "zwx"], ["2", "3", "", "zwx"]),
    ]
    assert cli("datasets", "diff", "for versions", "1", "2") == 0
    assert cli.out.splitlines() == ["Image\tChange\tTags and caption\tId", f"0\tchanged\t+compared\t{image}"]
    assert cli("datasets", "diff", "for versions", "2", "9") == 1
    assert "the data set 'for versions' has no version 9" in cli.err


def test_a_job_is_created_listed_shown_waited_for_and_cancelled(cli: Cli, image_folder: Path, server_url: str) -> None:
    assert cli("datasets", "import", "for a job", image_folder) == 0
    assert (
        cli("train", "for a job", "--preset", "tiny-random-demo", "--steps", "3", "--trigger", "zwx", "--detach") == 0
    )
    job = cli.out.strip()
    with Client(server_url) as client:
        while client.job(job).phase == "freezing":
            time.sleep(0.05)
    assert cli("jobs", "ls", "--dataset", "for a job") == 0
    titles, row = cli.out.splitlines()
    assert titles == "Id\tName\tData set\tStatus\tStep\tSteps\tWaiting for"
    assert row.startswith(f"{job}\t")
    assert "no trainer connected since " in row
    assert cli("jobs", "show", job) == 0
    shown = cli.out
    assert shown.startswith(f"Job {job}\n")
    for line in (
        r"Status: +pending",
        r"Waiting: +no trainer connected since ",
        r"Data set: +for a job, version 1 \(3 images\)",
        r"Trigger: +zwx",
        r"Base: +builtin, name tiny-random",
        r"Adapter: +lora, rank \d+, alpha \d+",
        r"Length: +3 steps",
        r"Optimizer: +adamw, lr ",
    ):
        assert re.search(rf"^  {line}", shown, re.MULTILINE), line
    assert "{" not in shown
    assert len(shown.splitlines()) < 40
    assert cli("jobs", "show", job, "--json") == 0
    assert json.loads(cli.out)["recipe"]["length"] == {"type": "steps", "count": 3}
    assert cli("jobs", "wait", job, "--timeout", "0.2") == 3
    assert cli("loras", "get", job) == 1
    assert cli("jobs", "cancel", job) == 0
    assert cli("jobs", "cancel", job) == 0
    assert cli("jobs", "wait", job) == 2
    assert cli("jobs", "watch", job) == 2
    assert cli.out.splitlines()[-1] == "Training cancelled"


@pytest.mark.parametrize("command", ["wait", "watch"])
def test_an_outcome_that_the_server_cannot_tell_is_not_one_of_a_job(cli: Cli, command: str) -> None:
    assert cli("jobs", command, "job_of_nobody") == 4
    assert "job_of_nobody" in cli.err
    assert cli("jobs", command, "job_of_nobody", "--json") == 4
    assert (json.loads(cli.err)["code"], json.loads(cli.err)["cause"]) == ("outcome-unknown", "not-found")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train", "of nobody"], "of nobody"),
        (["train", "squares", "--preset", "of nobody"], "of nobody"),
        (["train", "squares", "--set", "optimizer.speed=3"], "optimizer.speed"),
        (["jobs", "cancel", "job_of_nobody"], "no such job"),
        (["tag", "of nobody", "--model", "demo"], "of nobody"),
    ],
)
def test_a_refusal_of_the_server_is_one_sentence_and_exit_code_1(
    cli: Cli, image_folder: Path, arguments: list[str], sentence: str
) -> None:
    assert cli("datasets", "import", "squares", image_folder) == 0
    assert cli(*arguments) == 1
    assert sentence in cli.err
    assert cli.err.count("\n") == 1


def test_a_job_on_an_empty_data_set_is_refused(cli: Cli) -> None:
    assert cli("datasets", "create", "empty") == 0
    assert cli("train", "empty") == 1
    assert cli.err.count("\n") == 1


def test_events_are_printed_as_json_lines_after_a_cursor(cli: Cli) -> None:
    assert cli("datasets", "create", "for its events") == 0
    assert cli("events", "--json") == 0
    events = [json.loads(line) for line in cli.out.splitlines()]
    assert {"sequence", "time", "actor", "causation_id", "cursor", "type", "data"} <= events[-1].keys()
    assert cli("events", "--after", events[-2]["cursor"], "--json") == 0
    assert [json.loads(line) for line in cli.out.splitlines()] == events[-1:]
    assert cli("events", "--type", "dataset.created", "--json") == 0
    assert {json.loads(line)["type"] for line in cli.out.splitlines()} == {"dataset.created"}


def test_events_are_printed_as_one_sentence_each(cli: Cli) -> None:
    assert cli("datasets", "create", "with a sentence") == 0
    assert cli("events", "--type", "dataset.*") == 0
    line = cli.out.splitlines()[-1]
    assert re.fullmatch(r"[\d-]{10} [\d:]{8} +\d+  user:local  Created data set 'with a sentence'", line)


@pytest.mark.slow
def test_events_are_followed_as_the_readme_says(server_url: str) -> None:
    arguments = ["events", "--type", "dataset.*", "-f", "--url", server_url]
    with subprocess.Popen([sys.executable, "-m", "loratory", *arguments], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            with Client(server_url) as client:
                client.create_dataset("while it is followed")
            assert any("Created data set 'while it is followed'" in line for line in process.stdout)
        finally:
            process.terminate()
        process.communicate()
    assert process.returncode == 130


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["jobs", "show", "job_of_nobody"], 1, "not-found"),
        (["train", "of nobody"], 1, "not-found"),
        (["train", "squares", "--set", "rank"], 2, "setup"),
        (["jobs", "ls", "--nope"], 2, "usage"),
    ],
)
def test_with_json_errors_are_problem_documents_with_the_same_exit_code(
    cli: Cli, arguments: list[str], code: int, expected: str
) -> None:
    assert cli(*arguments) == code
    sentence, _, request = cli.err.removeprefix("loratory: ").rstrip("\n").partition(" (request ")
    assert cli(*arguments, "--json") == code
    assert cli.out == ""
    problem = json.loads(cli.err)
    assert (problem["code"], problem["detail"]) == (expected, sentence)
    assert problem["title"]
    assert bool(request) == ("request_id" in problem) == (code == 1)  # only the server has logs to look into


@pytest.mark.slow
def test_ctrl_c_while_following_says_that_the_job_continues(server_url: str, image_folder: Path) -> None:
    with Client(server_url) as client:
        client.ensure_dataset("interrupted")
        client.import_folder("interrupted", image_folder)
        arguments = ["train", "interrupted", "--preset", "tiny-random-demo", "--url", server_url]
        with subprocess.Popen(
            [sys.executable, "-m", "loratory", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("Waiting: ")
            process.send_signal(signal.SIGINT)
            _, error = process.communicate()
        (job,) = client.jobs(dataset="interrupted")
        client.cancel_job(job.id)
    assert process.returncode == 130
    assert error == (
        f"loratory: stopped watching; job {job.id} continues: `loratory jobs watch {job.id}` follows it, "
        f"`loratory jobs cancel {job.id}` cancels it\n"
    )
    assert job.status == "pending"


@pytest.mark.slow
def test_the_doctor_finds_the_server_and_what_is_installed(cli: Cli, tmp_path: Path) -> None:
    cli("doctor", "--data", tmp_path, "--json")
    checks = {check["name"]: check for check in json.loads(cli.out)}
    assert checks["server"]["verdict"] == "ok"
    assert checks["nats-server"]["text"].startswith("nats-server: v2.")
    assert {
        "python",
        "gateway",
        "catalog",
        "tagger",
        "trainer",
        "free disk",
        "device",
        "data folder",
    } <= checks.keys()


@pytest.mark.slow
def test_the_doctor_reports_data_of_a_newer_version(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "format").write_text("99")
    assert cli("doctor", "--data", tmp_path) == 1
    assert "bad   data folder" in cli.out


def local_check(name: str, data: Path, port: int = 8000) -> Check:
    """Without the checks that import torch or ask a server."""
    return next(check for check in local_checks(data, port, os.environ) if check.name == name)


@pytest.mark.slow
def test_the_doctor_reports_keys_of_a_newer_version(tmp_path: Path) -> None:
    (tmp_path / "format").write_text(str(FORMAT))
    (tmp_path / "catalog").mkdir()
    for number, verdict in ((0, "ok"), (99, "bad")):
        with closing(sqlite3.connect(tmp_path / "catalog" / "keys.db")) as connection:
            connection.execute(f"PRAGMA user_version = {number}")
        check = local_check("data folder", tmp_path)
        assert check.verdict == verdict
    assert "keys.db was written by a newer version of Loratory (schema 99;" in check.text


@pytest.mark.slow
def test_the_doctor_knows_the_port_of_a_running_stack(server_url: str, server_data: Path) -> None:
    port = int(server_url.rpartition(":")[2])
    check = local_check("port", server_data, port)
    assert check.verdict == "ok"
    assert check.text == f"{port} is used by the Loratory that runs on {server_data}"


@pytest.mark.slow
def test_the_doctor_reports_a_port_that_something_else_uses(server_url: str, tmp_path: Path) -> None:
    port = int(server_url.rpartition(":")[2])
    check = local_check("port", tmp_path, port)
    assert check.verdict == "note"
    assert check.text.startswith(f"port {port} on 127.0.0.1 is not available (")


def test_another_package_of_one_of_our_names_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "catalog").mkdir()
    (tmp_path / "catalog" / "__init__.py").write_text("")
    path = {**os.environ, "PYTHONPATH": str(tmp_path)}
    answer = subprocess.run(
        [sys.executable, "-P", "-m", "loratory"], env=path, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 2
    assert answer.stderr.startswith(
        f"loratory: the package 'catalog' comes from {tmp_path / 'catalog'}, not from Loratory"
    )
    assert answer.stderr.count("\n") == 1
