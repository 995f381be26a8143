"""`python -m tagger`: the tagger as a service; `--check` says whether the one that runs here is ready."""

import os
import sys
from functools import partial

from contracts.errors import SetupError
from contracts.wire.boot import Health, check, configure_logs, read_settings, refuse_foreign_packages, run
from tagger.settings import Settings


def main() -> None:
    try:
        refuse_foreign_packages()
        settings = read_settings(Settings, os.environ)
        configure_logs("tagger", settings.log_level)
    except SetupError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
    if "--check" in sys.argv[1:]:
        sys.exit(check(settings.health_file))
    from tagger.app import serve  # noqa: PLC0415 - `--check` runs every few seconds and needs none of it

    health = Health("tagger", ["bus"], pid=os.getpid())
    sys.exit(run(partial(serve, settings, health)))


if __name__ == "__main__":
    main()
