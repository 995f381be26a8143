"""`python -m catalog`: the catalog service; `--check` reports whether the running one is ready.

With a maintenance command it works once on the catalog's files and exits. `loratory` runs these commands; they are for
direct use where the services run as containers.
"""

import os
import sys

from catalog.settings import Settings
from contracts.wire.service.boot import Serve, start

MAINTENANCE_COMMANDS = {
    command: f"catalog.maintenance_commands:{command.replace('-', '_')}"
    for command in (
        *("catch-up", "backup", "verify-backup", "check-files", "ends", "list-backups", "forget-backup"),
        *("unpack", "salvage", "mend", "refill", "audit"),
        *("list-losses", "accept-loss", "renew-keys"),
    )
}
"""Each is `async def command(settings, arguments)` and raises errors."""


def _serve() -> Serve[Settings]:
    from catalog.app import serve  # noqa: PLC0415 - heavy

    return serve


def main() -> int:
    """Exit codes: 0 success, 1 failed (or not ready), 2 wrong settings or arguments, 3 the log is damaged."""
    return start(
        "catalog", Settings, environ=os.environ, arguments=sys.argv[1:], serve=_serve, subcommands=MAINTENANCE_COMMANDS
    )


if __name__ == "__main__":
    sys.exit(main())
