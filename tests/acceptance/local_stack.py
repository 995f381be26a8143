"""`loratory up` as a process, as users run it, on a data folder that outlives the process. Linux."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import httpx
import msgspec

from contracts.wire.service.health import ReadinessReport
from loratory import Client
from tests.limits import WAIT
from tests.ports import free_port

START_TIMEOUT_SECONDS = WAIT
STOP_TIMEOUT_SECONDS = WAIT
WORKERS = ("tagger", "trainer")


def command(*words: str | Path) -> list[str]:
    return [sys.executable, "-m", "loratory", *map(str, words)]


def environment(**more: str) -> dict[str, str]:
    """The environment without the `LORATORY_…` variables of the test run, which would reach the services."""
    return {name: value for name, value in os.environ.items() if not name.startswith("LORATORY_")} | more


def cli(*words: str | Path, timeout: float = 300, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run one command line and wait for it to exit."""
    return subprocess.run(
        command(*words), capture_output=True, text=True, timeout=timeout, env=environment(**environ), check=False
    )


class LocalStack:
    """One data folder and one port; can be started and stopped repeatedly."""

    def __init__(
        self, data: Path, *, workers: bool = True, options: Sequence[str | Path] = (), **settings: str
    ) -> None:
        """`options` of `up`; `settings`: environment variables for it, such as LORATORY_LEASE."""
        self.data = data
        self._settings = settings
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self._options = [*([] if workers else [f"--no-{name}" for name in WORKERS]), *options]
        self._process: subprocess.Popen[bytes] | None = None
        self._log = data.with_name(f"{data.name}.log")

    def start(self) -> None:
        """Returns once it accepts requests."""
        with self._log.open("wb") as log:
            up = command("up", "--data", self.data, "--port", str(self.port), *self._options)
            self._process = subprocess.Popen(up, stdout=log, stderr=log, env=environment(**self._settings))
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while "Loratory is at " not in self.output:
            assert self._process.poll() is None and time.monotonic() < deadline, self.output
            time.sleep(0.05)

    def stop(self) -> None:
        """As Ctrl-C does; does nothing if it is not running."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(STOP_TIMEOUT_SECONDS)
        finally:
            self._process.kill()
            self._process.wait()
        self._process = None

    @property
    def output(self) -> str:
        return self._log.read_text(errors="replace")

    def pid(self, service: str) -> int:
        """The current process id of `nats` or of a service."""
        if service == "nats":
            return self._nats_pid()
        return msgspec.json.decode((self.data / "run" / f"{service}.json").read_bytes(), type=ReadinessReport).pid

    def _nats_pid(self) -> int:
        assert self._process is not None
        up = self._process.pid
        for child in Path(f"/proc/{up}/task/{up}/children").read_text().split():
            if Path(f"/proc/{child}/comm").read_text().startswith("nats-server"):
                return int(child)
        raise AssertionError("there is no nats-server")

    def client(self) -> Client:
        return Client(self.address, retry_timeout=60)

    def http(self) -> httpx.Client:
        """For what `client()` hides: status codes, headers, problem documents."""
        return httpx.Client(base_url=self.address, timeout=90)
