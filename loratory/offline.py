"""Work on a data folder while the workshop is stopped: the folder's lock, its nats-server, and the catalog's own verbs.

`python -m catalog <verb>` does the work, as a child: what it says, and its exit code, are the command's.
"""

import asyncio
import os
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Self

from contracts.errors import SetupError
from contracts.wire.server import EmbeddedServer
from loratory.child import end_with
from loratory.folder import DataFolder
from loratory.services import Place, command, settings


class Offline:
    """`async with Offline(data, environ) as offline:` … `await offline.catalog("verb", "argument")`.

    SetupError where there is no data folder (`fresh`: it is made), or where a workshop runs on it.
    """

    def __init__(self, data: Path, environ: Mapping[str, str], *, fresh: bool = False) -> None:
        self.folder = DataFolder(data)
        self.server = EmbeddedServer(self.folder / "nats")
        self._environ = environ
        self._fresh = fresh
        self._ending = AsyncExitStack()

    async def catalog(self, *words: str | Path, admin: bool = False, quiet: bool = False) -> int:
        """Run one verb of the catalog to its end; its exit code. `admin`: as the user who may make streams."""
        user, password = self.server.credentials("admin" if admin else "catalog")
        bus = {"NATS_URL": self.server.url, "NATS_USER": user, "NATS_PASSWORD": password}
        return await catalog(self.folder, bus, self._environ, *words, quiet=quiet)

    async def refill(self) -> int:
        """Make the log anew from the archive; the exit code. Returns when all of it is on disk, and the server ended.

        The archive has it all, so the server need not sync each commit: that is many times quicker.
        """
        await self.server.stop()
        self.server = EmbeddedServer(self.folder / "nats", durable=False)
        await self.server.start()
        try:
            code = await self.catalog("refill", admin=True)
        finally:
            await self.server.stop()
        await asyncio.to_thread(self.server.sync)
        return code

    async def __aenter__(self) -> Self:
        if not self._fresh and not (self.folder / "format").exists():
            raise SetupError(f"{self.folder.path} is no data folder of Loratory")
        async with AsyncExitStack() as starting:
            starting.enter_context(self.folder)
            await self.server.start()
            starting.push_async_callback(self.server.stop)
            self._ending = starting.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._ending.aclose()


async def catalog(
    folder: DataFolder, bus: Mapping[str, str], environ: Mapping[str, str], *words: str | Path, quiet: bool = False
) -> int:
    """`python -m catalog <words>` with the settings it has on this folder. It speaks through our own output.

    `quiet`: only its exit code matters.
    """
    output = asyncio.subprocess.DEVNULL if quiet else None
    process = await asyncio.create_subprocess_exec(
        *command("catalog"),
        *map(str, words),
        env=settings("catalog", folder, bus=bus, given=environ, at=Place("127.0.0.1", 0)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        preexec_fn=end_with(os.getpid()),
    )
    try:
        return await process.wait()
    except asyncio.CancelledError:
        if process.returncode is None:
            process.terminate()
        await process.wait()
        raise
