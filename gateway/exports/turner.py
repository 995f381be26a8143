"""The child process, `python -m gateway.exports.turner`: JPEGs on stdin, the same upright on stdout, one at a time.

What it reads is as stored, but came from anywhere: so it decodes within limits, with no secrets and no state.
"""

import signal
import warnings
from typing import BinaryIO

from contracts.wire.system.child_limits import keep_freed_memory, limit_memory, set_timers
from contracts.wire.system.pipe import claim_pipes
from gateway.exports.turning_messages import PART_BYTES, PARTS, TURNED, CannotTurn, Part
from gateway.exports.upright_jpeg import upright_jpeg

MEMORY_BYTES = 704 << 20
"""64 megapixels, the most that a picture has, and their turned copy, at 4 bytes; the file twice, and Python."""
CPU_SECONDS = 60.0
"""Of one picture: many times what the largest takes. The catalog, which accepts files, is stricter."""
SECONDS = 300.0


def main() -> None:
    pictures, results = claim_pipes()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent; this ends when its pipe closes
    limit_memory(MEMORY_BYTES)
    keep_freed_memory()
    warnings.simplefilter("ignore")  # Pillow's warnings may quote text from the file
    try:
        while (content := _receive(pictures)) is not None:
            set_timers(CPU_SECONDS, SECONDS)
            _answer(results, content)
            set_timers(0, 0)
    except BrokenPipeError:
        return  # the parent is gone


def _receive(pictures: BinaryIO) -> bytes | None:
    content = bytearray()
    while part := PARTS.read(pictures):
        if not part.content:
            return bytes(content)
        content += part.content
    return None


def _answer(results: BinaryIO, content: bytes) -> None:
    try:
        turned = upright_jpeg(content)
    except Exception as error:  # noqa: BLE001  damaged bytes raise almost anything; the parent decides what it means
        TURNED.write(results, CannotTurn(type(error).__name__))
        return
    for start in range(0, len(turned), PART_BYTES):
        TURNED.write(results, Part(turned[start : start + PART_BYTES]))
    TURNED.write(results, Part(b""))


if __name__ == "__main__":
    main()
