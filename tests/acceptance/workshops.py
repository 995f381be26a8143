"""Small workshops whose files are damaged: made, copied, started, cured as the output says, and compared."""

import hashlib
import os
import pty
import shlex
import subprocess
import sys
import time
from pathlib import Path

import httpx

from contracts.cures import cures_in
from demo_world import pictures as demo_pictures
from loratory import Client
from tests.acceptance.local_stack import LocalStack, environment

API = "/api/v1"
MAX_CURES = 3
"""Maximum number of refusals in a row, each with its cure, before a workshop must start."""
FROZEN_WITHIN = 60.0
"""Seconds; a bound for a stalled catalog, not what it takes."""


def make_workshop(data: Path, pictures: Path, *, seed: int, backup: Path | None = None) -> dict[str, object]:
    """A stopped workshop with a data set, captions, a version and a draft job, and its backup; what it shows."""
    demo_pictures.write_pictures(pictures, count=3, seed=seed, trigger="momo")
    stack = LocalStack(data, workers=False)
    try:
        stack.start()
        with stack.client() as client, stack.http() as http:
            client.create_dataset(f"basket {seed}")
            client.import_folder(f"basket {seed}", pictures)
            job = {"dataset": f"basket {seed}", "preset": "tiny-random-demo", "name": "a draft"}
            created = http.post(f"{API}/jobs", json=job).raise_for_status().json()["id"]
            wait_until_frozen(http, created)
            shown = snapshot(http)
        if backup is not None:
            run_command(f"loratory backup create {shlex.quote(str(backup))} --data {shlex.quote(str(data))}")
    finally:
        stack.stop()
    return shown


def wait_until_frozen(http: httpx.Client, job: str) -> None:
    """Wait until its data set has a version: what the job shows is the same from then on."""
    deadline = time.monotonic() + FROZEN_WITHIN
    while (http.get(f"{API}/jobs/{job}").raise_for_status().json()["live"]["waiting"] or {}).get("code") == "freezing":
        assert time.monotonic() < deadline, f"{job} is still being frozen"
        time.sleep(0.05)


def snapshot(http: httpx.Client) -> dict[str, object]:
    """All texts and bytes of all images, or the code of the problem with them, and all jobs."""
    shown: dict[str, object] = {}
    for dataset in http.get(f"{API}/datasets").raise_for_status().json()["items"]:
        for image in http.get(f"{API}/datasets/{dataset['id']}/images").raise_for_status().json()["items"]:
            shown[image["id"]] = image
            for part in ("file", "file?original=true", "thumbnail"):
                answer = http.get(f"{API}/images/{image['id']}/{part}")
                shown[f"{image['id']}/{part}"] = answer.json()["code"] if answer.status_code == 409 else hashed(answer)
    shown["jobs"] = http.get(f"{API}/jobs").raise_for_status().json()["items"]
    return shown


def hashed(answer: httpx.Response) -> str:
    return hashlib.sha256(answer.raise_for_status().content).hexdigest()


def start_with_cures(stack: LocalStack) -> list[str]:
    """Start it, running the command that each refusal names; these commands."""
    commands: list[str] = []
    while not try_to_start(stack):
        named = cures_in(stack.output)
        assert named, f"no cure is named: {stack.output}"
        assert len(commands) < MAX_CURES, f"{commands} did not cure it: {stack.output}"
        assert stack.output.count("cure: `") == 1, f"it was refused more than once: {stack.output}"
        commands.append(named[0])
        run_command(named[0])
    return commands


def try_to_start(stack: LocalStack) -> bool:
    try:
        stack.start()
    except AssertionError:
        stack.stop()
        return False
    return True


def run_command(command: str) -> str:
    """Run a command as a person copies it into a terminal, and answers `y` where it asks; its output."""
    words = shlex.split(command)
    program = [sys.executable, "-m", "loratory", *words[1:]] if words[0] == "loratory" else words
    terminal, theirs = pty.openpty()
    try:
        os.write(terminal, b"y\n")
        done = subprocess.run(
            program, stdin=theirs, capture_output=True, text=True, timeout=120, env=environment(), check=False
        )
    finally:
        os.close(terminal)
        os.close(theirs)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def import_one_more(client: Client, folder: Path) -> None:
    """One more picture, in the first data set."""
    demo_pictures.write_pictures(folder, count=1, seed=99, trigger="momo")
    client.import_folder(client.datasets()[0].name, folder)
