"""The pause before a process is started again: shown while it lasts, and over when a full disk has room again."""

import asyncio
import shutil
import time
from pathlib import Path

from contracts.wire.server.embedded import MIN_FREE_BYTES
from contracts.wire.service.supervision import Pause, SupervisionFile, SupervisionReport
from loratory.restarts import RestartBackoff, RestartPolicy
from loratory.services import Report


class Pauses:
    """The services that do not run, and why: in memory, and in the file for others to read."""

    def __init__(self, file: SupervisionFile) -> None:
        self._file = file
        self._report = SupervisionReport()

    def set(self, service: str, pause: Pause) -> None:
        self._write({**self._report.paused, service: pause})

    def clear(self, service: str) -> None:
        if service in self._report.paused:
            self._write({name: pause for name, pause in self._report.paused.items() if name != service})

    def sentence(self, service: str) -> str:
        """Empty while it runs, or runs for the first time."""
        return self._report.sentence(service, time.time())

    def _write(self, paused: dict[str, Pause]) -> None:
        self._report = SupervisionReport(paused)
        self._file.write(self._report)


class RestartPause:
    """`wait` after each death of one process, `became_ready` when it is ready again; the process needs `folder`."""

    def __init__(self, service: str, folder: Path, policy: RestartPolicy, pauses: Pauses, report: Report) -> None:
        self._service = service
        self._folder = folder
        self._policy = policy
        self._pauses = pauses
        self._report = report
        self._backoff = RestartBackoff(policy)

    @property
    def sentence(self) -> str:
        """What is waited for; empty if it runs."""
        return self._pauses.sentence(self._service)

    async def wait(self, reason: str) -> None:
        """Wait until it is to be started again: longer after each death, but only as long as the disk stays full."""
        delay = self._backoff.next_delay(time.monotonic())
        free = await self._free_bytes()
        self._show(Pause.because(self._with_free_space(reason, free), until=time.time() + delay))
        had_room, end = free >= MIN_FREE_BYTES, time.monotonic() + delay
        while (left := end - time.monotonic()) > 0:
            await asyncio.sleep(min(left, self._policy.disk_poll))
            has_room = await self._free_bytes() >= MIN_FREE_BYTES
            if has_room and not had_room:
                self._report("disk space is available again")
                break
            had_room = has_room

    async def wait_for_room(self) -> None:
        """Wait, however long it takes, until there is room enough on the disk to start."""
        if (free := await self._free_bytes()) >= MIN_FREE_BYTES:
            return
        self._show(Pause.because(self._with_free_space("waiting for disk space", free)))
        while await self._free_bytes() < MIN_FREE_BYTES:  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(self._policy.disk_poll)

    def give_up(self, reason: str) -> None:
        """It is not started again."""
        self._pauses.set(self._service, Pause.because(reason))

    def became_ready(self) -> None:
        """The process that was started last is ready."""
        self._backoff.became_ready(time.monotonic())
        self._pauses.clear(self._service)

    def _show(self, pause: Pause) -> None:
        self._pauses.set(self._service, pause)
        self._report(pause.describe(time.time()))

    async def _free_bytes(self) -> int:
        return await asyncio.to_thread(free_bytes, self._folder)

    def _with_free_space(self, reason: str, free: int) -> str:
        return f"{reason}; {free // 1_000_000} MB free" if free < self._policy.low_disk else reason


def free_bytes(folder: Path) -> int:
    """Free disk space; 0 if the folder is not there, as when its disk was unmounted."""
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return 0
