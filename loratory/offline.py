"""Maintenance of a data folder while Loratory is stopped: its lock, its nats-server, and the catalog's commands.

`python -m catalog <command>` does the work as a child process; its output and exit code are those of our command.
"""

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Self

from contracts.errors import SetupError
from contracts.wire.server.embedded import EmbeddedServer
from contracts.wire.system.child import SessionChild
from loratory.child import STOP_TIMEOUT_SECONDS
from loratory.data_folder import DataFolder
from loratory.services import bus_settings, service_command, service_environment


class OfflineFolder:
    """`async with OfflineFolder(data, environ) as offline:` … `await offline.run_catalog("command", "argument")`.

    SetupError if there is no data folder (`create`: it is created), or if Loratory is running on it.
    """

    def __init__(self, data: Path, environ: Mapping[str, str], *, create: bool = False) -> None:
        self.folder = DataFolder(data)
        self.server = EmbeddedServer(self.folder / "nats")
        self._environ = environ
        self._create = create
        self._cleanup = AsyncExitStack()

    async def run_catalog(self, *arguments: str | Path, admin: bool = False, quiet: bool = False) -> int:
        """Run a catalog command; its exit code. `admin`: as the NATS user that may create streams."""
        bus = bus_settings(self.server.url, *self.server.credentials("admin" if admin else "catalog"))
        return await run_catalog(self.folder, bus, self._environ, *arguments, quiet=quiet)

    async def recreate_log(self) -> int:
        """Recreate the log from the archive; the exit code. On return everything is on disk and the server stopped.

        The archive holds every commit, so the server need not sync each one, which is many times faster.
        """
        await self.server.stop()
        self.server = EmbeddedServer(self.folder / "nats", durable=False)
        await self.server.start()
        try:
            code = await self.run_catalog("refill", admin=True)
        finally:
            await self.server.stop()
        await asyncio.to_thread(self.server.sync)
        return code

    async def __aenter__(self) -> Self:
        if not self._create and not (self.folder / "format").exists():
            raise SetupError(f"{self.folder.path} is not a Loratory data folder")
        async with AsyncExitStack() as starting:
            starting.enter_context(self.folder)
            await self.server.start()
            starting.push_async_callback(self.server.stop)
            self._cleanup = starting.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._cleanup.aclose()


async def run_catalog(
    folder: DataFolder, bus: Mapping[str, str], environ: Mapping[str, str], *arguments: str | Path, quiet: bool = False
) -> int:
    """`python -m catalog <arguments>` with the settings of this folder, writing to our own stdout and stderr.

    `quiet`: discard the output.
    """
    process = await SessionChild.start(
        [*service_command("catalog"), *arguments],
        environment=service_environment("catalog", folder, given=environ, settings=bus),
        output=asyncio.subprocess.DEVNULL if quiet else None,
    )
    try:
        return await process.wait()
    finally:
        await process.stop(STOP_TIMEOUT_SECONDS)
