"""The workshop with a proxy between each service and NATS, and the hand that strikes. Linux."""

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

from contracts.errors import LoratoryError
from loratory.services import SERVE, SERVICES, Service
from loratory.stack import Stack
from tests.acceptance.chronicle import child_of
from tests.drill.schedule import Fault
from tests.proxy import Proxy

BALLAST = "ballast"
"""The file that fills the disk of the data folder."""
WAIT_FOR_WORK = 20.0
"""So long a fault waits at most for its target to hold work."""
PIECE = 1 << 20


class LinedStack(Stack):
    """Every service reaches NATS through a proxy of its own, `lines[service]`."""

    lines: dict[str, Proxy]

    async def _migrate(self) -> None:
        if not hasattr(self, "lines"):
            port = int(self.nats.url.rpartition(":")[2])  # kept over restarts
            self.lines = {}
            for service in SERVICES:
                self.lines[service] = await Proxy(port).__aenter__()
        await super()._migrate()

    def _settings(self, service: Service) -> dict[str, str]:
        return super()._settings(service) | {"LORATORY_NATS_URL": f"nats://127.0.0.1:{self.lines[service].port}"}

    async def __aexit__(self, *error: object) -> None:
        await super().__aexit__(*error)
        for line in self.lines.values():
            await line.__aexit__(*error)


class Hand:
    """Strikes. `holds(target)` says whether that holds work right now."""

    def __init__(self, stack: LinedStack, holds: Callable[[str], bool]) -> None:
        self._stack = stack
        self._holds = holds

    async def strike(self, fault: Fault) -> bool | None:
        """Wait for work, strike, undo it when its time is over. Did the target hold work? None: it was not there."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WAIT_FOR_WORK):
                while not self._at_work(fault.target):  # noqa: ASYNC110 - what holds work tells nobody
                    await asyncio.sleep(0.02)
        held = self._at_work(fault.target)
        try:
            match fault.kind:
                case "kill":
                    self._signal(fault.target, signal.SIGKILL)
                case "restart":
                    self._signal(fault.target, signal.SIGTERM)
                case "pause" | "outlast":
                    await self._pause(fault)
                case "full":
                    await self._fill(fault.seconds)
                case "cut" | "silence" | "slow":
                    await self._disturb(fault)
        except (ProcessLookupError, FileNotFoundError):
            return None
        return held

    def _at_work(self, target: str) -> bool:
        """Is it there, ready where it serves, and does it hold work?"""
        if target in SERVE and self._stack.why_not_ready(target):
            return False
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            return self._holds(target) and (target == "disk" or self._pid(target) > 0)
        return False

    def _pid(self, target: str) -> int:
        """ProcessLookupError while it is down."""
        pid = self._stack.pid_of("trainer" if target == "engine" else target)
        if pid is None:
            raise ProcessLookupError(target)
        if target != "engine":
            return pid
        try:
            return child_of(pid)
        except ValueError as error:  # it has none just now
            raise ProcessLookupError(target) from error

    def _signal(self, target: str, number: signal.Signals) -> None:
        os.kill(self._pid(target), number)

    async def _pause(self, fault: Fault) -> None:
        pid = self._pid(fault.target)
        os.kill(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(fault.seconds)
        finally:
            # It may have been killed meanwhile; its parent has not buried it before it took notice, so the number is
            # nobody else's yet, or it is the next life of the same service, which a SIGCONT does not disturb.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    async def _disturb(self, fault: Fault) -> None:
        line = self._stack.lines[fault.target]
        match fault.kind:
            case "cut":
                line.leave()
            case "silence":
                line.hold(*(("up",), ("down",), ("up", "down"))[int(fault.chance * 3)])
            case _:
                line.slow(0.02 + fault.chance / 5)
        try:
            await asyncio.sleep(fault.seconds)
        finally:
            line.come_back()
            line.slow(0)
            if fault.kind == "silence" and fault.chance * 6 % 2 < 1:
                line.cut()  # what was held is lost; else it comes late
            line.release()

    async def _fill(self, seconds: float) -> None:
        """To the last byte, for a while."""
        ballast = self._stack.data / BALLAST
        try:
            await asyncio.to_thread(_fill, ballast)
            await asyncio.sleep(seconds)
        finally:
            ballast.unlink(missing_ok=True)


def _fill(ballast: Path) -> None:
    with ballast.open("wb", buffering=0) as out:
        for size in (PIECE, 1):
            with contextlib.suppress(OSError):
                while out.write(bytes(size)):
                    continue


class SmallDisk:
    """A disk of its own for the data folder, so that it can be filled without harm. Root on Linux; else not `there`."""

    def __init__(self, folder: Path, megabytes: int) -> None:
        self._folder = folder
        self._megabytes = megabytes
        self.why_not = ""

    async def __aenter__(self) -> "SmallDisk":
        self._folder.mkdir(parents=True, exist_ok=True)
        mount = shutil.which("mount")
        if os.geteuid() or mount is None:
            self.why_not = "only root may mount a disk of bounded size"
            return self
        size = f"size={self._megabytes}m"
        mounting = await asyncio.create_subprocess_exec(
            mount, "-t", "tmpfs", "-o", size, "tmpfs", self._folder, stderr=asyncio.subprocess.DEVNULL
        )
        if await mounting.wait():
            self.why_not = "a disk of bounded size cannot be mounted here"
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.why_not:
            return
        # Lazily: a process that ends may still hold a file.
        unmounting = await asyncio.create_subprocess_exec("umount", "-l", self._folder)
        if await unmounting.wait():
            raise LoratoryError(f"{self._folder} cannot be unmounted")
