"""Current predictions in memory, sorted by tag: their rows are by image, and for one tag all of them would be read.

Some images of a data set are one part. The read model says which commit changed a part last, so what is in memory is
used by snapshots that show just this change, and read again by others.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable

import msgspec

from catalog.database import Connection
from catalog.views.pairs import TagColumns

ReadPart = Callable[[Connection, str, int, int], TagColumns]
"""The predictions of a part of a data set, and the sequence that changed it last."""


class PredictionLimits(msgspec.Struct, frozen=True, kw_only=True):
    """`memory` in bytes, of all data sets together."""

    memory: int = 128 * 2**20


DEFAULT_PREDICTION_LIMITS = PredictionLimits()


class PredictionIndex:
    """The parts that were used last, within a limit of memory; used by several threads."""

    def __init__(self, read: ReadPart, limits: PredictionLimits = DEFAULT_PREDICTION_LIMITS) -> None:
        """`read`: from the rows of the predictions."""
        self._read, self._limits = read, limits
        self._parts: OrderedDict[tuple[str, int], tuple[int, TagColumns]] = OrderedDict()
        """With the sequence of the last change, the one used last at the end."""
        self._changing = threading.Lock()
        self.bytes = 0

    def read_part(self, connection: Connection, dataset_id: str, part: int, sequence: int) -> TagColumns:
        """The predictions of a part as the snapshot shows them, which `sequence` changed last."""
        key = (dataset_id, part)
        with self._changing:
            found = self._parts.get(key)
            if found is not None:
                self._parts.move_to_end(key)
        if found is not None and found[0] == sequence:
            return found[1]
        columns = self._read(connection, dataset_id, part, sequence)
        if found is None or found[0] < sequence:
            self._keep(key, sequence, columns)
        return columns

    def _keep(self, key: tuple[str, int], sequence: int, columns: TagColumns) -> None:
        with self._changing:
            _, replaced = self._parts.pop(key, (0, None))
            self._parts[key] = (sequence, columns)
            self.bytes += columns.bytes - (0 if replaced is None else replaced.bytes)
            while self.bytes > self._limits.memory:
                _, (_, dropped) = self._parts.popitem(last=False)
                self.bytes -= dropped.bytes
