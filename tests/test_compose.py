"""The containers, without a container engine: each service's command and environment, against a real nats-server.

Only what differs outside a container is mapped: paths to a temporary folder, host names and ports of the network.
"""

import asyncio
import os
import re
import shutil
import signal
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

from contracts import subjects
from contracts.wire.log.migration import MigrateSettings
from contracts.wire.server.binary import find_binary
from contracts.wire.service.bus import Bus
from contracts.wire.service.connection import connect_service
from contracts.wire.service.jetstream import find_stream
from contracts.wire.service.settings import read_settings
from loratory.deploy import nats_conf
from tests.limits import WAIT
from tests.ports import free_port

ROOT = Path(__file__).parents[1]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = ("catalog", "gateway", "tagger", "trainer")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="containers are Linux"),
]


class ComposeHost:
    """Runs the commands of compose.yaml as plain processes in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = {"4222": free_port(), "8000": free_port(), "8222": free_port()}
        (folder / "deploy").mkdir()
        shutil.copy(ROOT / "deploy" / "make-secrets.sh", folder / "deploy")
        self.generate_secrets()
        (folder / "users").symlink_to(folder / "deploy" / "secrets" / "users")  # mounted beside nats.conf
        (folder / "nats.conf").write_text(self.map_paths((ROOT / "deploy" / "nats.conf").read_text(), "nats"))

    def generate_secrets(self) -> None:
        """With this Python instead of the image of `init`."""
        environment = os.environ | {"PYTHON": sys.executable}
        subprocess.run(["sh", "deploy/make-secrets.sh"], cwd=self.folder, env=environment, check=True)

    def map_paths(self, text: str, service: str) -> str:
        """Replace paths and addresses inside the service's container by those of this host."""
        replacements: dict[str, object] = {
            "nats://nats:4222": f"nats://127.0.0.1:{self.ports['4222']}",
            "/run/secrets": self.folder / "deploy" / "secrets",
            "/etc/nats/nats.conf": self.folder / "nats.conf",
            "/data": self.folder / "data",
            "/tmp": self.folder / "tmp" / service,  # each container has its own
            "0.0.0.0": "127.0.0.1",  # noqa: S104 - replaced: tests listen on loopback only
            "9100": 0,  # each container has its own address
            **self.ports,
        }
        # In one pass, so that nothing is replaced inside a replacement.
        originals = "|".join(map(re.escape, replacements))
        mapped = re.sub(rf"(?<![\w/.])({originals})\b", lambda found: str(replacements[found[1]]), text)
        return mapped.replace("$$", "$")

    def environment(self, service: str) -> dict[str, str]:
        variables = SERVICES[service].get("environment", {})
        own = {name: self.map_paths(str(value), service) for name, value in variables.items()}
        path = f"{find_binary().resolve().parent}{os.pathsep}{os.environ['PATH']}"
        return {"PATH": path, "HOME": str(self.folder), "OMP_NUM_THREADS": "1", **own}

    def command(self, service: str) -> list[str]:
        arguments = SERVICES[service].get("entrypoint") or SERVICES[service]["command"]
        mapped = [self.map_paths(str(argument), service) for argument in arguments]
        return [sys.executable if argument == "python" else argument for argument in mapped]

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
                    process.wait(WAIT)
                finally:
                    process.kill()
                    process.wait()

    def log(self, service: str) -> str:
        return (self.folder / f"{service}.log").read_text()[-4000:]

    def run_once(self, command: Sequence[str], service: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            env=self.environment(service),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=WAIT,
            check=False,
        )

    def wait_ready(self, service: str, process: subprocess.Popen[bytes]) -> None:
        """Until its health check passes."""
        _, *check = SERVICES[service]["healthcheck"]["test"]
        command = [sys.executable if argument == "python" else argument for argument in check]
        deadline = time.monotonic() + WAIT
        while (result := self.run_once(command, service)).returncode != 0:
            assert process.poll() is None, self.log(service)
            assert time.monotonic() < deadline, f"{result.stderr}\n{self.log(service)}"
            time.sleep(0.2)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComposeHost]:
    """A host with a running nats-server."""
    host = ComposeHost(tmp_path_factory.mktemp("compose"))
    for folder in (
        "data/nats",
        "data/catalog",
        "data/blobs",
        "data/staging",
        "data/models",
        "data/bases",
        "data/loras",
    ):
        (host.folder / folder).mkdir(parents=True)
    for service in (*OURS, "init", "queue-watch", "nats"):
        (host.folder / "tmp" / service).mkdir(parents=True)
    with host.running("nats") as nats:
        health = host.map_paths(SERVICES["nats"]["healthcheck"]["test"][-1], "nats")
        deadline = time.monotonic() + WAIT
        while not _is_healthy(health):
            assert nats.poll() is None and time.monotonic() < deadline, host.log("nats")
            time.sleep(0.05)
        yield host


