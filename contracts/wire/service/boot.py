"""Start-up shared by all services: `run`, logging, and the refusal of foreign packages with our names.

Exit codes: 0 stopped on request, 1 failed, 2 cannot start with this configuration, 3 the log is damaged.
"""

import asyncio
import contextlib
import importlib.metadata
import importlib.util
import logging
import pkgutil
import signal
import sys
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import structlog

from contracts.errors import BlobMissing, KeyMissing, LogDamaged, LoratoryError, SetupError
from contracts.wire.service.health import check
from contracts.wire.service.settings import ServiceSettings, read_settings

OUR_PACKAGES = ("contracts", "catalog", "gateway", "tagger", "trainer", "loratory", "demo_world")
EXIT_CODES: tuple[tuple[type[LoratoryError], int], ...] = (
    (LogDamaged, 3),
    (SetupError, 2),
    (BlobMissing, 1),
    (KeyMissing, 1),
)
S = TypeVar("S", bound=ServiceSettings)
Serve = Callable[[S], Coroutine[Any, Any, None]]
Subcommand = Callable[[S, Sequence[str]], Coroutine[Any, Any, None]]


def start(  # noqa: PLR0913 - a service's whole start
    service: str,
    kind: type[S],
    *,
    environ: Mapping[str, str],
    arguments: Sequence[str],
    serve: Callable[[], Serve[S]],
    subcommands: Mapping[str, str] | None = None,
) -> int:
    """The whole `__main__` of a service: settings, logs, `--check`, run; returns the exit code.

    `serve` returns the main coroutine function. It does the expensive imports, which `--check`, called every few
    seconds, avoids. `subcommands` by name, each a `module:function` that takes the settings and remaining arguments.
    """
    subcommands = subcommands or {}
    try:
        refuse_foreign_packages()
        settings = read_settings(kind, environ)
        if list(arguments) == ["--check"]:
            return check(settings.health_file)
        if arguments and arguments[0] not in subcommands:
            options = " | ".join(("--check", *subcommands))
            raise SetupError(f"usage: python -m {service} [{options}]; all else is set by LORATORY_* variables")
        configure_logs(service, settings.log_level)
        if arguments:
            subcommand: Subcommand[S] = pkgutil.resolve_name(subcommands[arguments[0]])
            return run(partial(subcommand, settings, arguments[1:]))
    except LoratoryError as error:
        sys.stderr.write(f"{error}\n")
        return 2 if isinstance(error, SetupError) else 1
    return run(partial(serve(), settings))


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> int:
    """Runs the service until it returns or SIGTERM or SIGINT cancels it; returns the exit code.

    Errors of EXIT_CODES, also inside an exception group, become one sentence on stderr. Other errors propagate.
    """
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(_until_signal(main))
    except (LoratoryError, BaseExceptionGroup) as error:
        for kind, code in EXIT_CODES:
            if found := next((leaf for leaf in leaf_errors(error) if isinstance(leaf, kind)), None):
                sys.stderr.write(f"{found}\n")
                return code
        raise


async def _until_signal(main: Callable[[], Coroutine[Any, Any, None]]) -> int:
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - a coroutine that runs is in a task
    received_signals: list[signal.Signals] = []

    def stop(number: signal.Signals) -> None:
        if not received_signals:  # a second signal must not interrupt the orderly shutdown; SIGKILL does
            task.cancel()
        received_signals.append(number)

    if sys.platform != "win32":
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop, number)
    try:
        await main()
    except asyncio.CancelledError:
        if not received_signals:
            raise
    return 0


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        from uvloop import new_event_loop  # noqa: PLC0415 - an extra
    except ImportError:
        return None
    return new_event_loop


def leaf_errors(error: BaseException) -> Iterator[BaseException]:
    """The exceptions inside nested exception groups."""
    if isinstance(error, BaseExceptionGroup):
        for child in error.exceptions:
            yield from leaf_errors(child)
    else:
        yield error


def configure_logs(service: str, level: str = "info") -> None:
    """Logs to stderr, for our code and for libraries: JSON with UTC times, or readable lines on a terminal."""
    numeric = logging.getLevelNamesMapping().get(level.upper())
    if numeric is None:
        raise SetupError(f"{level!r} is not a log level; use debug, info, warning or error")
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        partial(_add_service, service),
    ]
    render = _renderers()
    structlog.configure(
        processors=[*shared, *render],
        wrapper_class=structlog.make_filtering_bound_logger(numeric),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    drop_meta = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name], processors=[drop_meta, *render]
        )
    )
    logging.basicConfig(handlers=[handler], level=max(numeric, logging.WARNING), force=True)


def _renderers() -> list[structlog.typing.Processor]:
    if sys.stderr.isatty():
        return [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
    # Without local variables: they contain captions, keys and passwords.
    tracebacks = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    return [structlog.processors.ExceptionRenderer(tracebacks), structlog.processors.JSONRenderer(serializer=_to_json)]


def _add_service(service: str, _logger: object, _method: str, line: structlog.typing.EventDict) -> dict[str, Any]:
    return {**line, "service": service}


def _to_json(line: structlog.typing.EventDict, **_options: object) -> str:
    return msgspec.json.encode(line, enc_hook=str).decode()


def refuse_foreign_packages(names: Iterable[str] = OUR_PACKAGES) -> None:
    """SetupError if `catalog`, `trainer` … would be imported from elsewhere than next to this package.

    Only looks up where Python would find them (a millisecond); `distributions_of` has the details for `doctor`.
    """
    home = Path(__file__).resolve().parents[3]
    for name in names:
        with contextlib.suppress(ValueError):
            found = importlib.util.find_spec(name)
            folder = Path(found.origin).resolve().parent if found and found.origin else None
            if folder and folder != home / name:
                raise SetupError(
                    f"the package {name!r} comes from {folder}, not from Loratory: another distribution has "
                    "the same package name; install Loratory in an environment of its own"
                )


def distributions_of(names: Iterable[str] = OUR_PACKAGES) -> dict[str, list[str]]:
    """The distributions that provide our packages; it should be `loratory` alone. Reads all metadata, which is slow."""
    owners = importlib.metadata.packages_distributions()
    return {name: sorted(set(owners.get(name, []))) for name in names}
