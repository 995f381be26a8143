"""What a drill runs: a local stack behind proxies that can be stopped for maintenance, on a disk of limited size."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NoReturn, Self, TypeVar

from contracts.errors import LoratoryError
from loratory.server_supervisor import run_unless
from loratory.services import SERVICES, Service
from loratory.stack import Stack
from tests.proxy import Proxy

T = TypeVar("T")
READY_TIMEOUT_SECONDS = 300.0


class ProxiedStack(Stack):
    """Every service reaches NATS through its own proxy, `proxies[service]`."""

    proxies: dict[str, Proxy]

    async def __aenter__(self) -> Self:
        self.proxies = {service: await Proxy(0).__aenter__() for service in SERVICES}
        return await super().__aenter__()

    def _environment(self, service: Service) -> dict[str, str]:
        """Called once the port of nats is known, which stays the same after restarts."""
        proxy = self.proxies[service]
        proxy.target = ("127.0.0.1", int(self.nats.url.rpartition(":")[2]))
        return super()._environment(service) | {"LORATORY_NATS_URL": f"nats://127.0.0.1:{proxy.port}"}

    async def __aexit__(self, *error: object) -> None:
        await super().__aexit__(*error)
        for proxy in self.proxies.values():
            await proxy.__aexit__(*error)


class DrillStack:
    """A stack that is stopped for maintenance and started again, always at the same address."""

    def __init__(self, data: Path, environ: Mapping[str, str], print_line: Callable[[str], None]) -> None:
        self.data = data
        self.environ = environ
        self._print_line = print_line
        self._stopping, self._running = asyncio.Event(), asyncio.Event()
        self.current = self._create(port=0)

    @property
    def address(self) -> str:
        return self.current.address

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`; StackFailed if the stack fails first, except during maintenance."""
        return await run_unless(self._watch(), work)

    @asynccontextmanager
    async def stopped(self) -> AsyncIterator[None]:
        """While the block runs, the data folder is in nobody's use."""
        self._running.clear()
        self._stopping.set()
        address = self.address
        await self.__aexit__()
        yield
        self.current = self._create(port=int(address.rpartition(":")[2]))
        await self.__aenter__()
        self._stopping.clear()
        self._running.set()

    async def __aenter__(self) -> Self:
        await self.current.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.current.__aexit__(*error)

    def _create(self, *, port: int) -> ProxiedStack:
        return ProxiedStack(self.data, environ=self.environ, port=port, print_line=self._print_line)

    async def _watch(self) -> NoReturn:
        while True:
            watching = asyncio.create_task(self.current.watch())
            stopping = asyncio.create_task(self._stopping.wait())
            try:
                await asyncio.wait({watching, stopping}, return_when=asyncio.FIRST_COMPLETED)
                if not stopping.done():
                    await watching
            finally:
                watching.cancel()
                stopping.cancel()
                await asyncio.gather(watching, stopping, return_exceptions=True)
            await self._running.wait()


class SmallDisk:
    """A tmpfs of limited size for the data folder, so that it can be filled without harm. Needs root on Linux.

    Where it cannot be mounted, `unavailable_reason` says why.
    """

    def __init__(self, folder: Path, megabytes: int) -> None:
        self._folder = folder
        self._megabytes = megabytes
        self.unavailable_reason = ""

    async def __aenter__(self) -> "SmallDisk":
        self._folder.mkdir(parents=True, exist_ok=True)
        mount = shutil.which("mount")
        if os.geteuid() or mount is None:
            self.unavailable_reason = "only root may mount a disk of limited size"
            return self
        size = f"size={self._megabytes}m"
        process = await asyncio.create_subprocess_exec(
            mount, "-t", "tmpfs", "-o", size, "tmpfs", self._folder, stderr=asyncio.subprocess.DEVNULL
        )
        if await process.wait():
            self.unavailable_reason = "a disk of limited size cannot be mounted here"
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.unavailable_reason:
            return
        # Lazily: a process that is shutting down may still hold a file open.
        process = await asyncio.create_subprocess_exec("umount", "-l", self._folder)
        if await process.wait():
            raise LoratoryError(f"{self._folder} cannot be unmounted")