def _is_healthy(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).is_success
    except httpx.TransportError:
        return False


def test_nats_conf_is_what_the_code_generates() -> None:
    assert (ROOT / "deploy" / "nats.conf").read_text() == nats_conf()


def test_every_container_is_locked_down() -> None:
    for name, service in SERVICES.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name


def test_every_build_target_runs_unprivileged_with_the_command_and_health_check_of_compose() -> None:
    stages = re.split(r"^FROM ", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    by_name = {match[1]: stage for stage in stages if (match := re.match(r"\S+ AS (\S+)", stage))}
    for name in (*OURS, "init"):
        stage = by_name[SERVICES[name]["build"]["target"]]
        assert "USER 10001:10001" in stage
        assert f"CMD {_json_array(SERVICES[name]['command'])}" in stage
        if name != "init":
            assert f"CMD {_json_array(SERVICES[name]['healthcheck']['test'][1:])}" in stage


def _json_array(arguments: list[str]) -> str:
    return "[" + ", ".join(f'"{argument}"' for argument in arguments) + "]"


def test_secrets_are_generated_once_and_kept(host: ComposeHost) -> None:
    secrets = host.folder / "deploy" / "secrets"
    before = {file.name: file.read_text() for file in secrets.iterdir() if file.is_file()}
    users = {file.name: file.read_text() for file in (secrets / "users").iterdir()}
    host.generate_secrets()
    assert {file.name: file.read_text() for file in secrets.iterdir() if file.is_file()} == before
    assert {file.name: file.read_text() for file in (secrets / "users").iterdir()} == users
    assert not any(seed.strip() in text for seed in before.values() for text in users.values())
    assert before.keys() == COMPOSE["secrets"].keys()
    assert len(set(before.values())) == len(before)
    assert secrets.stat().st_mode & 0o777 == 0o700


def test_the_migrate_step_can_be_repeated(host: ComposeHost) -> None:
    first = host.run_once(host.command("init"), "init")
    assert first.returncode == 0, first.stderr
    second = host.run_once(host.command("init"), "init")
    assert (second.returncode, second.stdout) == (0, first.stdout)


def test_a_lost_queue_is_recreated(host: ComposeHost) -> None:
    assert host.run_once(host.command("init"), "init").returncode == 0
    asyncio.run(lose_queue(host))
    with host.running("queue-watch") as watch:
        asyncio.run(wait_for_queue(host, watch))


async def lose_queue(host: ComposeHost) -> None:
    async with await connect_as_admin(host) as admin:
        await admin.jetstream().delete_stream(subjects.QUEUE)


async def wait_for_queue(host: ComposeHost, watch: subprocess.Popen[bytes]) -> None:
    async with await connect_as_admin(host) as admin, asyncio.timeout(WAIT):
        while await find_stream(admin.jetstream(), subjects.QUEUE) is None:
            assert watch.poll() is None, host.log("queue-watch")
            await asyncio.sleep(0.1)


async def connect_as_admin(host: ComposeHost) -> Bus:
    settings = read_settings(MigrateSettings, host.environment("init"))
    return await connect_service(settings, "test")


def test_the_migrate_step_creates_no_log_if_another_one_is_known(host: ComposeHost) -> None:
    known = host.folder / "known"
    known.write_text("01JANOTHERLOG")
    environment = host.environment("init") | {"LORATORY_KNOWN_LOG": str(known)}
    result = subprocess.run(host.command("init"), env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 3
    assert "but the archive was made from 01JANOTHERLOG" in result.stderr


def test_all_services_become_ready_with_their_commands_and_environments_and_stop(host: ComposeHost) -> None:
    assert host.run_once(host.command("init"), "init").returncode == 0
    assert OURS[0] == "catalog"  # all others need it
    with ExitStack() as running:
        processes = {service: running.enter_context(host.running(service)) for service in OURS}
        for service, process in processes.items():
            host.wait_ready(service, process)
        assert_api_key_is_required(host)
        for service, process in reversed(processes.items()):
            process.terminate()
            assert process.wait(WAIT) == 0, host.log(service)


def assert_api_key_is_required(host: ComposeHost) -> None:
    key = (host.folder / "deploy" / "secrets" / "api_key").read_text().strip()
    url = f"http://127.0.0.1:{host.ports['8000']}/api/v1/datasets"
    with httpx.Client(trust_env=False) as client:
        assert client.get(url).status_code == 401
        assert client.get(url, headers={"Authorization": f"Bearer {key}"}).status_code == 200
