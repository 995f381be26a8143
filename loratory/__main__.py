"""`loratory …`, `python -m loratory …`."""

import os
import sys

from loratory.cli.app import run


def main() -> int:
    return run(sys.argv[1:], os.environ)


if __name__ == "__main__":
    sys.exit(main())
