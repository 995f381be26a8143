"""The containers, without an engine: each service's command with exactly its environment, against a real nats-server.

Only what a container gives and a test cannot is mapped: paths into a temporary folder, names and ports of the network.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from contracts.wire.server_binary import find_binary
from loratory.deploy import nats_conf

ROOT = Path(__file__).parents[1]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = ("catalog", "gateway", "tagger", "trainer")
READY_WITHIN = 120.0

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="containers are Linux")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


class Machine:
    """One folder in which what would be containers run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = {"4222": free_port(), "8000": free_port(), "8222": free_port()}
        (folder / "deploy").mkdir()
        shutil.copy(ROOT / "deploy" / "make-secrets.sh", folder / "deploy")
        self.make_secrets()
        (folder / "nats.conf").write_text(self.mapped((ROOT / "deploy" / "nats.conf").read_text(), "nats"))

    def make_secrets(self) -> None:
        subprocess.run(["sh", "deploy/make-secrets.sh"], cwd=self.folder, check=True)

    def mapped(self, text: str, service: str) -> str:
        """As it would be in the container of that service."""
        places: dict[str, object] = {
            "nats://nats:4222": f"nats://127.0.0.1:{self.ports['4222']}",
            "/run/secrets": self.folder / "deploy" / "secrets",
            "/etc/nats/nats.conf": self.folder / "nats.conf",
            "/data": self.folder / "data",
            "/tmp": self.folder / "tmp" / service,  # each container has its own
            "0.0.0.0": "127.0.0.1",  # noqa: S104 - replaced: a test listens to this machine only
            **self.ports,
        }
        # All at once, so that nothing is replaced in what was put there.
        inside = "|".join(map(re.escape, places))
        return re.sub(rf"(?<![\w/.])({inside})\b", lambda found: str(places[found[1]]), text).replace("$$", "$")

    def environment(self, service: str) -> dict[str, str]:
        given = {
            name: self.mapped(str(value), service) for name, value in SERVICES[service].get("environment", {}).items()
        }
        path = f"{find_binary().resolve().parent}{os.pathsep}{os.environ['PATH']}"
        return {"PATH": path, "HOME": str(self.folder), "OMP_NUM_THREADS": "1", **given}

    def command(self, service: str, *more: str) -> list[str]:
        words = SERVICES[service].get("entrypoint") or SERVICES[service]["command"]
        mapped = [self.mapped(str(word), service) for word in [*words, *more]]
        return [sys.executable if word == "python" else word for word in mapped]

    @contextmanager
    def running(self, service: str) -> Iterator[subprocess.Popen[bytes]]:
        with (self.folder / f"{service}.log").open("ab") as log:
            process = subprocess.Popen(
                self.command(service), env=self.environment(service), cwd=self.folder, stdout=log, stderr=log
            )
            try:
                yield process
            finally:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(30)
                finally:
                    process.kill()
                    process.wait()

    def log(self, service: str) -> str:
        return (self.folder / f"{service}.log").read_text()[-4000:]

    def once(self, command: Sequence[str], service: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            env=self.environment(service),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def wait_ready(self, service: str, process: subprocess.Popen[bytes]) -> None:
        """As its health check sees it."""
        _, *check = SERVICES[service]["healthcheck"]["test"]
        words = [sys.executable if word == "python" else word for word in check]
        until = time.monotonic() + READY_WITHIN
        while (answer := self.once(words, service)).returncode != 0:
            assert process.poll() is None, self.log(service)
            assert time.monotonic() < until, f"{answer.stderr}\n{self.log(service)}"
            time.sleep(0.2)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """nats and the migrate step."""
    machine = Machine(tmp_path_factory.mktemp("compose"))
    for folder in (
        "data/nats",
        "data/catalog",
        "data/blobs",
        "data/staging",
        "data/models",
        "data/bases",
        "data/loras",
    ):
        (machine.folder / folder).mkdir(parents=True)
    for service in (*OURS, "init", "nats"):
        (machine.folder / "tmp" / service).mkdir(parents=True)
    with machine.running("nats") as nats:
        health = machine.mapped(SERVICES["nats"]["healthcheck"]["test"][-1], "nats")
        until = time.monotonic() + 30
        while not _healthy(health):
            assert nats.poll() is None and time.monotonic() < until, machine.log("nats")
            time.sleep(0.05)
        yield machine


def _healthy(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).is_success
    except httpx.TransportError:
        return False


def test_the_file_is_valid_compose() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", "compose.yaml"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_the_servers_configuration_is_what_the_code_renders() -> None:
    assert (ROOT / "deploy" / "nats.conf").read_text() == nats_conf()


def test_every_container_is_locked_down() -> None:
    for name, service in SERVICES.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name


def test_every_target_exists_runs_as_nobody_special_and_checks_its_health_as_compose_does() -> None:
    stages = re.split(r"^FROM ", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    by_name = {match[1]: stage for stage in stages if (match := re.match(r"\S+ AS (\S+)", stage))}
    for name in (*OURS, "init"):
        stage = by_name[SERVICES[name]["build"]["target"]]
        assert "USER 10001:10001" in stage
        assert f"CMD {_as_json(SERVICES[name]['command'])}" in stage
        if name != "init":
            assert f"CMD {_as_json(SERVICES[name]['healthcheck']['test'][1:])}" in stage


def _as_json(words: list[str]) -> str:
    return "[" + ", ".join(f'"{word}"' for word in words) + "]"


def test_secrets_are_made_once_and_kept(machine: Machine) -> None:
    secrets = machine.folder / "deploy" / "secrets"
    before = {file.name: file.read_text() for file in secrets.iterdir()}
    machine.make_secrets()
    assert {file.name: file.read_text() for file in secrets.iterdir()} == before
    assert before.keys() == COMPOSE["secrets"].keys()
    assert len(set(before.values())) == len(before)
    assert secrets.stat().st_mode & 0o777 == 0o700


def test_the_migrate_step_can_be_repeated(machine: Machine) -> None:
    first = machine.once(machine.command("init"), "init")
    assert first.returncode == 0, first.stderr
    second = machine.once(machine.command("init"), "init")
    assert (second.returncode, second.stdout) == (0, first.stdout)


def test_the_migrate_step_makes_no_log_where_another_is_known(machine: Machine) -> None:
    known = machine.folder / "known"
    known.write_text("01JANOTHERLOG")
    environment = machine.environment("init") | {"LORATORY_KNOWN_LOG": str(known)}
    answer = subprocess.run(machine.command("init"), env=environment, capture_output=True, text=True, check=False)
    assert answer.returncode == 3
    assert "but the archive was made from 01JANOTHERLOG" in answer.stderr


@pytest.mark.parametrize("service", OURS)
def test_each_service_gets_ready_with_its_command_and_its_environment(machine: Machine, service: str) -> None:
    assert machine.once(machine.command("init"), "init").returncode == 0
    with ExitStack() as running:
        if service != "catalog":  # the one all others ask
            running.enter_context(machine.running("catalog"))
        process = running.enter_context(machine.running(service))
        machine.wait_ready(service, process)
        process.terminate()
        assert process.wait(30) == 0, machine.log(service)


def test_the_gateway_asks_for_the_key(machine: Machine) -> None:
    key = (machine.folder / "deploy" / "secrets" / "api_key").read_text().strip()
    url = f"http://127.0.0.1:{machine.ports['8000']}/api/v1/datasets"
    assert machine.once(machine.command("init"), "init").returncode == 0
    with machine.running("catalog"), machine.running("gateway") as gateway:
        machine.wait_ready("gateway", gateway)
        with httpx.Client(trust_env=False) as client:
            assert client.get(url).status_code == 401
            assert client.get(url, headers={"Authorization": f"Bearer {key}"}).status_code == 200
