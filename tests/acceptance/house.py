"""The workshop as a user has it: `loratory up` as a process, on a data folder that outlives it. Linux."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import msgspec

from contracts.wire.health import Report
from loratory import Client
from tests.limits import WAIT

SERVES_WITHIN = WAIT
ENDS_WITHIN = WAIT
WORKERS = ("tagger", "trainer")


def command(*words: str | Path) -> list[str]:
    return [sys.executable, "-m", "loratory", *map(str, words)]


def environment(**more: str) -> dict[str, str]:
    """Without the settings of who runs the tests: `LORATORY_…` would reach the services."""
    return {name: value for name, value in os.environ.items() if not name.startswith("LORATORY_")} | more


def cli(*words: str | Path, timeout: float = 300, **environ: str) -> subprocess.CompletedProcess[str]:
    """One command line, to its end."""
    return subprocess.run(
        command(*words), capture_output=True, text=True, timeout=timeout, env=environment(**environ), check=False
    )


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


class House:
    """One data folder and one port; started and ended as often as wanted."""

    def __init__(self, data: Path, *, workers: bool = True, **settings: str) -> None:
        """`settings`: variables that `up` is started with, as LORATORY_LEASE."""
        self.data = data
        self._settings = settings
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self._without = [] if workers else [f"--no-{name}" for name in WORKERS]
        self._process: subprocess.Popen[bytes] | None = None
        self._log = data.with_name(f"{data.name}.log")

    def start(self) -> None:
        """Returns when it serves."""
        with self._log.open("wb") as log:
            up = command("up", "--data", self.data, "--port", str(self.port), *self._without)
            self._process = subprocess.Popen(up, stdout=log, stderr=log, env=environment(**self._settings))
        until = time.monotonic() + SERVES_WITHIN
        while "Loratory is at " not in self.said:
            assert self._process.poll() is None and time.monotonic() < until, self.said
            time.sleep(0.05)

    def stop(self) -> None:
        """As Ctrl-C does; twice is once."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(ENDS_WITHIN)
        finally:
            self._process.kill()
            self._process.wait()
        self._process = None

    @property
    def said(self) -> str:
        return self._log.read_text(errors="replace")

    def pid(self, service: str) -> int:
        """The process of `nats` or of a service, as it is now."""
        if service == "nats":
            return self._nats()
        return msgspec.json.decode((self.data / "run" / f"{service}.json").read_bytes(), type=Report).pid

    def _nats(self) -> int:
        assert self._process is not None
        up = self._process.pid
        for child in Path(f"/proc/{up}/task/{up}/children").read_text().split():
            if Path(f"/proc/{child}/comm").read_text().startswith("nats-server"):
                return int(child)
        raise AssertionError("there is no nats-server")

    def client(self) -> Client:
        return Client(self.address, patience=60)

    def http(self) -> httpx.Client:
        """For what the client of users hides: statuses, headers, problem documents."""
        return httpx.Client(base_url=self.address, timeout=90)
