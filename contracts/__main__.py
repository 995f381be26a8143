"""`python -m contracts`: the migrate step. Idempotent; run it before the services, and again after a restart of NATS.

POSIX and Windows. Exit codes as for every service: 0 done, 2 invalid configuration, 3 the log is damaged.
"""

import os
import sys

from contracts.wire.log.migration import MigrateSettings, migrate_once
from contracts.wire.service.boot import configure_logs, refuse_foreign_packages, run
from contracts.wire.service.settings import read_settings


async def _main() -> None:
    refuse_foreign_packages()
    configure_logs("migrate")
    log_id = await migrate_once(read_settings(MigrateSettings, os.environ))
    sys.stdout.write(f"streams EVT, JOBS and MET and the consumers of the queue are up to date; the log is {log_id}\n")


def main() -> int:
    return run(_main)


if __name__ == "__main__":
    sys.exit(main())
