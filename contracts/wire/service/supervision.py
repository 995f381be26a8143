"""What `loratory up` waits for before it starts a service again: a file that the gateway and `loratory doctor` read.

Its size is fixed and it is overwritten in place, because its most frequent content is that the disk is full.
"""

import contextlib
import math
import os
from pathlib import Path
from typing import Self

import msgspec

FILE_BYTES = 8 << 10
"""Room for five services with the longest reasons."""
MAX_REASON_CHARACTERS = 300


class Pause(msgspec.Struct, frozen=True, kw_only=True):
    """Why a service does not run, as a clause; `until`: the next start (seconds since 1970; None: not yet)."""

    reason: str
    until: float | None = None

    @classmethod
    def because(cls, reason: str, *, until: float | None = None) -> Self:
        """With a reason of limited length."""
        return cls(reason=reason[:MAX_REASON_CHARACTERS], until=until)

    def describe(self, now: float) -> str:
        """Without the name of the service: `waiting 40 s to start again; it ended because …`."""
        if self.until is None:
            return self.reason
        seconds = math.ceil(self.until - now)
        return f"{f'waiting {seconds} s to start again' if seconds > 0 else 'starting again'}; {self.reason}"


class SupervisionReport(msgspec.Struct, frozen=True):
    """The content of the file: the services that do not run, by name (`nats` is one)."""

    paused: dict[str, Pause] = {}

    def sentence(self, service: str, now: float) -> str:
        """`catalog: waiting 40 s to start again; …`; empty for a service that runs."""
        pause = self.paused.get(service)
        return f"{service}: {pause.describe(now)}" if pause else ""


class SupervisionFile:
    """The writing side. `with SupervisionFile(path) as file:` creates it; at the end it is removed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1

    def write(self, report: SupervisionReport) -> None:
        """Best effort: on a file system that copies on write, a full disk refuses this, and the last report stays."""
        content = msgspec.json.encode(report)
        with contextlib.suppress(OSError):
            os.pwrite(self._descriptor, content[:FILE_BYTES].ljust(FILE_BYTES), 0)

    def __enter__(self) -> Self:
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        self.write(SupervisionReport())
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)
        self._path.unlink(missing_ok=True)


def read_supervision(path: Path | None) -> SupervisionReport:
    """Empty where no stack writes such a file (as in containers), or while it is being written."""
    if path is not None:
        with contextlib.suppress(OSError, msgspec.DecodeError):
            return msgspec.json.decode(path.read_bytes(), type=SupervisionReport)
    return SupervisionReport()
