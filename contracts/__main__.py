"""`python -m contracts`: the migrate step. Idempotent; run it before the services, and again after a restart of NATS.

With `--watch` it goes on recreating a lost work queue, which no service may do. POSIX and Windows. Exit codes
as for every service: 0 done, 2 invalid configuration, 3 the log is damaged.
"""

import os
import sys
from collections.abc import Sequence
from functools import partial

from contracts.errors import SetupError
from contracts.wire.log.migration import MigrateSettings, migrate_once
from contracts.wire.log.queue_watch import keep_queue
from contracts.wire.service.boot import configure_logs, refuse_foreign_packages, run
from contracts.wire.service.settings import read_settings


async def _main(arguments: Sequence[str]) -> None:
    refuse_foreign_packages()
    configure_logs("migrate")
    match arguments:
        case [] | ["--watch"]:
            settings = read_settings(MigrateSettings, os.environ)
            log_id = await migrate_once(settings)
            _print(f"streams EVT, JOBS and MET and the consumers of the queue are up to date; the log is {log_id}")
            if arguments:
                await keep_queue(settings, settings.lease)
        case _:
            raise SetupError("usage: python -m contracts [--watch]")


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    return run(partial(_main, sys.argv[1:]))


if __name__ == "__main__":
    sys.exit(main())
