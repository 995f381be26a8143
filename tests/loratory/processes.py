"""Inspecting processes from outside, for tests of what is left running. Linux."""

import asyncio
import os
from pathlib import Path


def alive(pid: int) -> bool:
    """False for a zombie: it has ended, but its parent has not waited for it yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def processes_of(data: Path) -> list[int]:
    """All other processes with the folder in their command line or environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            text = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if os.fsencode(data) in text and int(process.name) != os.getpid():
            found.append(int(process.name))
    return found


async def wait_all_ended(data: Path) -> bool:
    """Have all processes of the folder ended within ten seconds?"""
    for _ in range(200):
        if not processes_of(data):
            return True
        await asyncio.sleep(0.05)
    return False
