"""What all services share at their start: `run`, logs, and the refusal of other people's packages.

Settings and health have files of their own; they are handed out here as well, so that a `__main__` needs one import.
Exit codes: 0 ended as asked, 1 failed, 2 cannot start like this, 3 the log is damaged.
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

from contracts.errors import LogDamaged, LoratoryError, SetupError
from contracts.wire.health import Health, check
from contracts.wire.settings import ServiceSettings, read_settings

__all__ = [
    "Health",
    "ServiceSettings",
    "check",
    "configure_logs",
    "leaves",
    "owners_of",
    "read_settings",
    "refuse_foreign_packages",
    "run",
    "start",
]

OURS = ("contracts", "catalog", "gateway", "tagger", "trainer", "loratory")
EXIT_CODES: tuple[tuple[type[LoratoryError], int], ...] = ((LogDamaged, 3), (SetupError, 2))


S = TypeVar("S", bound=ServiceSettings)
Serve = Callable[[S], Coroutine[Any, Any, None]]
Verb = Callable[[S, Sequence[str]], Coroutine[Any, Any, None]]


def start(  # noqa: PLR0913 - a service's whole start
    service: str,
    kind: type[S],
    *,
    environ: Mapping[str, str],
    arguments: Sequence[str],
    serve: Callable[[], Serve[S]],
    verbs: Mapping[str, str] | None = None,
) -> int:
    """A service's whole `__main__`: settings, logs, `--check`, run; the exit code for `sys.exit`.

    `serve` gives the function that serves. It imports what is heavy, and `--check`, asked every few seconds, does not.
    `verbs`: what else the program does, by name, each as `module:function` of the settings and the other arguments.
    """
    verbs = verbs or {}
    try:
        refuse_foreign_packages()
        settings = read_settings(kind, environ)
        if list(arguments) == ["--check"]:
            return check(settings.health_file)
        if arguments and arguments[0] not in verbs:
            words = " | ".join(("--check", *verbs))
            raise SetupError(f"usage: python -m {service} [{words}]; all else is set by LORATORY_* variables")
        configure_logs(service, settings.log_level)
        if arguments:
            return _run_verb(pkgutil.resolve_name(verbs[arguments[0]]), settings, arguments[1:])
    except SetupError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return run(partial(serve(), settings))


def _run_verb(verb: Verb[S], settings: S, arguments: Sequence[str]) -> int:
    """To its end, or to a sentence on stderr: people call these."""
    try:
        return run(partial(verb, settings, arguments))
    except LoratoryError as error:
        sys.stderr.write(f"{error}\n")
        return 1


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> int:
    """Runs the service until it returns or SIGTERM or SIGINT cancels it; the exit code for `sys.exit`.

    A SetupError or LogDamaged, also inside an exception group, becomes one sentence on stderr. All else goes up.
    """
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(_until_told(main))
    except (LoratoryError, BaseExceptionGroup) as error:
        for kind, code in EXIT_CODES:
            if found := next((leaf for leaf in leaves(error) if isinstance(leaf, kind)), None):
                sys.stderr.write(f"{found}\n")
                return code
        raise


async def _until_told(main: Callable[[], Coroutine[Any, Any, None]]) -> int:
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - a coroutine that runs is in a task
    asked: list[signal.Signals] = []

    def stop(number: signal.Signals) -> None:
        if not asked:  # a second signal must not cut the clean end short; who is in a hurry sends SIGKILL
            task.cancel()
        asked.append(number)

    if sys.platform != "win32":
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop, number)
    try:
        await main()
    except asyncio.CancelledError:
        if not asked:
            raise
    return 0


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        from uvloop import new_event_loop  # noqa: PLC0415 - an extra
    except ImportError:
        return None
    return new_event_loop


def leaves(error: BaseException) -> Iterator[BaseException]:
    """What really went wrong, however deep in groups."""
    if isinstance(error, BaseExceptionGroup):
        for child in error.exceptions:
            yield from leaves(child)
    else:
        yield error


def configure_logs(service: str, level: str = "info") -> None:
    """Lines to stderr, of our code and of libraries alike: JSON with a time in UTC, or for people on a terminal."""
    numeric = logging.getLevelNamesMapping().get(level.upper())
    if numeric is None:
        raise SetupError(f"{level!r} is no log level; there are debug, info, warning, error")
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _with_service(service),
    ]
    render = _for_people() if sys.stderr.isatty() else _for_machines()
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


def _for_people() -> list[structlog.typing.Processor]:
    return [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]


def _for_machines() -> list[structlog.typing.Processor]:
    # Without local variables: they hold captions, keys and passwords.
    tracebacks = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    return [structlog.processors.ExceptionRenderer(tracebacks), structlog.processors.JSONRenderer(serializer=_as_json)]


def _with_service(service: str) -> structlog.typing.Processor:
    def add(_logger: object, _method: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
        line["service"] = service
        return line

    return add


def _as_json(line: structlog.typing.EventDict, **_options: object) -> str:
    return msgspec.json.encode(line, enc_hook=str).decode()


def refuse_foreign_packages(names: Iterable[str] = OURS) -> None:
    """SetupError when `catalog`, `trainer` … would be imported from anywhere but beside this very package.

    Looks only at where Python would find them (a millisecond); `owners_of` tells `doctor` the rest.
    """
    home = Path(__file__).resolve().parents[2]
    for name in names:
        with contextlib.suppress(ValueError):
            found = importlib.util.find_spec(name)
            place = Path(found.origin).resolve().parent if found and found.origin else None
            if place and place != home / name:
                raise SetupError(
                    f"the package {name!r} comes from {place}, not from Loratory: another distribution of that name is "
                    "in the way; install Loratory in an environment of its own"
                )


def owners_of(names: Iterable[str] = OURS) -> dict[str, list[str]]:
    """The distributions that say they own our packages; more than `loratory` is trouble. Reads all of them: slow."""
    owners = importlib.metadata.packages_distributions()
    return {name: sorted(set(owners.get(name, []))) for name in names}
