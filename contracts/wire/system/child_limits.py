"""Limits that a child process sets on itself before it reads what is not trusted. The kernel enforces them."""

import signal
import sys

ADDRESS_SPACE_BYTES = 256 << 20
"""Of code, thread stacks and what allocators reserve, beyond the resident memory of a child."""


def limit_memory(memory_bytes: int) -> None:
    """Have allocations fail beyond about so much resident memory; and leave no core dump. Linux only."""
    if sys.platform == "linux":  # macOS does not honour RLIMIT_AS, Windows has none
        import resource  # noqa: PLC0415  POSIX only

        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        memory = memory_bytes + ADDRESS_SPACE_BYTES
        memory = memory if hard == resource.RLIM_INFINITY else min(memory, hard)
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def set_timers(cpu_seconds: float, seconds: float) -> None:
    """Have the kernel end this process by SIGPROF after so much CPU time of all its threads, or by SIGALRM after
    `seconds`, even if the parent is gone; 0 cancels that. Not on Windows."""
    if sys.platform != "win32":
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
        signal.setitimer(signal.ITIMER_REAL, seconds)
