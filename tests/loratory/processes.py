"""Looking at processes from outside, for tests of who is left. Linux."""

import asyncio
import os
from pathlib import Path


def alive(pid: int) -> bool:
    """A zombie is not: it has ended, and waits only for somebody to notice."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def of_folder(data: Path) -> list[int]:
    """All processes but this one that have the folder in their command line or their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            said = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if os.fsencode(data) in said and int(process.name) != os.getpid():
            found.append(int(process.name))
    return found


async def nobody_left(data: Path) -> bool:
    """Within ten seconds."""
    for _ in range(200):
        if not of_folder(data):
            return True
        await asyncio.sleep(0.05)
    return False
