"""The tree of commands, and what its ends mean: 0 ok, 1 failed, 2 usage or setup, 3 timeout, 4 cancelled.

What works on a data folder itself (`restore`, `backup`) ends with 3 where the log is damaged.

Commands are named by import path, so that `--help` imports none of them.
"""

import asyncio
import inspect
import signal
import sys
from collections.abc import Coroutine, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from cyclopts import App, CycloptsError

from contracts.errors import Invalid, LoratoryError, SetupError

INTERRUPTED = 130
"""As shells say it of a program that Ctrl-C ended."""
USAGE, TIMEOUT = 2, 3

TOP = {
    "up": ("up:up", "Start the whole workshop on this machine."),
    "demo": ("demo:demo", "From drawn (or your) pictures to a LoRA, in one go."),
    "train": ("train:train", "Train a LoRA on a data set."),
    "tag": ("train:tag", "Have a model tag the pictures of a data set."),
    "events": ("events:events", "Print the event log as NDJSON."),
    "restore": ("backup:restore", "Put back what a damaged or deleted event log lacks."),
    "doctor": ("doctor:doctor", "Say what is here, what is missing and what to do."),
}
GROUPS = {
    "datasets": (
        "Data sets and their pictures.",
        {
            "create": ("datasets:create", "Make a data set."),
            "ls": ("datasets:ls", "List data sets."),
            "show": ("datasets:show", "Show one data set."),
            "import": ("datasets:import_", "Bring a folder or files into a data set, with their captions."),
        },
    ),
    "images": ("Images.", {"show": ("images:show", "Show one image, now or as it was.")}),
    "history": (
        "What happened: when, by whom, what.",
        {
            "job": ("history:job", "To a job."),
            "image": ("history:image", "To an image."),
            "dataset": ("history:dataset", "To a data set, and in its tagging runs."),
            "tag": ("history:tag", "To a tag in a data set."),
        },
    ),
    "jobs": (
        "Trainings.",
        {
            "ls": ("jobs:ls", "List jobs, newest first."),
            "show": ("jobs:show", "Show one job."),
            "watch": ("jobs:watch", "Follow a job to its end."),
            "wait": ("jobs:wait", "Wait for the end of jobs."),
            "cancel": ("jobs:cancel", "Stop a job."),
        },
    ),
    "erase": (
        "Erase for good: bytes, file names and captions, wherever they are.",
        {
            "image": ("erase:image", "Erase images."),
            "dataset": ("erase:dataset", "Erase data sets with all their images."),
        },
    ),
    "backup": (
        "Backups of a data folder.",
        {
            "create": ("backup:create", "Back it up, while the workshop runs or not."),
            "verify": ("backup:verify", "Compute everything in a backup again."),
            "ls": ("backup:ls", "List the backups that were made."),
            "forget": ("backup:forget", "Say that a backup is gone for good."),
            "restore": ("backup:restore_backup", "Make a data folder from a backup."),
        },
    ),
    "audit": (
        "Is history what it was?",
        {
            "head": ("audit:head", "Where the log ends now, signed, to be kept elsewhere."),
            "verify": ("audit:verify", "Compute all hashes again and lay the log beside its archive."),
            "replay": ("history:replay", "Make every read model anew from the log and compare."),
        },
    ),
    "loras": ("Finished LoRAs.", {"get": ("jobs:get", "Download the files of a finished job.")}),
}


def build() -> App:
    app = App(
        name="loratory",
        help="A workshop for LoRAs: pictures in, a curated and tagged data set, a trained LoRA out.",
        version=lambda: version("loratory"),
        suppress_keyboard_interrupt=False,
    )
    _add(app, TOP)
    for name, (words, commands) in GROUPS.items():
        group = App(name=name, help=words)
        _add(group, commands)
        app.command(group)
    return app


def _add(app: App, commands: Mapping[str, tuple[str, str]]) -> None:
    for name, (place, words) in commands.items():
        app.command(f"loratory.cli.{place}", name=name, help=words)


def run(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """The exit code. What goes wrong is one sentence on stderr, never a traceback of ours."""
    try:
        command, bound, unparsed = build().parse_args(list(arguments), exit_on_error=False, print_error=False)
        # The environment enters here and is handed to those who ask for it.
        given = {"environ": environ} if "environ" in unparsed else {}
        outcome = command(*bound.args, **bound.kwargs, **given)
        if inspect.iscoroutine(outcome):
            outcome = _run_until_told(outcome)
    except (CycloptsError, LoratoryError) as error:
        sys.stderr.write(f"loratory: {error}\n")
        return exit_code(error)
    except (KeyboardInterrupt, asyncio.CancelledError):
        return INTERRUPTED
    except BrokenPipeError:  # `loratory events | head`
        sys.stderr.close()
        return INTERRUPTED
    except OSError as error:
        sys.stderr.write(f"loratory: {error.strerror or error}{f': {error.filename}' if error.filename else ''}\n")
        return 1
    return outcome if isinstance(outcome, int) else 0


def exit_code(error: Exception) -> int:
    match error:
        case CycloptsError() | SetupError() | Invalid():
            return USAGE
        case LoratoryError(code="timeout"):
            return TIMEOUT
        case _:
            return 1


def _run_until_told(work: Coroutine[Any, Any, object]) -> object:
    """SIGTERM ends a command as Ctrl-C does: it is cancelled, once, and cleans up behind itself."""

    async def run_it() -> object:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine that runs is in a task
        asked: list[signal.Signals] = []

        def stop(number: signal.Signals) -> None:
            if not asked:  # a second signal must not cut the clean end short
                task.cancel()
            asked.append(number)

        if sys.platform != "win32":
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, stop, number)
        return await work

    return asyncio.run(run_it())
