"""Another process asks for a rotation of the bus's keys: a file in the server's folder, for which its owner looks."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path

from contracts.errors import SetupError
from contracts.wire.server import user_keys
from contracts.wire.server.accounts import ROLES
from contracts.wire.service.nkeys import generate_nkey
from contracts.wire.system.files import write_atomically

POLL_SECONDS = 1.0
REQUEST = "rotate-keys"
FAILURE = "rotate-keys.failed"
TIMEOUT_SECONDS = 60.0


async def rotate_when_asked(
    folder: Path, rotate: Callable[[], Awaitable[None]], *, every: float = POLL_SECONDS
) -> None:
    """Runs until cancelled, in the process that runs the server of this folder."""
    request = folder / REQUEST
    while True:
        if request.exists():
            try:
                await rotate()
            except (SetupError, OSError) as error:  # it may have died meanwhile
                with contextlib.suppress(OSError):  # a full disk: then whoever asked gets no answer
                    write_atomically(folder / FAILURE, str(error).encode())
            request.unlink(missing_ok=True)
        await asyncio.sleep(every)


async def ask_for_rotation(folder: Path, *, timeout: float = TIMEOUT_SECONDS) -> None:
    """Returns when the process that runs the server of this folder has rotated its keys; SetupError: it could not."""
    request, failure = folder / REQUEST, folder / FAILURE
    failure.unlink(missing_ok=True)
    write_atomically(request, b"")
    try:
        async with asyncio.timeout(timeout):
            while request.exists():  # noqa: ASYNC110 - another process removes it
                await asyncio.sleep(0.1)
    except TimeoutError as error:
        request.unlink(missing_ok=True)
        raise SetupError(f"the process that runs the server has not answered within {timeout:g} s") from error
    with contextlib.suppress(FileNotFoundError):
        raise SetupError(failure.read_text(encoding="utf-8"))


def rotate_offline(folder: Path) -> None:
    """New keys while no server runs on this folder; the caller holds its lock."""
    keys = folder / "keys"
    user_keys.load_or_create(keys)
    user_keys.store(keys, {role: generate_nkey() for role in ROLES})
