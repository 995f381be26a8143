"""The child process, `python -m tagger.wd.decoder`: requests on stdin, squares on stdout, one at a time.

What it reads came from anywhere: so it decodes within limits, with no secrets and no state.
"""

import signal
import warnings
from pathlib import Path

from contracts.errors import LoratoryError
from contracts.wire.system.child_limits import keep_freed_memory, limit_memory, set_timers
from contracts.wire.system.pipe import claim_pipes
from tagger.wd.decoder_messages import REQUESTS, RESULTS, Read, Square, Unreadable
from tagger.wd.preprocess import read_square

MEMORY_BYTES = 1280 << 20
"""64 megapixels, the most that a picture has, with alpha: four images of 4 bytes per pixel, the file, and Python."""
CPU_SECONDS = 60.0
"""Of one picture: many times what the largest takes. The catalog, which accepts files, is stricter."""
SECONDS = 300.0


def main() -> None:
    requests, results = claim_pipes()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent; this ends when its pipe closes
    limit_memory(MEMORY_BYTES)
    keep_freed_memory()
    warnings.simplefilter("ignore")  # Pillow's warnings may quote text from the file
    try:
        while request := REQUESTS.read(requests):
            set_timers(CPU_SECONDS, SECONDS)
            result = read(request)
            set_timers(0, 0)
            RESULTS.write(results, result)
    except BrokenPipeError:
        return  # the parent is gone


def read(request: Read) -> Square | Unreadable:
    try:
        return Square(request.size, read_square(Path(request.path), request.size).tobytes())
    except LoratoryError as error:
        return Unreadable(error.detail)
    except Exception as error:  # noqa: BLE001 - Pillow raises nearly any exception on broken files; the other files must still be tagged
        return Unreadable(f"the picture cannot be read ({type(error).__name__})")


if __name__ == "__main__":
    main()
