"""Limits that a child process sets on itself before it reads what is not trusted. The kernel enforces them."""

import ctypes
import signal
import sys

ADDRESS_SPACE_BYTES = 256 << 20
"""Of code, thread stacks and what allocators reserve, beyond the resident memory of a child."""
KEPT_BYTES = 64 << 20
"""More than a picture of 4 megapixels takes, with copies."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h


def limit_memory(memory_bytes: int) -> None:
    """Have allocations fail beyond about so much resident memory; and leave no core dump. Linux only."""
    if sys.platform == "linux":  # macOS does not honour RLIMIT_AS, Windows has none
        import resource  # noqa: PLC0415  POSIX only

        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        memory = memory_bytes + ADDRESS_SPACE_BYTES
        memory = memory if hard == resource.RLIM_INFINITY else min(memory, hard)
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def keep_freed_memory() -> None:
    """Have this process keep up to `KEPT_BYTES` of what it frees. By default it returns the memory of each picture and
    takes it for the next one again, page by page: a quarter of the CPU time for one of a megapixel [measured]. Whatever
    is allocated may use it, so limits stay as they are. glibc only: see mallopt(3)."""
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(_M_MMAP_THRESHOLD, KEPT_BYTES)


def set_timers(cpu_seconds: float, seconds: float) -> None:
    """Have the kernel end this process by SIGPROF after so much CPU time of all its threads, or by SIGALRM after
    `seconds`, even if the parent is gone; 0 cancels that. Not on Windows."""
    if sys.platform != "win32":
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
        signal.setitimer(signal.ITIMER_REAL, seconds)
