"""`python -m tests.extras gateway catalog tagger trainer`: does a service start where only its own extra is installed?

For each: a fresh virtual environment, one wheel of ours with that one extra (at the versions of constraints.txt), the
service as its own user of a real nats-server, and `python -m <service> --check`. The bus, the migrate step and, for the
gateway, the catalog it asks run in the environment of this script, which must be the full one. Linux and macOS.
"""

import argparse
import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from contracts.wire.permissions import Role
from contracts.wire.server import EmbeddedServer

ROOT = Path(__file__).parents[1]
PACKAGES = ("contracts", "catalog", "gateway", "tagger", "trainer", "loratory")
SERVICES: tuple[Role, ...] = ("gateway", "catalog", "tagger", "trainer")
FOREIGN = {
    "gateway": ("torch", "onnxruntime", "PIL", "numpy"),
    "catalog": ("torch", "onnxruntime", "litestar", "numpy"),
    "tagger": ("torch", "litestar", "pyroaring"),
    "trainer": ("litestar", "onnxruntime", "pyroaring"),
}
"""What an environment with one extra must not hold: it belongs to the others."""
READY_WITHIN = 180.0
INSTALLED_WITHIN = 1500.0


def wheel(folder: Path) -> Path:
    """Ours, built from a copy: setuptools would leave its `build/` beside the sources."""
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    pip(sys.executable, "wheel", "--no-deps", "--wheel-dir", str(folder), str(source))
    return next(folder.glob("loratory-*.whl"))


def environment(folder: Path, built: Path, extra: str) -> Path:
    """The Python of a fresh environment with our wheel and one extra."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, timeout=120)
    python = folder / "bin" / "python"
    pip(str(python), "install", "--constraint", str(ROOT / "constraints.txt"), f"{built}[{extra}]")
    return python


def pip(python: str, *words: str) -> None:
    """Its many words are told only when it fails."""
    done = subprocess.run(
        [python, "-m", "pip", *words], capture_output=True, text=True, check=False, timeout=INSTALLED_WITHIN
    )
    if done.returncode:
        raise RuntimeError(f"pip {' '.join(words)} failed:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")


def strangers(python: Path, service: str) -> list[str]:
    """Which libraries of other services can be imported there."""
    looking = "import sys, importlib.util as u; print(*[name for name in sys.argv[1:] if u.find_spec(name)])"
    said = subprocess.run(
        [str(python), "-c", looking, *FOREIGN[service]], check=True, capture_output=True, text=True, timeout=60
    )
    return said.stdout.split()


class House:
    """A nats-server with its streams, and what runs against it, each with a folder of its own."""

    def __init__(self, folder: Path, server: EmbeddedServer) -> None:
        self.folder = folder
        self.server = server

    def settings(self, role: Role) -> dict[str, str]:
        user, password = self.server.credentials(role)
        here = self.folder
        own: dict[str, dict[str, object]] = {
            "admin": {},
            "gateway": {"STAGING": here / "staging", "PORT": 0},
            "catalog": {"CATALOG": here / "catalog", "STAGING": here / "staging"},
            "tagger": {"WORK": here / "tagger"},
            "trainer": {name: here / name.lower() for name in ("BASES", "CACHE", "WORK", "LORAS")},
        }
        shared = {"NATS_URL": self.server.url, "NATS_USER": user, "NATS_PASSWORD": password}
        if role != "admin":
            shared |= {"BLOBS": str(here / "blobs"), "HEALTH_FILE": str(here / "run" / f"{role}.json")}
        given = {name: value for name, value in os.environ.items() if not name.startswith(("LORATORY_", "PYTHON"))}
        return given | {f"LORATORY_{name}": str(value) for name, value in {**shared, **own[role]}.items()}

    def migrate(self) -> None:
        command = [sys.executable, "-m", "contracts"]
        subprocess.run(command, env=self.settings("admin"), check=True, timeout=60, stdout=subprocess.DEVNULL)

    @contextmanager
    def running(self, python: Path, role: Role) -> Iterator[float]:
        """The service, ready; how many seconds that took. RuntimeError with its last words when it never is."""
        for name in ("staging", "blobs", "bases"):
            (self.folder / name).mkdir(exist_ok=True)
        command, log = [str(python), "-P", "-m", role], self.folder / f"{role}.log"
        started = time.monotonic()
        with log.open("wb") as said:
            process = subprocess.Popen(command, env=self.settings(role), cwd=self.folder, stdout=said, stderr=said)
            try:
                while not self._ready(command, role):
                    if process.poll() is not None or time.monotonic() - started > READY_WITHIN:
                        raise RuntimeError(f"{role} did not become ready:\n{log.read_text()[-3000:]}")
                    time.sleep(0.2)
                yield time.monotonic() - started
            finally:
                process.terminate()
                process.wait(30)

    def _ready(self, command: Sequence[str], role: Role) -> bool:
        asked = subprocess.run(
            [*command, "--check"], env=self.settings(role), cwd=self.folder, capture_output=True, check=False
        )
        return asked.returncode == 0


async def served(service: Role, python: Path, folder: Path) -> float:
    """Seconds until it was ready, on a bus of its own."""
    folder.mkdir()
    async with EmbeddedServer(folder / "nats") as server:
        house = House(folder, server)
        return await asyncio.to_thread(_ready, house, service, python)


def _ready(house: House, service: Role, python: Path) -> float:
    house.migrate()
    if service != "gateway":
        with house.running(python, service) as seconds:
            return seconds
    # A gateway without a catalog is, rightly, not ready.
    with house.running(Path(sys.executable), "catalog"), house.running(python, service) as seconds:
        return seconds


def main(arguments: Sequence[str]) -> int:
    """0 when every service starts; what goes wrong is raised."""
    parser = argparse.ArgumentParser(prog="python -m tests.extras")
    parser.add_argument("services", nargs="*", choices=SERVICES, default=SERVICES, metavar="service")
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="loratory-extras-") as name:
        folder = Path(name)
        built = wheel(folder)
        for service in asked.services:
            started = time.monotonic()
            python = environment(folder / f"venv-{service}", built, service)
            installed = time.monotonic() - started
            if found := strangers(python, service):
                raise RuntimeError(f"with the extra {service} alone there is also {', '.join(found)}")
            seconds = asyncio.run(served(service, python, folder / service))
            sys.stdout.write(f"{service:<8} installed in {installed:.0f} s, ready in {seconds:.1f} s\n")
            sys.stdout.flush()
            shutil.rmtree(folder / f"venv-{service}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
