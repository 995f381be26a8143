"""`python -m tests.extras gateway catalog tagger trainer` checks that each service starts with only its own extra.

For each: a fresh virtual environment with our wheel and exactly what that one extra requires, the service as its own
user of a real nats-server, and `python -m <service> --check`. Of the environment of this script, which must have all
extras, are: the packages, which are linked and not unpacked four times more; the bus, the migrate step and, for the
gateway, the catalog it needs. Linux and macOS.
"""

import argparse
import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import Distribution, distribution
from importlib.util import cache_from_source
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from contracts.wire.server.accounts import Role
from contracts.wire.server.embedded import EmbeddedServer

ROOT = Path(__file__).parents[1]
PACKAGES = ("contracts", "catalog", "gateway", "tagger", "trainer", "loratory", "demo_world")
SERVICES: tuple[Role, ...] = ("gateway", "catalog", "tagger", "trainer")
FORBIDDEN_LIBRARIES = {
    "gateway": ("torch", "onnxruntime", "numpy"),
    "catalog": ("torch", "onnxruntime", "litestar"),
    "tagger": ("torch", "litestar", "pyroaring"),
    "trainer": ("litestar", "onnxruntime", "pyroaring"),
}
"""Libraries that an environment with one extra must not contain: they belong to other services."""
READY_TIMEOUT_SECONDS = 180.0
PIP_TIMEOUT_SECONDS = 1500.0


def build_wheel(folder: Path) -> Path:
    """Built from a copy of the sources: setuptools would leave its `build/` folder beside them."""
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    pip("wheel", "--no-deps", "--wheel-dir", str(folder), str(source))
    return next(folder.glob("loratory-*.whl"))


def create_environment(folder: Path, wheel: Path, extra: str) -> Path:
    """Create an environment with our wheel and what one extra of it requires; returns its Python. It has no pip."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=120)
    python = folder / "bin" / "python"
    pip("--python", str(python), "install", "--no-compile", "--no-deps", str(wheel))
    (installed,) = (folder / "lib").glob("python*/site-packages/loratory-*.dist-info")
    for package in required_packages(Distribution.at(installed), extra):
        link(package, installed.parent)
    return python


def required_packages(ours: Distribution, extra: str) -> Iterable[Distribution]:
    """What pip would install with this extra, as it is in the environment of this script; RuntimeError if it lacks it.

    The versions are those of constraints.txt in both, so there is one choice for each.
    """
    packages: dict[str, Distribution] = {}
    pending, seen = [(ours, extra)], set[tuple[str, str]]()
    while pending:
        requiring, chosen = pending.pop()
        for requirement in map(Requirement, requiring.requires or ()):
            if requirement.marker is not None and not requirement.marker.evaluate({"extra": chosen}):
                continue
            name = canonicalize_name(requirement.name)
            package = packages.setdefault(name, distribution(name))
            if not requirement.specifier.contains(package.version, prereleases=True):
                raise RuntimeError(f"{requiring.name} requires {requirement}, here is {package.version}")
            more = {(name, each) for each in ("", *requirement.extras)} - seen
            seen |= more
            pending += [(package, each) for _, each in more]
    return packages.values()


def link(package: Distribution, folder: Path) -> None:
    """Link the files of an installed package, and those compiled from them, into another environment."""
    for file in package.files or ():
        source = Path(str(package.locate_file(file)))
        target = Path(os.path.normpath(folder / file))
        pairs = [(source, target)]
        if file.suffix == ".py":
            pairs.append((Path(cache_from_source(source)), Path(cache_from_source(target))))
        for existing, linked in pairs:
            if existing.is_file() and not linked.exists():
                linked.parent.mkdir(parents=True, exist_ok=True)
                linked.symlink_to(existing)


def pip(*arguments: str) -> None:
    """Prints pip's output only if it fails."""
    command = [sys.executable, "-m", "pip", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PIP_TIMEOUT_SECONDS)
    if result.returncode:
        raise RuntimeError(f"pip {' '.join(arguments)} failed:\n{result.stdout[-3000:]}{result.stderr[-3000:]}")


def forbidden_libraries(python: Path, service: str) -> list[str]:
    """The libraries of other services that this Python can import."""
    script = "import sys, importlib.util as u; print(*[name for name in sys.argv[1:] if u.find_spec(name)])"
    command = [str(python), "-c", script, *FORBIDDEN_LIBRARIES[service]]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.split()


