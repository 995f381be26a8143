"""The fault injector: signals, disturbed connections, a full disk. Linux."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path

from loratory.services import CORE_SERVICES
from tests.acceptance.event_recorder import child_pid
from tests.drill.schedule import Fault
from tests.drill.stacks import DrillStack, ProxiedStack

BALLAST = "ballast"
"""Name of the file that fills the disk of the data folder."""
MAX_WAIT_FOR_WORK_SECONDS = 20.0
"""How long a fault waits for its target to become busy before it is injected anyway."""
FILL_CHUNK = 1 << 20
WITHOUT_PROCESS = ("disk", "log", "blobs", "keys")
"""Targets that are no process of their own."""


class FaultInjector:
    """Injects faults. `is_busy(target)` tells whether the target has unfinished work right now."""

    def __init__(self, stack: DrillStack, is_busy: Callable[[str], bool]) -> None:
        self._drill_stack = stack
        self._is_busy = is_busy

    @property
    def _stack(self) -> ProxiedStack:
        return self._drill_stack.current

    async def inject(self, fault: Fault) -> bool | None:
        """Wait until the target is busy, inject the fault, and undo it after its duration.

        Returns whether the target was busy; None if it was down already.
        """
        was_busy = await self.wait_busy(fault.target)
        try:
            match fault.kind:
                case "kill":
                    self._signal(fault.target, signal.SIGKILL)
                case "restart":
                    self._signal(fault.target, signal.SIGTERM)
                case "pause" | "outlast":
                    await self._pause(fault)
                case "full":
                    await self._fill_disk(fault.seconds)
                case "cut" | "silence" | "slow":
                    await self._disturb_connection(fault)
        except (ProcessLookupError, FileNotFoundError):
            return None
        return was_busy

    async def wait_busy(self, target: str) -> bool:
        """Wait until the target is up and has unfinished work, but not too long; whether it has."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(MAX_WAIT_FOR_WORK_SECONDS):
                while not self._is_up_and_busy(target):  # noqa: ASYNC110 - there is no event to wait for
                    await asyncio.sleep(0.02)
        return self._is_up_and_busy(target)

    def _is_up_and_busy(self, target: str) -> bool:
        """Whether it is running, ready if it is a core service, and busy."""
        if target in CORE_SERVICES and self._stack.why_not_ready(target):
            return False
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            return self._is_busy(target) and (target in WITHOUT_PROCESS or self._pid(target) > 0)
        return False

    def _pid(self, target: str) -> int:
        """ProcessLookupError while it is down."""
        pid = self._stack.pid_of("trainer" if target == "engine" else target)
        if pid is None:
            raise ProcessLookupError(target)
        if target != "engine":
            return pid
        try:
            return child_pid(pid)
        except ValueError as error:  # it has no child at the moment
            raise ProcessLookupError(target) from error

    def _signal(self, target: str, number: signal.Signals) -> None:
        os.kill(self._pid(target), number)

    async def _pause(self, fault: Fault) -> None:
        pid = self._pid(fault.target)
        os.kill(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(fault.seconds)
        finally:
            # It may have been killed meanwhile. Either its parent has not reaped it yet, so the pid is not reused, or
            # the pid belongs to the restarted service, which a SIGCONT does not disturb.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    async def _disturb_connection(self, fault: Fault) -> None:
        proxy = self._stack.proxies[fault.target]
        match fault.kind:
            case "cut":
                proxy.go_offline()
            case "silence":
                proxy.hold(*(("up",), ("down",), ("up", "down"))[int(fault.variant * 3)])
            case _:
                proxy.delay(0.02 + fault.variant / 5)
        try:
            await asyncio.sleep(fault.seconds)
        finally:
            proxy.go_online()
            proxy.delay(0)
            if fault.kind == "silence" and fault.variant * 6 % 2 < 1:
                proxy.cut()  # held data is lost; otherwise it arrives late
            proxy.release()

    async def _fill_disk(self, seconds: float) -> None:
        """Keep the disk full to the last byte for `seconds`."""
        ballast = self._stack.data / BALLAST
        try:
            await asyncio.to_thread(_write_until_full, ballast)
            await asyncio.sleep(seconds)
        finally:
            ballast.unlink(missing_ok=True)


def _write_until_full(ballast: Path) -> None:
    with ballast.open("wb", buffering=0) as out:
        for size in (FILL_CHUNK, 1):
            with contextlib.suppress(OSError):
                while out.write(bytes(size)):
                    continue
