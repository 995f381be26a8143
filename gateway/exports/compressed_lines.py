"""Lines of bytes, compressed in memory: written once, then read in order as often as needed. Pure."""

import zlib
from collections.abc import Iterator

LEVEL = 1
READ_BYTES = 1 << 16


class CompressedLines:
    """`size` in bytes, as compressed; what is written last may still be missing in it."""

    def __init__(self) -> None:
        self.size = 0
        self._parts: list[bytes] = []
        self._compressor = zlib.compressobj(LEVEL)

    def append(self, line: bytes) -> None:
        """A line has no line break."""
        self._keep(self._compressor.compress(line + b"\n"))

    def finish(self) -> None:
        """Nothing is appended after this."""
        self._keep(self._compressor.flush())

    def __iter__(self) -> Iterator[bytes]:
        """All lines, after `finish`."""
        decompressor, rest = zlib.decompressobj(), b""
        for part in self._parts:
            waiting = part
            while waiting:
                *lines, rest = (rest + decompressor.decompress(waiting, READ_BYTES)).split(b"\n")
                yield from lines
                waiting = decompressor.unconsumed_tail
        yield from (rest + decompressor.flush()).split(b"\n")[:-1]

    def _keep(self, compressed: bytes) -> None:
        if compressed:
            self._parts.append(compressed)
            self.size += len(compressed)
