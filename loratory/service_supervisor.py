"""One service of the local stack: started, and restarted whenever it dies, unless it refuses for good."""

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence

import msgspec

from contracts.wire.service.boot import FINAL_EXIT_CODES
from contracts.wire.service.health import ReadinessReport, unready_reason
from loratory.child import Child
from loratory.data_folder import DataFolder
from loratory.restart_pause import RestartPause
from loratory.services import CORE_SERVICES, Report, Service, StackFailed, exit_reason, service_command

HEAD_START_SECONDS = 5.0
"""Maximum time a worker waits for catalog and gateway: importing torch at the same time would slow those down."""
NOT_READY_REPORT_SECONDS = 10.0
POLL_SECONDS = 0.05


class ServiceSupervisor:
    """`failure` is set when the service has refused to start for good."""

    def __init__(
        self, name: Service, folder: DataFolder, environ: Mapping[str, str], *, report: Report, pause: RestartPause
    ) -> None:
        self.name = name
        self._pause = pause
        self._health_file = folder.health_file(name)
        self._log_file = folder.log_file(name)
        self._child = Child(name, service_command(name), environ, self._log_file)
        self._report = report
        self.failure = ""

    @property
    def pid(self) -> int | None:
        return self._child.pid

    def why_not_ready(self) -> str:
        """Empty if it is ready, else the reason."""
        if self.failure:
            return self.failure
        reason, pause = self._unready_reason(), self._pause.sentence
        if not reason or not pause:
            return reason
        return pause if self.pid is None else f"{reason} ({pause})"

    def _unready_reason(self) -> str:
        """From its health file, unless that was written by a previous process."""
        with contextlib.suppress(OSError, msgspec.DecodeError):
            if msgspec.json.decode(self._health_file.read_bytes(), type=ReadinessReport).pid != self.pid:
                return f"{self.name} is starting"
        return unready_reason(self._health_file, time.time())

    async def wait_ready(self) -> None:
        while self.why_not_ready():  # noqa: ASYNC110 - polls a file that another process writes
            await asyncio.sleep(POLL_SECONDS)

    async def run_after(self, others: Sequence["ServiceSupervisor"]) -> None:
        """The same as `run`, once the others are ready or have had their head start."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HEAD_START_SECONDS):
                for other in others:
                    await other.wait_ready()
        self._report(f"starting{' (importing torch)' if self.name == 'trainer' else ''}")
        await self.run()

    async def run(self) -> None:
        """Run it until it refuses for good: returns then, or raises StackFailed if nothing works without it."""
        while True:
            try:
                code = await self._run_once()
            except OSError as error:  # no memory, no file descriptors
                reason = f"it cannot be started: {error.strerror or error}"
            else:
                reason = exit_reason(code, self._child.last_line)
                if code in FINAL_EXIT_CODES:
                    return self._give_up(reason)
            await self._pause.wait(reason)

    async def stop(self) -> None:
        await self._child.stop()

    async def _run_once(self) -> int:
        self._health_file.unlink(missing_ok=True)
        await self._child.start()
        reporting = asyncio.create_task(self._report_ready())
        try:
            return await self._child.wait()
        finally:
            reporting.cancel()

    def _give_up(self, reason: str) -> None:
        self.failure = f"{self.name} is not started again: {reason}; its log is {self._log_file}"
        if self.name in CORE_SERVICES:
            raise StackFailed(self.failure)
        self._pause.give_up(f"not started again; {reason}")
        self._report(f"given up: {self.failure}")

    async def _report_ready(self) -> None:
        """Report when it is ready, and until then why not, every NOT_READY_REPORT_SECONDS."""
        while True:
            try:
                async with asyncio.timeout(NOT_READY_REPORT_SECONDS):
                    await self.wait_ready()
                    break
            except TimeoutError:
                self._report(self.why_not_ready())
        self._pause.became_ready()
        self._report("ready")
