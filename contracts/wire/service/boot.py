"""Start-up shared by all services: `run`, logging, and the refusal of foreign packages with our names.

Exit codes: 0 stopped on request, 1 failed, 2 refused (a setting, a damaged file, another owner), 3 the log is damaged,
75 something it needs is missing now (disk space, NATS). Starting it again helps after all of them but 2 and 3.
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

from contracts.errors import BlobMissing, KeyMissing, LogDamaged, LogFull, LoratoryError, SetupError, Unavailable
from contracts.wire.service import tracing
from contracts.wire.service.health import check
from contracts.wire.service.settings import ServiceSettings, read_settings
from contracts.wire.system.files import NO_SPACE

OUR_PACKAGES = ("contracts", "catalog", "gateway", "tagger", "trainer", "loratory", "demo_world")
FAILED, REFUSED, LOG_DAMAGED, NOT_NOW = 1, 2, 3, 75
"""Exit codes. 75 is EX_TEMPFAIL of sysexits.h."""
FINAL_EXIT_CODES = frozenset({REFUSED, LOG_DAMAGED})
"""After these a service is not started again: waiting cures neither a setting nor damage."""
SENTENCE_EXIT_CODES = FINAL_EXIT_CODES | {NOT_NOW}
"""With these, the last line on stderr is one sentence that says why."""
EXPORTER_VARIABLES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
EXIT_CODES: tuple[tuple[type[LoratoryError], int], ...] = (
    (LogDamaged, LOG_DAMAGED),
    (SetupError, REFUSED),
    (BlobMissing, FAILED),
    (KeyMissing, FAILED),
)
"""What ends a service with one sentence instead of a traceback, whatever else went wrong beside it."""
S = TypeVar("S", bound=ServiceSettings)
Serve = Callable[[S], Coroutine[Any, Any, None]]
Subcommand = Callable[[S, Sequence[str]], Coroutine[Any, Any, None]]

_log = structlog.get_logger()


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
        configure_tracing(service, environ)
    except LoratoryError as error:
        sys.stderr.write(f"{error}\n")
        return REFUSED if isinstance(error, SetupError) else FAILED
    return run(partial(serve(), settings))


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> int:
    """Runs the service until it returns or SIGTERM or SIGINT cancels it; returns the exit code.

    What waiting or a person can cure becomes one sentence on stderr, also inside an exception group: LogDamaged,
    SetupError, and Unavailable, LogFull or a full disk if there is nothing else. Other errors propagate.
    """
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(_until_signal(main))
    except (LoratoryError, OSError, BaseExceptionGroup) as error:
        explained = _explain(list(leaf_errors(error)))
        if explained is None:
            raise
        code, sentence = explained
        sys.stderr.write(f"{sentence}\n")
        return code


def _explain(errors: Sequence[BaseException]) -> tuple[int, str] | None:
    """Exit code and sentence for errors that ended a service together; None for those that are not expected."""
    for kind, code in EXIT_CODES:
        if found := next((error for error in errors if isinstance(error, kind)), None):
            return code, str(found)
    if all(_may_pass(error) for error in errors):
        first = errors[0]
        file = f": {first.filename}" if isinstance(first, OSError) and first.filename else ""
        return NOT_NOW, f"{first.strerror if isinstance(first, OSError) else first}{file}"
    return None


def _may_pass(error: BaseException) -> bool:
    """Whether it is about something missing that may come back while nothing else changes."""
    return isinstance(error, Unavailable | LogFull) or (isinstance(error, OSError) and error.errno in NO_SPACE)


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


def configure_tracing(service: str, environ: Mapping[str, str]) -> None:
    """Turns spans on if an exporter is named and the extra is installed. SetupError: an unsupported exporter."""
    is_disabled = (
        environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or environ.get("OTEL_TRACES_EXPORTER") == "none"
    )
    if is_disabled or not any(environ.get(name) for name in EXPORTER_VARIABLES):
        return
    try:
        from contracts.wire.service.otel import exporting_spans  # noqa: PLC0415 - an extra
    except ImportError:
        _log.warning("tracing_not_installed", cure="pip install 'loratory[otel]'")
        return
    tracing.use(exporting_spans(service, environ))
    _log.info("tracing_on")


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
