"""The child process, `python -m catalog.ingest.decoder LIMITS`: requests on stdin, results on stdout, one at a time.

It holds no secrets and no state, so the pool can kill and replace it at any time.
"""

import signal
import sys
import time
import warnings
import zlib
from pathlib import Path
from typing import BinaryIO

import msgspec

from catalog.ingest.decoder_messages import READY, REQUESTS, RESULTS, DecoderReady, DecodingFailed, Request, Result
from catalog.ingest.examine import examine
from catalog.ingest.outcomes import Limits
from contracts.wire.system.child_limits import keep_freed_memory, limit_memory, set_timers
from contracts.wire.system.pipe import claim_pipes

_REFERENCE_SECONDS = 0.0083
"""CPU time of what `_measure_slowness` does on the machine on which the limits were measured."""
_MAX_SLOWNESS = 20


def main() -> None:
    limits = msgspec.json.decode(sys.argv[1], type=Limits)
    requests, results = claim_pipes()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent; this ends when its pipe closes
    limit_memory(limits.memory_bytes)
    keep_freed_memory()
    warnings.simplefilter("ignore")  # Pillow's warnings may quote text from the file
    try:
        _serve(requests, results, limits)
    except BrokenPipeError:
        return  # the parent is gone


def _serve(requests: BinaryIO, results: BinaryIO, limits: Limits) -> None:
    slowness = _measure_slowness()
    READY.write(results, DecoderReady())
    while request := REQUESTS.read(requests):
        set_timers(slowness * limits.cpu_seconds_of(_size(request.source)), limits.hang_seconds + 1)
        RESULTS.write(results, _execute(request, limits))
        set_timers(0, 0)


def _measure_slowness() -> float:
    """How many times slower than that of the limits this machine is, at least 1: an old one is given more time."""
    rows = b"".join(bytes(x * y & 255 for x in range(512)) for y in range(256)) * 4
    fastest = _MAX_SLOWNESS * _REFERENCE_SECONDS
    for _ in range(3):
        started = time.process_time()
        zlib.compress(rows, 6)
        fastest = min(fastest, time.process_time() - started)
    return max(1.0, fastest / _REFERENCE_SECONDS)


def _execute(request: Request, limits: Limits) -> Result:
    try:
        return examine(request, limits)
    except OSError as error:
        message = error.strerror or type(error).__name__
        return DecodingFailed(errno=error.errno or 0, message=message, path=str(error.filename or request.source))


def _size(source: str) -> int:
    try:
        return Path(source).stat().st_size
    except OSError:
        return 0  # reading it fails as well, and says why


if __name__ == "__main__":
    main()
