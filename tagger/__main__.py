"""`python -m tagger` runs the tagger service; `--check` reports whether the instance on this machine is ready."""

import os
import sys

from contracts.wire.service.boot import Serve, start
from tagger.settings import Settings


def _serve() -> Serve[Settings]:
    from tagger.app import serve  # noqa: PLC0415 - heavy import

    return serve


def main() -> int:
    """Exit code: 0 stopped as requested, 1 failed (or not ready), 2 invalid configuration, 3 the log is damaged."""
    return start("tagger", Settings, environ=os.environ, arguments=sys.argv[1:], serve=_serve)


if __name__ == "__main__":
    sys.exit(main())
