"""Identifies a process so that another one on the same machine can tell whether it is dead. Linux only."""

import os
import sys
from pathlib import Path
from typing import Self

import msgspec

BOOT = Path("/proc/sys/kernel/random/boot_id")


class ProcessIdentity(msgspec.Struct, frozen=True):
    """One run of a process. `machine` identifies the boot of its kernel and its pid namespace.

    `started` is in clock ticks since that boot, so a reused pid is another process. Without /proc `machine` is empty
    and the process never counts as dead.
    """

    machine: str
    pid: int
    started: int

    @classmethod
    def current(cls) -> Self:
        """The identity of the calling process."""
        pid = os.getpid()
        return cls(_machine(), pid, _start_ticks(pid) or 0)

    @property
    def is_dead(self) -> bool:
        """True only if certain: it ran on this machine and no longer does. A stopped process (SIGSTOP) is alive."""
        return bool(self.machine) and self.machine == _machine() and _start_ticks(self.pid) != self.started


def _machine() -> str:
    if not sys.platform.startswith("linux"):
        return ""
    try:
        return f"{BOOT.read_text().strip()} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _start_ticks(pid: int) -> int | None:
    """None for a process that does not exist, or has ended and is a zombie."""
    try:
        # After the program's name, which may contain anything: proc_pid_stat(5), fields 3 (state) and 22 (starttime).
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])
