"""Readiness of a service, written to a file every second so that `--check` needs no port."""

import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import msgspec

from contracts.retry import repeat
from contracts.wire.system.files import draft_beside

MAX_REPORT_AGE_SECONDS = 10.0
"""An older report comes from a process that is dead or whose event loop is blocked."""
REPORT_SECONDS = 1.0


class ReadinessCheck(msgspec.Struct, frozen=True):
    """One condition of readiness; `detail` says what is missing, in one phrase."""

    ok: bool
    detail: str = ""


class ReadinessReport(msgspec.Struct, frozen=True, kw_only=True):
    """The content of the file. `at`: seconds since 1970."""

    service: str
    pid: int
    at: float
    ready: bool
    checks: dict[str, ReadinessCheck]
    degraded: str = ""
    """What is wrong although the service is ready, as a sentence."""


class Health:
    """Named checks of one service; ready when all are ok. Each is not ok until it is set."""

    def __init__(self, service: str, checks: Iterable[str], *, pid: int) -> None:
        self._service = service
        self._pid = pid
        self._checks = {name: ReadinessCheck(ok=False, detail="not yet") for name in checks}
        self._degraded = ""

    def set(self, name: str, ok: bool, detail: str = "") -> None:
        """Sets a check named at construction; KeyError otherwise, since a misspelt check would never become ok."""
        if name not in self._checks:
            raise KeyError(name)
        self._checks[name] = ReadinessCheck(ok=ok, detail=detail)

    def set_degraded(self, why: str) -> None:
        """Says what is wrong although requests are served; empty: nothing is."""
        self._degraded = why

    @property
    def ready(self) -> bool:
        return all(check.ok for check in self._checks.values())

    def report(self, at: float) -> ReadinessReport:
        checks = dict(self._checks)
        return ReadinessReport(
            service=self._service, pid=self._pid, at=at, ready=self.ready, checks=checks, degraded=self._degraded
        )

    async def run(self, file: Path) -> None:
        """Writes the report every second until cancelled; run it next to the service.

        A failed write (a full disk) is logged once and skipped: `--check` then finds the report too old.
        """
        file.parent.mkdir(parents=True, exist_ok=True)

        async def write() -> None:
            with draft_beside(file) as draft:  # not durable: a report is only of interest while it is new
                draft.write_bytes(msgspec.json.encode(self.report(time.time())))
                draft.replace(file)

        try:
            await repeat(write, every=REPORT_SECONDS, on=OSError, warn="report_not_written")
        finally:
            file.unlink(missing_ok=True)


def unready_reason(file: Path, now: float) -> str:
    """Empty if the report is recent and the service ready, else the reason in one line."""
    try:
        report = msgspec.json.decode(file.read_bytes(), type=ReadinessReport)
    except FileNotFoundError:
        return f"there is no report at {file}: the service has not started"
    except (OSError, msgspec.DecodeError) as error:
        return f"the report at {file} cannot be read: {error}"
    if now - report.at > MAX_REPORT_AGE_SECONDS:
        return f"{report.service} last reported {now - report.at:.0f} s ago: it is dead or blocked"
    if _is_dead(report.pid):
        return f"{report.service} is dead; its last report is {now - report.at:.0f} s old"
    missing = [f"{name}: {check.detail or 'not ok'}" for name, check in report.checks.items() if not check.ok]
    return "" if report.ready else f"{report.service} is not ready: {'; '.join(missing)}"


def _is_dead(pid: int) -> bool:
    """Whether the process is certainly dead; on POSIX only, by signal 0."""
    if os.name != "posix":
        return False
    try:
        os.kill(pid, 0)
    except OSError as error:
        return isinstance(error, ProcessLookupError)
    return False


def check(file: Path) -> int:
    """`python -m <service> --check`: 0 when ready, else 1 and the reason on stderr."""
    reason = unready_reason(file, time.time())
    if reason:
        sys.stderr.write(reason + "\n")
    return 1 if reason else 0
