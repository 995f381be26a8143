"""`python -m gateway`: runs the gateway; `--check` reports whether the running gateway is ready."""

import os
import sys

from contracts.wire.service.boot import Serve, start
from gateway.settings import Settings


def _serve() -> Serve[Settings]:
    from gateway.app import serve  # noqa: PLC0415 - slow to import

    return serve


def main() -> int:
    """Exit code: 0 stopped on request, 1 failed (or is not ready), 2 invalid settings or setup, 3 damaged log."""
    return start("gateway", Settings, environ=os.environ, arguments=sys.argv[1:], serve=_serve)


if __name__ == "__main__":
    sys.exit(main())
