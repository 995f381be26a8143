"""Every command line in README.md and docs/operations.md works as printed.

The `sh` blocks are run in order, by `sh`, in a home folder of their own, against one stack on small data. What is
adapted is in `Shell.adapted` and `EXTRA_ARGUMENTS`; what is not run is in `NOT_RUN`, with the reason.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from demo_world import pictures as demo_pictures
from tests.acceptance.local_stack import environment
from tests.ldm_checkpoint import write_single_file
from tests.limits import WAIT
from tests.ports import free_port
from tests.sd1_topology import write_with_sd1_topology
from trainer.engine.tiny_random import make_tiny_random

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="the stack needs Linux or macOS"),
]

ROOT = Path(__file__).parents[1]
DOCUMENTS = ("README.md", "docs/operations.md")

NOT_RUN = {
    "make demo": "a minute of training; tests/loratory/test_demo.py runs `loratory demo`",
    "make test": "this is it",
    "make check": "needs the whole tree in order; .ci/run runs it",
    "make drill": "40 minutes; tests/acceptance/test_drill.py runs a short one",
    "make bench": "an hour of measurements",
    "make schemas": "writes into docs/; tests/contracts/test_evolution.py compares",
    ".venv/bin/hf download": "downloads up to 4 GB",
    "sh deploy/make-secrets.sh": "tests/test_compose.py runs it",
    "sh deploy/rotate-keys.sh": "needs Docker; tests/acceptance/test_rotation.py rotates the keys of a running stack",
    "docker compose": "needs Docker; tests/test_compose.py runs the commands of the services",
    "docker run": "needs Docker",
    "loratory accept-loss": "gives up what is lost; tests/acceptance/test_cures.py runs it where something is",
}
"""By the beginning of the line."""
STARTS = ("make up", "loratory up")
"""Commands that start a stack; it runs until one that needs it stopped."""
WITHOUT_WORKERS = " --no-tagger --no-trainer"
"""Added where no tagging and training follows: importing torch takes seconds."""
AFTER_PYTHON = "loratory loras get JOB"
"""README's Python example runs before this line, as it trains on the data set that is erased later."""
FOLLOWS = ("-f",)
"""Arguments of commands that end only when they are interrupted."""
STOPPED_FIRST = ("loratory restore", "loratory audit verify --data", *STARTS)
SHORT = {"length.count": 2, "data.resolution": 64, "data.bucket_step": 32, "sampling.steps": 1}
"""Recipe fields of a training that takes seconds."""
EXTRA_ARGUMENTS = {
    "loratory train": " ".join(f"--set {name}={value}" for name, value in SHORT.items()),
    "loratory erase": "--yes",
    "loratory doctor": "--port {port}",
    "curl": "--fail",
}
"""Appended: the port of this test, a shorter training, confirmations that need a terminal, and errors as exit codes."""
CURL = """
import argparse, urllib.request
parser = argparse.ArgumentParser()
for option in ("-X", "-H", "-d"):
    parser.add_argument(option)
parser.add_argument("--fail", action="store_true")
parser.add_argument("url")
given = parser.parse_args()
headers = dict([given.H.split(": ")]) if given.H else {}
request = urllib.request.Request(given.url, given.d and given.d.encode(), headers, method=given.X)
print(urllib.request.urlopen(request).read())
"""
"""A `curl` for machines without one, with the options used in the documents."""
COMMANDS_WITH_SERVER = ("datasets", "tag", "train", "jobs", "loras", "history", "events", "erase", "audit", "doctor")


def command_lines(document: str) -> list[str]:
    """The lines of all `sh` blocks, without comments, continuation lines joined."""
    text = (ROOT / document).read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    stripped = (re.sub(r"\s+#\s.*$", "", line).strip() for line in lines)
    return [line for line in stripped if line]


def python_example() -> str:
    """The Python block of README.md."""
    (block,) = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text("utf-8"), re.DOTALL | re.MULTILINE)
    return str(block)


def is_not_run(line: str) -> bool:
    return line.startswith(tuple(NOT_RUN))


