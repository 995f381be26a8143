"""What a nats-server reports in its log and nowhere else. Reads files."""

import contextlib
import os
import re
from pathlib import Path

FAILED_WRITE_MESSAGES = (b"Critical write error", b"JetStream failed to store a msg")
LOG_TAIL_BYTES = 1 << 16
"""Bytes at the end of the log that are searched for failed writes."""
REFUSED_PASSWORD = re.compile(rb'authentication error - User "([^"\n]*)"')
"""Who has an nkey, even a wrong one, is called `Nkey "U…"` instead."""


def has_failed_writes(file: Path, pid: int | None) -> bool:
    """Whether the process with this id reported a write that failed."""
    with contextlib.suppress(FileNotFoundError), file.open("rb") as log:
        log.seek(max(0, log.seek(0, os.SEEK_END) - LOG_TAIL_BYTES))
        own = f"[{pid}] ".encode()
        return any(line.startswith(own) and message in line for line in log for message in FAILED_WRITE_MESSAGES)
    return False


def read_from(file: Path, offset: int) -> bytes:
    """What was written since the log had this size; all of it, if it was rotated since."""
    with file.open("rb") as log:
        log.seek(offset if file.stat().st_size >= offset else 0)
        return log.read()


def refused_passwords(log: bytes) -> frozenset[str]:
    """The names of the users that tried to log in without an nkey."""
    return frozenset(name.decode(errors="replace") for name in REFUSED_PASSWORD.findall(log))


class NewLines:
    """The lines of a log that are written from now on."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._position = file.stat().st_size if file.exists() else 0

    def read(self) -> bytes:
        """Whole lines, each once. Those that were rotated away meanwhile are missing; none if it cannot be read now."""
        try:
            if self._file.stat().st_size < self._position:
                self._position = 0
            lines = read_from(self._file, self._position)
        except OSError:
            return b""
        whole = lines[: lines.rfind(b"\n") + 1]
        self._position += len(whole)
        return whole


def last_line(file: Path) -> str:
    """The last line, without process id, time and level."""
    try:
        lines = file.read_text(errors="replace")[-4000:].splitlines()
    except FileNotFoundError:
        return "it wrote no log"
    return lines[-1].rpartition("] ")[2] if lines else "its log is empty"
