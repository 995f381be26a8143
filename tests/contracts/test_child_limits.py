"""What a child process keeps of its memory; its limits are tested with each child that sets them."""

import platform
import subprocess
import sys

import pytest

ROUNDS, PAGES = 50, 1024
FAULTS = f"""
import resource, sys
from contracts.wire.system.child_limits import keep_freed_memory
if sys.argv[1] == "keeping":
    keep_freed_memory()
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
before = faults()
for _ in range({ROUNDS}):
    pictures = [bytearray({PAGES} * 4096) for _ in range(3)]
    del pictures
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="as its allocator can be set")
def test_a_child_keeps_what_it_frees_for_the_next_picture() -> None:
    faults = {
        how: int(subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, check=True).stdout)
        for how in ("keeping", "by-default")
    }
    assert faults["keeping"] < 2 * 3 * PAGES  # each page once
    assert faults["by-default"] > faults["keeping"]
