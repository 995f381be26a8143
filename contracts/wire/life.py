"""Which process holds something, told so that the next one on this machine can know whether it is dead. Linux."""

import os
import sys
from pathlib import Path
from typing import Self

import msgspec

BOOT = Path("/proc/sys/kernel/random/boot_id")


class Life(msgspec.Struct, frozen=True):
    """One life of a process. `machine` is this boot of its kernel and its own view of process ids.

    `started` is in clock ticks since that boot: a number that is used again belongs to another start. Without /proc
    (`machine` empty) nothing can be known of it.
    """

    machine: str
    pid: int
    started: int

    @classmethod
    def own(cls) -> Self:
        """Of the process that asks."""
        pid = os.getpid()
        return cls(_machine(), pid, _started(pid) or 0)

    @property
    def dead(self) -> bool:
        """True only where that is sure: it ran here, and runs no longer. One that is stopped lives."""
        return bool(self.machine) and self.machine == _machine() and _started(self.pid) != self.started


def _machine() -> str:
    if not sys.platform.startswith("linux"):
        return ""
    try:
        return f"{BOOT.read_text().strip()} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _started(pid: int) -> int | None:
    """None for a process that is not there, or that has ended and was only not buried yet."""
    try:
        # Behind the program's name, which may hold anything: proc_pid_stat(5), fields 3 (state) and 22 (starttime).
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])
