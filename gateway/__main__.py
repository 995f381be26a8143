"""`python -m gateway`: serve until SIGTERM; `--check`: is the one that runs here ready?"""

import os
import sys


def main() -> int:
    """0 ended as asked, 1 failed (or is not ready), 2 cannot start like this, 3 the log is damaged."""
    from contracts.errors import SetupError  # noqa: PLC0415 - `--check` must not wait for the web framework
    from contracts.wire.boot import check, configure_logs, read_settings, refuse_foreign_packages, run  # noqa: PLC0415
    from gateway.settings import Settings, refuse_unsafe  # noqa: PLC0415

    try:
        refuse_foreign_packages()
        settings = read_settings(Settings, os.environ)
        if sys.argv[1:] == ["--check"]:
            return check(settings.health_file)
        if sys.argv[1:]:
            raise SetupError("usage: python -m gateway [--check]; everything else is set by LORATORY_* variables")
        configure_logs("gateway")
        refuse_unsafe(settings)
    except SetupError as error:
        sys.stderr.write(f"{error}\n")
        return 2

    from gateway.app import serve  # noqa: PLC0415 - heavy

    return run(lambda: serve(settings))


if __name__ == "__main__":
    sys.exit(main())
