"""`python -m trainer`: the trainer as a service; `--check` tests whether the one running here is ready."""

import os
import sys
from functools import partial

from contracts.wire.service.boot import Serve, start
from trainer.settings import Settings


def _serve() -> Serve[Settings]:
    from trainer.app import serve  # noqa: PLC0415 - heavy

    return partial(serve, environment=os.environ)


def main() -> int:
    """Exit codes: 0 stopped normally, 1 failed or not ready, 2 setup error, 3 the log is damaged."""
    return start("trainer", Settings, environ=os.environ, arguments=sys.argv[1:], serve=_serve)


if __name__ == "__main__":
    sys.exit(main())
