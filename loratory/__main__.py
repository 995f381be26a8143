"""`loratory …`, `python -m loratory …`."""

import os
import sys

from contracts.errors import SetupError
from contracts.wire.service.boot import refuse_foreign_packages
from loratory.cli.app import USAGE, run


def main() -> int:
    try:
        refuse_foreign_packages()
    except SetupError as error:
        sys.stderr.write(f"loratory: {error}\n")
        return USAGE
    return run(sys.argv[1:], os.environ)


if __name__ == "__main__":
    sys.exit(main())
