"""`loratory doctor`: what is here, what is missing, and what to do about it."""

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
from contracts.wire.boot import owners_of, refuse_foreign_packages
from contracts.wire.server_binary import find_binary
from loratory.cli.common import DEFAULT, Server, say, say_json
from loratory.folder import check_format
from loratory.http import Http
from loratory.listening import free_port

TORCH_WITHIN = 60.0
ENOUGH_DISK = 2 << 30
NEEDED = {
    "gateway": ("litestar", "uvicorn", "prometheus-client"),
    "catalog": ("cryptography", "pillow", "pyroaring"),
    "tagger": ("onnxruntime", "pillow", "numpy"),
    "trainer": ("torch", "diffusers", "peft", "accelerate", "transformers", "safetensors"),
}
"""What each extra brings that its service cannot do without."""
TORCH = """
import torch
cuda = torch.cuda.is_available()
print(f"torch {torch.__version__}, " + (f"CUDA on {torch.cuda.get_device_name(0)}" if cuda else "CPU only"))
"""


class Finding(msgspec.Struct, frozen=True):
    """`bad` makes the doctor's exit code 1; `note` is worth knowing."""

    what: str
    verdict: Literal["ok", "note", "bad"]
    words: str


async def doctor(*, data: Path = Path("~/loratory"), port: int = 8000, server: Server = DEFAULT) -> int:
    """Say what is here, what is missing and what to do; exit code 1 if something must be done.

    Parameters
    ----------
    data:
        The data folder `up` would use.
    port:
        The port `up` would use.
    """
    findings = [*_local(data.expanduser(), port), await _torch(), await _running(server)]
    if server.json:
        say_json(findings)
    else:
        for finding in findings:
            say(f"{finding.verdict:<4}  {finding.what:<14} {finding.words}")
    return 1 if any(finding.verdict == "bad" for finding in findings) else 0


def _local(data: Path, port: int) -> Iterator[Finding]:
    yield Finding("python", "ok", f"{platform.python_version()} on {platform.system()}, {sys.executable}")
    for service, needed in NEEDED.items():
        yield _packages(service, needed)
    yield _judged("our packages", _foreign)
    yield _judged("nats-server", _nats)
    yield _disk(data)
    yield _judged("data folder", lambda: _format(data))
    yield _judged("port", lambda: f"{free_port('127.0.0.1', port)} is free", verdict="note")


def _judged(what: str, look: Callable[[], str], verdict: Literal["note", "bad"] = "bad") -> Finding:
    try:
        return Finding(what, "ok", look())
    except SetupError as error:
        return Finding(what, verdict, error.detail)


def _packages(service: str, needed: tuple[str, ...]) -> Finding:
    found, missing = [], []
    for name in needed:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        words = f"without {', '.join(missing)}: it cannot run here; pip install 'loratory[{service}]'"
        return Finding(service, "note", words)
    return Finding(service, "ok", ", ".join(found))


def _nats() -> str:
    binary = find_binary().resolve()
    said = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=10, check=True).stdout
    return f"{said.strip()}, {binary}"


def _foreign() -> str:
    refuse_foreign_packages()
    strange = {
        name: others for name, owners in owners_of().items() if (others := [o for o in owners if o != "loratory"])
    }
    if strange:
        named = "; ".join(f"{name} also belongs to {', '.join(owners)}" for name, owners in strange.items())
        raise SetupError(f"{named}: install Loratory in an environment of its own")
    return "no other distribution owns one of them"


def _disk(data: Path) -> Finding:
    there = next(folder for folder in (data, *data.parents) if folder.is_dir())
    free = shutil.disk_usage(there).free
    return Finding("free disk", "ok" if free >= ENOUGH_DISK else "bad", f"{free / (1 << 30):.1f} GiB at {there}")


def _format(data: Path) -> str:
    if not data.is_dir():
        return f"{data} is not there yet; `loratory up` makes it"
    check_format(data)
    return f"{data} can be read by this version"


async def _torch() -> Finding:
    """Asked in a process of its own: it takes seconds, and nothing here needs it."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-c", TORCH), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(TORCH_WITHIN):
            out, said = await process.communicate()
    except TimeoutError:
        return Finding("device", "bad", f"importing torch took more than {TORCH_WITHIN:g} s")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        return Finding(
            "device", "note", f"no torch here: {said.decode(errors='replace').strip().rpartition(chr(10))[2]}"
        )
    return Finding("device", "ok", out.decode().strip())


async def _running(server: Server) -> Finding:
    http = Http(server.url, server.key, patience=0)
    try:
        version = await http.get("/api/v1/version", dict[str, object])
        return Finding("server", "ok", f"{server.url} answers: {version.get('version', version)}")
    except LoratoryError as error:
        return Finding("server", "note", error.detail)
    finally:
        await http.close()
