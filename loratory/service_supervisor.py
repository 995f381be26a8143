"""One service of the local stack: started, restarted when it dies, and given up when that happens too often."""

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence

import msgspec

from contracts.wire.service.health import ReadinessReport, unready_reason
from loratory.child import Child
from loratory.data_folder import DataFolder
from loratory.restarts import RestartBackoff, RestartPolicy
from loratory.services import CORE_SERVICES, LOG_DAMAGED, Report, Service, StackFailed, describe_exit, service_command

HEAD_START_SECONDS = 5.0
"""Maximum time a worker waits for catalog and gateway: importing torch at the same time would slow those down."""
NOT_READY_REPORT_SECONDS = 10.0
POLL_SECONDS = 0.05


class ServiceSupervisor:
    """`failure` is set when the service is given up."""

    def __init__(
        self, name: Service, folder: DataFolder, environ: Mapping[str, str], *, report: Report, restarts: RestartPolicy
    ) -> None:
        self._restarts = restarts
        self.name = name
        self._health_file = folder.health_file(name)
        self._log_file = folder.log_file(name)
        self._child = Child(name, service_command(name), environ, self._log_file)
        self._report = report
        self._last_exit = ""
        self.failure = ""

    @property
    def pid(self) -> int | None:
        return self._child.pid

    def why_not_ready(self) -> str:
        """Empty if it is ready, else the reason."""
        if self.failure:
            return self.failure
        reason = self._unready_reason()
        if reason and self._last_exit:
            return f"{self.name} ended ({self._last_exit}) and is being restarted"
        return reason

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
        """Run it until it is given up: returns then, or raises StackFailed if nothing works without it."""
        backoff = RestartBackoff(self._restarts)
        while True:
            code = await self._run_once()
            self._last_exit = describe_exit(code, self._child.last_line)
            delay = None if code == LOG_DAMAGED else backoff.next_delay(time.monotonic())
            if delay is None:
                return self._give_up()
            self._report(f"ended ({self._last_exit}); restarting")
            await asyncio.sleep(delay)

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

    def _give_up(self) -> None:
        self.failure = f"{self.name} cannot be kept running: {self._last_exit}; its log is {self._log_file}"
        if self.name in CORE_SERVICES:
            raise StackFailed(self.failure)
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
        self._report("ready")
