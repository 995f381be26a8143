"""Is this service ready, and if not, why? Told in a file every second, so that `--check` needs no port."""

import asyncio
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn

import msgspec
import structlog

FRESH = 10.0
"""Seconds: an older report comes from a process that is dead or whose loop stands still."""

EVERY = 1.0

log = structlog.get_logger(__name__)


class Check(msgspec.Struct, frozen=True):
    """One thing that must be so; `detail` says what is missing, in words for people."""

    ok: bool
    detail: str = ""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What stands in the file. `at`: seconds since 1970."""

    service: str
    pid: int
    at: float
    ready: bool
    checks: dict[str, Check]


class Health:
    """Named checks of one service; ready when all are. None is fine before it was set so."""

    def __init__(self, service: str, checks: Iterable[str], *, pid: int) -> None:
        self._service = service
        self._pid = pid
        self._checks = {name: Check(ok=False, detail="not yet") for name in checks}

    def set(self, name: str, ok: bool, detail: str = "") -> None:
        """Only a check named at the start can be set; KeyError, for a slip of the pen would stay unready for ever."""
        if name not in self._checks:
            raise KeyError(name)
        self._checks[name] = Check(ok=ok, detail=detail)

    @property
    def ready(self) -> bool:
        return all(check.ok for check in self._checks.values())

    def report(self, at: float) -> Report:
        return Report(service=self._service, pid=self._pid, at=at, ready=self.ready, checks=dict(self._checks))

    async def keep(self, file: Path) -> NoReturn:
        """Writes the report every second, for as long as the loop turns; run it beside the service.

        What cannot be written (a full disk) is told once and left out: a report that grows old says enough.
        """
        file.parent.mkdir(parents=True, exist_ok=True)
        told = False
        try:
            while True:
                try:
                    _write_whole(file, msgspec.json.encode(self.report(time.time())))
                    told = False
                except OSError as error:
                    if not told:
                        log.warning("report_not_written", error=str(error))
                    told = True
                await asyncio.sleep(EVERY)
        finally:
            file.unlink(missing_ok=True)


def why_not(file: Path, now: float) -> str:
    """Empty when the report is fresh and ready, else the reason in one line."""
    try:
        report = msgspec.json.decode(file.read_bytes(), type=Report)
    except FileNotFoundError:
        return f"there is no report at {file}: the service has not started"
    except (OSError, msgspec.DecodeError) as error:
        return f"the report at {file} cannot be read: {error}"
    if now - report.at > FRESH:
        return f"{report.service} last reported {now - report.at:.0f} s ago: it is dead or stands still"
    if _dead(report.pid):
        return f"{report.service} is dead; its last report is {now - report.at:.0f} s old"
    missing = [f"{name}: {check.detail or 'not ok'}" for name, check in report.checks.items() if not check.ok]
    return "" if report.ready else f"{report.service} is not ready: {'; '.join(missing)}"


def _dead(pid: int) -> bool:
    """Known for sure only where signal 0 asks and does nothing else."""
    if os.name != "posix":
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def check(file: Path) -> int:
    """`python -m <service> --check`: 0 when ready, else 1 and the reason on stderr."""
    reason = why_not(file, time.time())
    if reason:
        sys.stderr.write(reason + "\n")
    return 1 if reason else 0


def _write_whole(file: Path, content: bytes) -> None:
    draft = file.with_name(f".{file.name}.draft")
    draft.write_bytes(content)
    draft.replace(file)