class ServiceHost:
    """Runs the migrate step and services against one nats-server, with folders of their own."""

    def __init__(self, folder: Path, server: EmbeddedServer) -> None:
        self.folder = folder
        self.server = server

    def settings(self, role: Role) -> dict[str, str]:
        folder = self.folder
        own: dict[str, dict[str, object]] = {
            "admin": {},
            "gateway": {"STAGING": folder / "staging", "PORT": 0},
            "catalog": {"CATALOG": folder / "catalog", "STAGING": folder / "staging"},
            "tagger": {"WORK": folder / "tagger"},
            "trainer": {name: folder / name.lower() for name in ("BASES", "CACHE", "WORK", "LORAS")},
        }
        user, key = self.server.credentials(role)
        shared = {"NATS_URL": self.server.url, "NATS_USER": user, "NATS_NKEY_FILE": str(key.path)}
        if role != "admin":
            shared |= {"BLOBS": str(folder / "blobs"), "HEALTH_FILE": str(folder / "run" / f"{role}.json")}
        given = {name: value for name, value in os.environ.items() if not name.startswith(("LORATORY_", "PYTHON"))}
        return given | {f"LORATORY_{name}": str(value) for name, value in {**shared, **own[role]}.items()}

    def migrate(self) -> None:
        command = [sys.executable, "-m", "contracts"]
        subprocess.run(command, env=self.settings("admin"), check=True, timeout=60, stdout=subprocess.DEVNULL)

    @contextmanager
    def running(self, python: Path, role: Role) -> Iterator[float]:
        """Run the service; once it is ready, yields the seconds that took. RuntimeError with its log on failure."""
        for name in ("staging", "blobs", "bases"):
            (self.folder / name).mkdir(exist_ok=True)
        command, log = [str(python), "-P", "-m", role], self.folder / f"{role}.log"
        started = time.monotonic()
        with log.open("wb") as output:
            process = subprocess.Popen(command, env=self.settings(role), cwd=self.folder, stdout=output, stderr=output)
            try:
                while not self._is_ready(command, role):
                    if process.poll() is not None or time.monotonic() - started > READY_TIMEOUT_SECONDS:
                        raise RuntimeError(f"{role} did not become ready:\n{log.read_text()[-3000:]}")
                    time.sleep(0.2)
                yield time.monotonic() - started
            finally:
                process.terminate()
                process.wait(30)

    def _is_ready(self, command: Sequence[str], role: Role) -> bool:
        check = subprocess.run(
            [*command, "--check"], env=self.settings(role), cwd=self.folder, capture_output=True, check=False
        )
        return check.returncode == 0


async def measure_start(service: Role, python: Path, folder: Path) -> float:
    """Seconds until the service is ready, on a bus of its own."""
    folder.mkdir()
    async with EmbeddedServer(folder / "nats") as server:
        host = ServiceHost(folder, server)
        return await asyncio.to_thread(_start_and_measure, host, service, python)


def _start_and_measure(host: ServiceHost, service: Role, python: Path) -> float:
    host.migrate()
    if service != "gateway":
        with host.running(python, service) as seconds:
            return seconds
    # A gateway without a catalog is never ready.
    with host.running(Path(sys.executable), "catalog"), host.running(python, service) as seconds:
        return seconds


def main(arguments: Sequence[str]) -> int:
    """Returns 0 if every service starts; raises otherwise."""
    parser = argparse.ArgumentParser(prog="python -m tests.extras")
    parser.add_argument("services", nargs="*", choices=SERVICES, default=SERVICES, metavar="service")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="loratory-extras-") as name:
        folder = Path(name)
        wheel = build_wheel(folder)
        for service in options.services:
            started = time.monotonic()
            python = create_environment(folder / f"venv-{service}", wheel, service)
            install_seconds = time.monotonic() - started
            if found := forbidden_libraries(python, service):
                raise RuntimeError(f"the extra {service} alone also installs {', '.join(found)}")
            seconds = asyncio.run(measure_start(service, python, folder / service))
            sys.stdout.write(f"{service:<8} environment made in {install_seconds:.0f} s, ready in {seconds:.1f} s\n")
            sys.stdout.flush()
            shutil.rmtree(folder / f"venv-{service}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
