"""The catalog service with slices as small as they can be, which kills itself in the middle, as by `kill -9`.

`python -m tests.catalog.killed_slices POINT`, settings in the environment. POINT is the number of the slice that is
done but not committed when the process ends, 0 for the long commit itself when it is taken in, -1 for never.
"""

import itertools
import os
import signal
import sys
from collections.abc import Sequence

from catalog.__main__ import main
from catalog.database import Connection
from catalog.pending import Pending, Slice
from catalog.store import ApplyCommits, Store
from contracts.commits import LogEntry
from tests.catalog.slicing import smallest_slices


class KillingStore(Store):
    point = -1
    slices = itertools.count(1)

    def _apply(self, connection: Connection, batch: Sequence[LogEntry], apply: ApplyCommits) -> tuple[int, Pending]:
        applied, pending = super()._apply(connection, batch, apply)
        if self.point == 0 and pending.commits:
            die()
        return applied, pending

    def _run(self, connection: Connection, work: Slice, plan: object) -> Pending:
        pending = super()._run(connection, work, plan)
        if next(self.slices) == self.point:
            die()
        return pending


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    from catalog import app

    KillingStore.point = int(sys.argv.pop(1))
    setattr(app, "Store", KillingStore)  # noqa: B010 - the service opens the store by this name
    with smallest_slices():
        sys.exit(main())
