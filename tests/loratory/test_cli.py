"""The command line: what it says, where, and with which exit code."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from loratory.cli.app import GROUPS, TOP, run
from loratory.cli.common import changes_of
from tests.loratory.conftest import Cli

COMMANDS = [[name] for name in TOP] + [[group, name] for group, (_, commands) in GROUPS.items() for name in commands]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_explains_itself(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*command, "--help"], {}) == 0
    assert f"Usage: loratory {' '.join(command)}" in capsys.readouterr().out


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
        (["jobs", "ls", "--url", "nowhere"], "no address of a server"),
        (["train", "cats", "--set", "rank"], "--set takes FIELD=VALUE"),
        (["train", "cats", "--base", "/nowhere/at/all"], "there is no folder /nowhere/at/all"),
        (["datasets", "import", "cats", "/nowhere/at/all"], "there is no folder /nowhere/at/all"),
        (["erase", "image", "img_1"], "erasing cannot be taken back; add --yes"),
        (["demo", "--images", "/nowhere/at/all"], "there is no folder /nowhere/at/all"),
    ],
)
def test_wrong_use_is_one_sentence_and_exit_code_2(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments, {}) == 2
    out, err = capsys.readouterr()
    assert sentence in err
    assert (out, err.count("\n")) == ("", 1)


def test_a_base_folder_that_is_none_is_refused_before_anything_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["train", "cats", "--base", str(tmp_path)], {}) == 2
    assert "has no model_index.json" in capsys.readouterr().err


def test_a_server_that_is_not_there_is_one_sentence_and_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["jobs", "ls", "--url", "http://127.0.0.1:9"], {}) == 1
    assert capsys.readouterr().err.startswith("loratory: no Loratory answers at http://127.0.0.1:9 (")


def test_settings_are_json_where_they_can_be() -> None:
    assert changes_of(["optimizer.lr=1e-4", "data.shuffle_tags=true", "device=cpu", 'sampling.prompts=["a=b"]']) == {
        "optimizer.lr": 1e-4,
        "data.shuffle_tags": True,
        "device": "cpu",
        "sampling.prompts": ["a=b"],
    }


def test_a_set_is_made_filled_shown_and_listed(cli: Cli, pictures: Path) -> None:
    assert cli("datasets", "import", "squares", pictures) == 0
    assert cli.out.startswith(
        "3 pictures imported, 1 there already, 1 refused, 1 captions read, 1 other files passed over"
    )
    assert "refused text.png: " in cli.out
    assert cli("datasets", "show", "squares", "--json") == 0
    assert json.loads(cli.out)["images"] == 3
    assert cli("datasets", "ls") == 0
    assert "squares\t3\t" in cli.out


def test_a_folder_that_is_not_there_leaves_no_set_behind(cli: Cli, tmp_path: Path) -> None:
    assert cli("datasets", "import", "of nobody", tmp_path / "gone") == 2
    assert cli("datasets", "show", "of nobody") == 1
    assert cli.err.count("\n") == 1


def test_a_job_is_made_listed_shown_waited_for_and_cancelled(cli: Cli, pictures: Path) -> None:
    assert cli("datasets", "import", "for a job", pictures) == 0
    assert cli("train", "for a job", "--preset", "stand-in-demo", "--steps", "3", "--detach") == 0
    job = cli.out.strip()
    assert cli("jobs", "ls", "--dataset", "for a job") == 0
    assert cli.out.startswith(f"{job}\t")
    assert "no trainer connected since " in cli.out
    assert cli("jobs", "show", job, "--json") == 0
    assert json.loads(cli.out)["recipe"]["length"] == {"type": "steps", "count": 3}
    assert cli("jobs", "wait", job, "--timeout", "0.2") == 3
    assert cli("loras", "get", job) == 1
    assert cli("jobs", "cancel", job) == 0
    assert cli("jobs", "cancel", job) == 0
    assert cli("jobs", "wait", job) == 4
    assert cli("jobs", "watch", job) == 4
    assert cli.out.splitlines()[-1] == "cancelled"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train", "of nobody"], "of nobody"),
        (["train", "squares", "--preset", "of nobody"], "of nobody"),
        (["train", "squares", "--set", "optimizer.speed=3"], "optimizer.speed"),
        (["jobs", "watch", "job_of_nobody"], "job_of_nobody"),
        (["jobs", "cancel", "job_of_nobody"], "no such job"),
        (["tag", "of nobody"], "of nobody"),
    ],
)
def test_what_the_server_refuses_is_one_sentence_and_exit_code_1(
    cli: Cli, pictures: Path, arguments: list[str], sentence: str
) -> None:
    assert cli("datasets", "import", "squares", pictures) == 0
    assert cli(*arguments) == 1
    assert sentence in cli.err
    assert cli.err.count("\n") == 1


def test_a_job_on_an_empty_set_is_refused(cli: Cli) -> None:
    assert cli("datasets", "create", "empty") == 0
    assert cli("train", "empty") == 1
    assert cli.err.count("\n") == 1


def test_events_are_told_as_lines_of_json_and_from_a_cursor_on(cli: Cli) -> None:
    assert cli("datasets", "create", "for its story") == 0
    assert cli("events") == 0
    story = [json.loads(line) for line in cli.out.splitlines()]
    assert {"sequence", "time", "actor", "causation", "cursor", "type", "data"} <= story[-1].keys()
    assert cli("events", "--after", story[-2]["cursor"]) == 0
    assert [json.loads(line) for line in cli.out.splitlines()] == story[-1:]
    assert cli("events", "--type", "dataset.created") == 0
    assert {json.loads(line)["type"] for line in cli.out.splitlines()} == {"dataset.created"}


def test_the_doctor_finds_the_server_and_what_is_installed(cli: Cli, tmp_path: Path) -> None:
    cli("doctor", "--data", tmp_path, "--json")
    findings = {finding["what"]: finding for finding in json.loads(cli.out)}
    assert findings["server"]["verdict"] == "ok"
    assert findings["nats-server"]["words"].startswith("nats-server: v2.")
    assert {
        "python",
        "gateway",
        "catalog",
        "tagger",
        "trainer",
        "free disk",
        "device",
        "data folder",
    } <= findings.keys()


def test_the_doctor_says_when_the_data_is_of_a_newer_loratory(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "format").write_text("99")
    assert cli("doctor", "--data", tmp_path) == 1
    assert "bad   data folder" in cli.out


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
