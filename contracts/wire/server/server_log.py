"""What a nats-server reports in its log and nowhere else. Reads files."""

import contextlib
import os
from pathlib import Path

FAILED_WRITE_MESSAGES = (b"Critical write error", b"JetStream failed to store a msg")
LOG_TAIL_BYTES = 1 << 16
"""Bytes at the end of the log that are searched for failed writes."""


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


def last_line(file: Path) -> str:
    """The last line, without process id, time and level."""
    try:
        lines = file.read_text(errors="replace")[-4000:].splitlines()
    except FileNotFoundError:
        return "it wrote no log"
    return lines[-1].rpartition("] ")[2] if lines else "its log is empty"
