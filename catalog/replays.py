"""Replays for the audit: runs `catalog.rebuild` in a child process, one at a time, and keeps the last report."""

import asyncio
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import structlog

from catalog.rebuild import REPORTS
from contracts.audit import ReplayReport
from contracts.cancellation import not_cancelled
from contracts.errors import Conflict
from contracts.queries.log import GetReplay, StartReplay
from contracts.wire.service.requests import QueryHandlers
from contracts.wire.system.child import PipedChild
from contracts.wire.system.pipe import PipeClosed

REPLAY_TIMEOUT_SECONDS = 3_600.0
"""A replay that takes longer is killed, so that it cannot take resources for ever."""

_log = structlog.get_logger()


class Replays:
    """Replays of the catalog in this folder. `run()` does the work and must be running when one is started."""

    def __init__(self, folder: Path, *, timeout: float = REPLAY_TIMEOUT_SECONDS) -> None:
        self._folder = folder
        self._timeout = timeout
        self._work_dir = folder / "replay"
        self._started = asyncio.Event()
        self._report = ReplayReport(state="never")

    def handlers(self) -> QueryHandlers:
        return {StartReplay: self.start, GetReplay: self.last}

    async def start(self, _: StartReplay) -> ReplayReport:
        """Conflict: a replay is running."""
        if self._report.state == "running":
            raise Conflict("the read models are being replayed already; try again when that has ended")
        self._report = ReplayReport(state="running", started_at=datetime.now(UTC))
        self._started.set()
        return self._report

    async def last(self, _: GetReplay) -> ReplayReport:
        return self._report

    async def run(self) -> None:
        """Runs until cancelled; kills the child then."""
        while not_cancelled():
            await self._started.wait()
            self._started.clear()
            try:
                await asyncio.to_thread(_create_empty, self._work_dir)  # a thread goes on after a timeout
                async with asyncio.timeout(self._timeout):
                    report = await self._run_child()
            except TimeoutError:
                report = ReplayReport(state="failed", error=f"it took longer than {self._timeout:g} seconds")
            except OSError as error:
                report = ReplayReport(state="failed", error=f"it could not be started: {error}")
            finally:
                await asyncio.to_thread(shutil.rmtree, self._work_dir, ignore_errors=True)
            self._update(report)

    async def _run_child(self) -> ReplayReport:
        program = (sys.executable, "-m", "catalog.rebuild", str(self._folder), str(self._work_dir / "read.db"))
        process = await PipedChild.start(program)
        try:
            return await self._read_reports(process)
        except PipeClosed:
            code = await process.wait()
            return ReplayReport(state="failed", error=f"it exited with code {code}; the catalog's log file says why")
        finally:
            await process.kill()

    async def _read_reports(self, process: PipedChild) -> ReplayReport:
        """The child's final report; updates the current one with those before it."""
        while not (report := await process.receive(REPORTS)).ended:
            self._update(report)
        return report

    def _update(self, report: ReplayReport) -> None:
        ended_at = datetime.now(UTC) if report.ended else None
        self._report = msgspec.structs.replace(report, started_at=self._report.started_at, ended_at=ended_at)
        if report.ended:
            difference = msgspec.to_builtins(report.difference)
            _log.info("read_models_replayed", state=report.state, sequence=report.sequence, difference=difference)


def _create_empty(folder: Path) -> None:
    """Also removes what a killed replay left behind."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
