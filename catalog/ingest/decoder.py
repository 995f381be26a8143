"""The child, `python -m catalog.ingest.decoder LIMITS`: reads requests from stdin, answers on stdout, one at a time.

It holds nothing worth having: whatever a picture makes of it, the pool kills it and starts another.
"""

import math
import os
import signal
import sys
import warnings
from typing import BinaryIO

import msgspec

from catalog.ingest.examine import examine, set_caps
from catalog.ingest.frames import Examine, Failed, Ready, Result, next_body, packed
from catalog.ingest.outcomes import Limits


def main() -> None:
    limits = msgspec.json.decode(sys.argv[1], type=Limits)
    requests, answers = _own_pipes()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent; this ends when its pipe closes
    _hold_down(limits)
    set_caps(limits)
    warnings.simplefilter("ignore")  # what Pillow finds odd in a file is text of whoever made the file
    try:
        _serve(requests, answers, limits)
    except BrokenPipeError:
        return  # the parent is gone: nobody waits for the answer


def _serve(requests: BinaryIO, answers: BinaryIO, limits: Limits) -> None:
    answers.write(packed(Ready()))
    while body := next_body(requests):
        request = msgspec.msgpack.decode(body, type=Examine)
        _wake_after(math.ceil(limits.seconds) + 1)
        answers.write(packed(_answer(request, limits)))
        _wake_after(0)


def _answer(request: Examine, limits: Limits) -> Result:
    try:
        return examine(request, limits)
    except OSError as error:
        message = error.strerror or type(error).__name__
        return Failed(errno=error.errno or 0, message=message, path=str(error.filename or request.source))


def _own_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Our ends of the pipes. What native libraries print goes nowhere; Python's tracebacks still reach the log."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb", buffering=0)
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nowhere, standard)
    os.close(nowhere)
    return requests, answers


def _hold_down(limits: Limits) -> None:
    if sys.platform == "linux":  # macOS does not honour RLIMIT_AS, Windows has none
        import resource  # noqa: PLC0415  POSIX only

        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        memory = limits.memory_bytes if hard == resource.RLIM_INFINITY else min(limits.memory_bytes, hard)
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _wake_after(seconds: int) -> None:
    """The kernel ends a child that hangs, also when no parent is left to do it; 0 calls it off."""
    if sys.platform != "win32":
        signal.alarm(seconds)


if __name__ == "__main__":
    main()
