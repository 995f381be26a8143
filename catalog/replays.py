"""Replays for the audit: the child that makes every view anew and compares, one at a time, and its last report."""

import asyncio
import shutil
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import structlog

from contracts.audit import ReplayReport
from contracts.errors import Conflict
from contracts.queries import GetReplay, Query, StartReplay
from contracts.wire.tasks import wanted

LIMIT_SECONDS = 3_600.0
"""A replay that takes longer is ended: it would go on beside the work for ever."""
LINE_BYTES = 1 << 20

_log = structlog.get_logger()


class Replays:
    """Over the catalog's folder. `run()` does the work; it must be running when one is asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._beside = folder / "replay"
        self._asked = asyncio.Event()
        self._report = ReplayReport(state="never")

    def handlers(self) -> dict[type[Query[Any]], Callable[[Any], Awaitable[msgspec.Struct]]]:
        return {StartReplay: self.start, GetReplay: self.last}

    async def start(self, _: StartReplay) -> ReplayReport:
        """Conflict: one is under way."""
        if self._report.state == "running":
            raise Conflict("the read models are being replayed already; ask again when that is over")
        self._report = ReplayReport(state="running", started_at=datetime.now(UTC))
        self._asked.set()
        return self._report

    async def last(self, _: GetReplay) -> ReplayReport:
        return self._report

    async def run(self) -> None:
        """Ends only when it is cancelled; the child ends with it."""
        while wanted():
            await self._asked.wait()
            self._asked.clear()
            try:
                async with asyncio.timeout(LIMIT_SECONDS):
                    report = await self._replayed()
            except TimeoutError:
                report = ReplayReport(state="failed", error=f"it took longer than {LIMIT_SECONDS:g} seconds")
            except OSError as error:
                report = ReplayReport(state="failed", error=f"it could not be started: {error}")
            finally:
                await asyncio.to_thread(shutil.rmtree, self._beside, ignore_errors=True)
            self._note(report)

    async def _replayed(self) -> ReplayReport:
        await asyncio.to_thread(_emptied, self._beside)
        program = (sys.executable, "-m", "catalog.rebuild", str(self._folder), str(self._beside / "read.db"))
        process = await asyncio.create_subprocess_exec(*program, stdin=PIPE, stdout=PIPE, limit=LINE_BYTES)
        try:
            return await self._heard(process)
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    async def _heard(self, process: Process) -> ReplayReport:
        """Its last report; those on the way are noted."""
        assert process.stdout is not None  # noqa: S101 - for the type checker; it is a pipe
        async for line in process.stdout:
            report = msgspec.json.decode(line, type=ReplayReport)
            if report.ended:
                return report
            self._note(report)
        code = await process.wait()
        return ReplayReport(state="failed", error=f"it ended with code {code}; the log of the catalog says why")

    def _note(self, report: ReplayReport) -> None:
        ended_at = datetime.now(UTC) if report.ended else None
        self._report = msgspec.structs.replace(report, started_at=self._report.started_at, ended_at=ended_at)
        if report.ended:
            found = msgspec.to_builtins(report.difference)
            _log.info("read_models_replayed", state=report.state, sequence=report.sequence, difference=found)


def _emptied(folder: Path) -> None:
    """What a replay left behind that was killed is gone."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