class Shell:
    """A home folder with a `loratory` command, images to import, a base model and a tagger."""

    def __init__(self, home: Path, *, workers: bool) -> None:
        """Without `workers`, no tagger and no trainer are started."""
        self.home = home
        self._workers = workers
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self._stack: subprocess.Popen[bytes] | None = None
        (home / "bin").mkdir(parents=True)
        self._install("loratory", f'exec {shlex.quote(sys.executable)} -m loratory "$@"')
        self._install("make", f'exec {shlex.quote(sys.executable)} -m loratory "$@"')  # `make up` is `loratory up`
        if shutil.which("curl") is None:
            self._install("curl", f'exec {shlex.quote(sys.executable)} -c {shlex.quote(CURL)} "$@"')
        demo_pictures.write_pictures(home / "pictures" / "mika", count=3, seed=3, trigger="mikachar")
        if not workers:
            return
        tiny = make_tiny_random(home / "tiny-random")
        base = write_with_sd1_topology(tiny, home / "loratory" / "bases" / "stable-diffusion-v1-5")
        (home / "Downloads").mkdir()
        write_single_file(base, home / "Downloads" / "my-model.safetensors")
        tagger = home / "loratory" / "models" / "wd-vit-tagger-v3"
        tagger.mkdir(parents=True)
        for file in (ROOT / "demo_world" / "taggers" / "tiny-random").iterdir():
            if file.is_file() and file.suffix != ".py":
                (tagger / file.name).write_bytes(file.read_bytes())

    def _install(self, name: str, line: str) -> None:
        script = self.home / "bin" / name
        script.write_text(f"#!/bin/sh\n{line}\n")
        script.chmod(0o755)

    def environment(self, line: str) -> dict[str, str]:
        variables = environment(HOME=str(self.home), OMP_NUM_THREADS="1", PYTHONPATH=str(ROOT), NO_PROXY="127.0.0.1")
        variables["HF_HUB_OFFLINE"] = "1"
        variables["PATH"] = f"{self.home / 'bin'}{os.pathsep}{variables['PATH']}"
        words = line.split()
        if words[0] == "loratory" and words[1] in COMMANDS_WITH_SERVER and "--data" not in words:
            variables["LORATORY_URL"] = self.address
        return variables

    def adapted(self, line: str) -> str:
        """The line with this test's port, folders and ids."""
        line = line.replace("http://127.0.0.1:8000", self.address).replace("/mnt/disk", str(self.home / "disk"))
        line = line.replace(".venv/bin/python", shlex.quote(sys.executable))
        if "JOB" in line:
            completed = self.get("/api/v1/jobs?status=completed")["items"]
            job = self.new_job() if "cancel" in line or not completed else completed[0]
            line = line.replace("JOB", job["id"]).replace("--at-seq 12", f"--at-seq {job['etag']}")
        if "IMAGE" in line:
            line = line.replace("IMAGE", self.get("/api/v1/datasets/mika-images/images")["items"][0]["id"])
        if line.startswith(STARTS):
            line += f" --port {self.port}" + ("" if self._workers and line == "loratory up" else WITHOUT_WORKERS)
        for beginning, arguments in EXTRA_ARGUMENTS.items():
            if line.startswith(beginning):
                line += " " + arguments.format(port=self.port)
        return line

    def new_job(self) -> Any:
        """A job that was not started, on the data set of README.md."""
        self.run_to_end("loratory datasets import mika-images ~/pictures/mika")
        body = {"dataset": "mika-images", "preset": "sd15-lora"}
        created = httpx.post(f"{self.address}/api/v1/jobs", json=body, timeout=30).raise_for_status().json()
        return self.get(f"/api/v1/jobs/{created['id']}")

    def get(self, path: str) -> Any:
        return httpx.get(self.address + path, timeout=30).raise_for_status().json()

    def run(self, line: str) -> None:
        """Run one line of a document; AssertionError if it fails."""
        if line.startswith(STOPPED_FIRST):
            self.stop()
        elif self._stack is None and self.needs_stack(line):
            self.start("make up")
        if line.startswith(STARTS):
            self.start(line)
        elif line.endswith(FOLLOWS):
            self.follow(line)
        else:
            self.run_to_end(line)

    def needs_stack(self, line: str) -> bool:
        """Also the first backup: it needs a data folder."""
        has_folder = (self.home / "loratory" / "format").exists()
        return line.split()[1] in COMMANDS_WITH_SERVER or "127.0.0.1:8000" in line or not has_folder

    def run_to_end(self, line: str) -> None:
        adapted = self.adapted(line)
        result = subprocess.run(
            ["sh", "-c", adapted],
            cwd=self.home,
            env=self.environment(line),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=WAIT,
            check=False,
        )
        assert result.returncode == 0, f"{line}\n{adapted}\n{result.stdout}{result.stderr}"

    def run_python(self, program: str) -> None:
        """Run a Python program; AssertionError if it fails or prints nothing."""
        program = program.replace("http://127.0.0.1:8000", self.address)
        assert '{"length.count": 2000}' in program
        program = program.replace('{"length.count": 2000}', repr(SHORT))
        result = subprocess.run(
            [sys.executable, "-c", program],
            env=environment(PYTHONPATH=str(ROOT)),
            capture_output=True,
            text=True,
            timeout=WAIT,
            check=False,
        )
        assert result.returncode == 0 and result.stdout, result.stdout + result.stderr

    def follow(self, line: str) -> None:
        """It prints something, and Ctrl-C ends it."""
        with self._popen(line) as process:
            assert process.stdout is not None
            assert process.stdout.readline()
            process.send_signal(signal.SIGINT)
            assert process.wait(WAIT) == 130, line

    def start(self, line: str) -> None:
        """Start a stack with this line; returns when it accepts requests."""
        self._stack = self._popen(line)
        assert self._stack.stdout is not None
        output = b""
        for printed in self._stack.stdout:
            output += printed
            if b"Loratory is at " in printed:
                return
        raise AssertionError(f"{line}\n{output.decode()}")

    def stop(self) -> None:
        if self._stack is not None:
            self._stack.send_signal(signal.SIGINT)
            self._stack.communicate(timeout=WAIT)
            self._stack = None

    def _popen(self, line: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            ["sh", "-c", f"exec {self.adapted(line)}"],
            cwd=self.home,
            env=self.environment(line),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_line_works_as_printed(tmp_path: Path, document: str) -> None:
    lines = command_lines(document)
    assert lines
    shell = Shell(tmp_path / "home", workers=document == "README.md")
    try:
        for line in lines:
            started = time.monotonic()
            if line == AFTER_PYTHON:
                shell.run_python(python_example())
            if not is_not_run(line):
                shell.run(line)
                print(f"{time.monotonic() - started:6.2f} s  {line}")  # noqa: T201 - shown if a later line fails
    finally:
        shell.stop()


def test_only_commands_that_exist_are_left_out() -> None:
    lines = [line for document in DOCUMENTS for line in command_lines(document)]
    assert [beginning for beginning in NOT_RUN if not any(line.startswith(beginning) for line in lines)] == []
