"""`loratory doctor`: checks of the installation, with what to do about each problem."""

import importlib.metadata
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from cyclopts import Parameter
from cyclopts.validators import Number

from contracts.errors import LoratoryError, SetupError
from contracts.wire.server.binary import find_binary
from contracts.wire.service.boot import distributions_of, refuse_foreign_packages
from contracts.wire.service.supervision import read_supervision
from loratory.bind_address import find_free_port
from loratory.child import run_python
from loratory.cli.bundle import BundleSource, describe_bundle, write_bundle
from loratory.cli.options import DEFAULT_SERVER, Environ, Server
from loratory.cli.output import write_json, write_lines
from loratory.client import AsyncClient
from loratory.data_folder import DataFolder, check_format, running_port
from loratory.services import service_command, service_environment

TORCH_TIMEOUT_SECONDS = 60.0
CHECK_FILES_TIMEOUT_SECONDS = 600.0
"""The archive of a large data folder is read once, to know what must be stored."""
MIN_FREE_DISK_BYTES = 2 << 30
REQUIRED_PACKAGES = {
    "gateway": ("litestar", "uvicorn", "pillow", "prometheus-client", "pyroaring"),
    "catalog": ("aiosqlite", "cryptography", "pillow", "pyroaring"),
    "tagger": ("onnxruntime", "pillow", "numpy"),
    "trainer": ("torch", "diffusers", "peft", "accelerate", "transformers", "safetensors"),
}
"""The packages of each extra that its service cannot run without."""
TORCH_PROGRAM = """
import torch
cuda = torch.cuda.is_available()
print(f"torch {torch.__version__}, " + (f"CUDA on {torch.cuda.get_device_name(0)}" if cuda else "CPU only"))
"""


class Check(msgspec.Struct, frozen=True):
    """One check. `bad`: must be fixed, exit code 1; `note`: worth knowing."""

    name: str
    verdict: Literal["ok", "note", "bad"]
    text: str


async def doctor(  # noqa: PLR0913 - each is an option
    *,
    data: Path = Path("~/loratory"),
    port: int = 8000,
    bundle: Annotated[Path | None, Parameter(show_default=False)] = None,
    lines: Annotated[int, Parameter(validator=Number(gte=1, lte=100_000))] = 1000,
    server: Server = DEFAULT_SERVER,
    environ: Environ,
) -> int:
    """Check this installation and say what to fix; exit code 1 if something must be fixed.

    :param data: The data folder that `up` would use.
    :param port: The port that `up` would use.
    :param bundle: Also write a zip file for a bug report, with logs, metrics and settings, but no secrets.
    :param lines: Number of lines of each log in the bundle.
    """
    checks = [*local_checks(data.expanduser(), port, environ), await _check_torch(), await _check_server(server)]
    rows = [f"{check.verdict:<4}  {check.name:<14} {check.text}" for check in checks]
    write_json(checks) if server.json else write_lines(rows)
    if bundle is not None:
        source = BundleSource(
            folder=DataFolder(data),
            environ=environ,
            url=server.url,
            key=server.key or environ.get("LORATORY_API_KEY"),
            lines=lines,
        )
        notes = await write_bundle(bundle.expanduser(), source, checks)
        if not server.json:
            write_lines(describe_bundle(bundle.expanduser(), notes))
    return 1 if any(check.verdict == "bad" for check in checks) else 0


def local_checks(data: Path, port: int, environ: Mapping[str, str]) -> Iterator[Check]:
    """Those that need neither torch nor a server."""
    yield Check("python", "ok", f"{platform.python_version()} on {platform.system()}, {sys.executable}")
    for service in REQUIRED_PACKAGES:
        yield _run_check(service, partial(_check_packages, service), verdict="note")
    yield _run_check("our packages", _check_foreign_packages)
    yield _run_check("nats-server", _check_nats_server)
    yield _run_check("free disk", lambda: _check_disk(data))
    yield _run_check("data folder", lambda: _check_data_folder(data, environ))
    yield _run_check("services", lambda: _check_services(data))
    yield _run_check("port", lambda: _check_port(data, port), verdict="note")


def _run_check(name: str, check: Callable[[], str], verdict: Literal["note", "bad"] = "bad") -> Check:
    try:
        return Check(name, "ok", check())
    except SetupError as error:
        return Check(name, verdict, error.detail)


def _check_packages(service: str) -> str:
    found, missing = [], []
    for name in REQUIRED_PACKAGES[service]:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        raise SetupError(f"cannot run here: {', '.join(missing)} missing; pip install 'loratory[{service}]'")
    return ", ".join(found)


def _check_nats_server() -> str:
    binary = find_binary().resolve()
    output = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=10, check=True).stdout
    return f"{output.strip()}, {binary}"


def _check_foreign_packages() -> str:
    refuse_foreign_packages()
    foreign = {name: [o for o in owners if o != "loratory"] for name, owners in distributions_of().items()}
    listed = "; ".join(f"{name} also belongs to {', '.join(others)}" for name, others in foreign.items() if others)
    if listed:
        raise SetupError(f"{listed}: install Loratory in an environment of its own")
    return "no other distribution installs packages of these names"


def _check_disk(data: Path) -> str:
    existing = next(folder for folder in (data, *data.parents) if folder.is_dir())
    free = shutil.disk_usage(existing).free
    text = f"{free / (1 << 30):.1f} GiB at {existing}"
    if free < MIN_FREE_DISK_BYTES:
        raise SetupError(text)
    return text


def _check_data_folder(data: Path, environ: Mapping[str, str]) -> str:
    if not data.is_dir():
        return f"{data} does not exist yet; `loratory up` creates it"
    check_format(data)
    environment = service_environment("catalog", DataFolder(data), given=environ, settings={})
    command = [*service_command("catalog"), "check-files"]
    checked = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=CHECK_FILES_TIMEOUT_SECONDS, check=False
    )
    if checked.returncode:
        raise SetupError(checked.stderr.strip().rpartition("\n")[2])
    return f"{data} can be read by this version; " + (checked.stdout.strip() or "it is empty")


def _check_services(data: Path) -> str:
    """What the Loratory that runs on this folder waits for; also while its gateway is down."""
    if running_port(data) is None:
        return f"Loratory is not running on {data}"
    report = read_supervision(DataFolder(data).supervision_file)
    if report.paused:
        raise SetupError("; ".join(report.sentence(name, time.time()) for name in report.paused))
    return "none waits to be started again"


def _check_port(data: Path, port: int) -> str:
    if running_port(data) == port:
        return f"{port} is used by the Loratory that runs on {data}"
    find_free_port("127.0.0.1", port)
    return f"{port} is free"


async def _check_torch() -> Check:
    """In a process of its own: importing torch takes seconds, and nothing here needs it."""
    try:
        output = await run_python("-c", TORCH_PROGRAM, timeout=TORCH_TIMEOUT_SECONDS)
    except TimeoutError:
        return Check("device", "bad", f"importing torch took more than {TORCH_TIMEOUT_SECONDS:g} s")
    except LoratoryError as error:
        return Check("device", "note", f"torch cannot be imported: {error}")
    return Check("device", "ok", output.decode().strip())


async def _check_server(server: Server) -> Check:
    try:
        async with AsyncClient(server.url, server.key, retry_timeout=0, tls=server.tls()) as client:
            version = await client.version()
            losses = await client.losses_found()
    except LoratoryError as error:
        return Check("server", "note", error.detail)
    if losses.counts:
        return Check("server", "bad", f"{server.url} is degraded: {losses.describe()}")
    return Check("server", "ok", f"{server.url} runs version {version.get('version', version)}")
