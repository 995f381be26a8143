"""`python -m trainer`: the trainer as a service; `--check` says whether the one that runs here is ready."""

import os
import sys
from functools import partial

from contracts.wire.boot import Serve, start
from trainer.settings import Settings


def _serve() -> Serve[Settings]:
    from trainer.app import serve  # noqa: PLC0415 - heavy

    return partial(serve, environment=os.environ)


def main() -> int:
    """0 ended as asked, 1 failed (or is not ready), 2 cannot start like this, 3 the log is damaged."""
    return start("trainer", Settings, environ=os.environ, arguments=sys.argv[1:], serve=_serve)


if __name__ == "__main__":
    sys.exit(main())
