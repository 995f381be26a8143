"""The child process, `python -m catalog.planning.child`: a request on stdin, its plan on stdout, and so on."""

import gc
import signal
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

from catalog.database import open_reader
from catalog.planning.messages import PLANS, REQUESTS, PlanRequest
from catalog.views.predicted_tags import PredictedTags
from contracts.wire.system.pipe import claim_pipes


def main() -> None:
    requests, plans = claim_pipes()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent; this ends when its pipe closes
    gc.disable()  # what a plan is made of has no cycles
    try:
        _serve(requests, plans)
    except BrokenPipeError:
        return  # the parent is gone


def _serve(requests: BinaryIO, plans: BinaryIO) -> None:
    while request := REQUESTS.read(requests):
        PLANS.write(plans, _make_plan(request))


def _make_plan(request: PlanRequest) -> PredictedTags:
    """On a connection of its own: the file may be another one than the last time."""
    with closing(open_reader(Path(request.read_model))) as connection:
        connection.execute("BEGIN")
        return request.step.plan(connection)


if __name__ == "__main__":
    main()
