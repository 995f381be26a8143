"""`python -m catalog`: the catalog as a service; `--check` says whether the one that runs here is ready.

With a verb it does one thing on the catalog's files and ends. `loratory` calls these; they are of use alone where the
services run as containers.
"""

import os
import sys

from catalog.settings import Settings
from contracts.wire.boot import Serve, start

VERBS = {
    "catch-up": "catalog.verbs:catch_up",
    "backup": "catalog.verbs:backup",
    "verify-backup": "catalog.verbs:verify_backup",
    "list-backups": "catalog.verbs:list_backups",
    "forget-backup": "catalog.verbs:forget_backup",
    "unpack": "catalog.verbs:unpack",
    "salvage": "catalog.verbs:salvage",
    "refill": "catalog.verbs:refill",
    "audit": "catalog.verbs:audit",
}
"""Each is `async def verb(settings, arguments)` and raises what goes wrong."""


def _serve() -> Serve[Settings]:
    from catalog.app import serve  # noqa: PLC0415 - heavy

    return serve


def main() -> int:
    """0 ended as asked, 1 failed (or is not ready), 2 cannot start like this, 3 the log is damaged."""
    return start("catalog", Settings, environ=os.environ, arguments=sys.argv[1:], serve=_serve, verbs=VERBS)


if __name__ == "__main__":
    sys.exit(main())
