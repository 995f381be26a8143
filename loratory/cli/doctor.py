"""`loratory doctor`: checks of the installation, with what to do about each problem."""

import asyncio
import importlib.metadata
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import msgspec

from contracts.errors import LoratoryError, SetupError
from contracts.wire.boot import distributions_of, refuse_foreign_packages
from contracts.wire.server_binary import find_binary
from loratory.bind_address import find_free_port
from loratory.cli.options import DEFAULT_SERVER, Server
from loratory.cli.output import write_json, write_line
from loratory.data_folder import check_format, running_port
from loratory.http import Http

TORCH_TIMEOUT_SECONDS = 60.0
MIN_FREE_DISK_BYTES = 2 << 30
REQUIRED_PACKAGES = {
    "gateway": ("litestar", "uvicorn", "prometheus-client"),
    "catalog": ("cryptography", "pillow", "pyroaring"),
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


async def doctor(*, data: Path = Path("~/loratory"), port: int = 8000, server: Server = DEFAULT_SERVER) -> int:
    """Check this installation and say what to fix; exit code 1 if something must be fixed.

    Parameters
    ----------
    data:
        The data folder that `up` would use.
    port:
        The port that `up` would use.
    """
    checks = [*_local_checks(data.expanduser(), port), await _check_torch(), await _check_server(server)]
    if server.json:
        write_json(checks)
    else:
        for check in checks:
            write_line(f"{check.verdict:<4}  {check.name:<14} {check.text}")
    return 1 if any(check.verdict == "bad" for check in checks) else 0


def _local_checks(data: Path, port: int) -> Iterator[Check]:
    yield Check("python", "ok", f"{platform.python_version()} on {platform.system()}, {sys.executable}")
    for service, packages in REQUIRED_PACKAGES.items():
        yield _check_packages(service, packages)
    yield _run_check("our packages", _check_foreign_packages)
    yield _run_check("nats-server", _check_nats_server)
    yield _check_disk(data)
    yield _run_check("data folder", lambda: _check_data_folder(data))
    yield _run_check("port", lambda: _check_port(data, port), verdict="note")


def _run_check(name: str, check: Callable[[], str], verdict: Literal["note", "bad"] = "bad") -> Check:
    try:
        return Check(name, "ok", check())
    except SetupError as error:
        return Check(name, verdict, error.detail)


def _check_packages(service: str, packages: tuple[str, ...]) -> Check:
    found, missing = [], []
    for name in packages:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        text = f"cannot run here: {', '.join(missing)} missing; pip install 'loratory[{service}]'"
        return Check(service, "note", text)
    return Check(service, "ok", ", ".join(found))


def _check_nats_server() -> str:
    binary = find_binary().resolve()
    output = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=10, check=True).stdout
    return f"{output.strip()}, {binary}"


def _check_foreign_packages() -> str:
    refuse_foreign_packages()
    foreign = {
        name: others
        for name, owners in distributions_of().items()
        if (others := [o for o in owners if o != "loratory"])
    }
    if foreign:
        listed = "; ".join(f"{name} also belongs to {', '.join(owners)}" for name, owners in foreign.items())
        raise SetupError(f"{listed}: install Loratory in an environment of its own")
    return "no other distribution installs packages of these names"


def _check_disk(data: Path) -> Check:
    existing = next(folder for folder in (data, *data.parents) if folder.is_dir())
    free = shutil.disk_usage(existing).free
    verdict: Literal["ok", "bad"] = "ok" if free >= MIN_FREE_DISK_BYTES else "bad"
    return Check("free disk", verdict, f"{free / (1 << 30):.1f} GiB at {existing}")


def _check_data_folder(data: Path) -> str:
    if not data.is_dir():
        return f"{data} does not exist yet; `loratory up` creates it"
    check_format(data)
    return f"{data} can be read by this version"


def _check_port(data: Path, port: int) -> str:
    if running_port(data) == port:
        return f"{port} is used by the Loratory that runs on {data}"
    find_free_port("127.0.0.1", port)
    return f"{port} is free"


async def _check_torch() -> Check:
    """In a process of its own: importing torch takes seconds, and nothing here needs it."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-c", TORCH_PROGRAM), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(TORCH_TIMEOUT_SECONDS):
            output, errors = await process.communicate()
    except TimeoutError:
        return Check("device", "bad", f"importing torch took more than {TORCH_TIMEOUT_SECONDS:g} s")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        last_line = errors.decode(errors="replace").strip().rpartition("\n")[2]
        return Check("device", "note", f"torch cannot be imported: {last_line}")
    return Check("device", "ok", output.decode().strip())


async def _check_server(server: Server) -> Check:
    http = Http(server.url, server.key, retry_timeout=0)
    try:
        version = await http.get("/api/v1/version", dict[str, object])
        return Check("server", "ok", f"{server.url} runs version {version.get('version', version)}")
    except LoratoryError as error:
        return Check("server", "note", error.detail)
    finally:
        await http.close()
