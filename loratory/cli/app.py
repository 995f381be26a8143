"""The command tree and the exit codes: 0 ok, 1 failed, 2 usage or setup, 3 timeout, 4 cancelled, 130 interrupted.

Commands that work on a data folder (`restore`, `backup`) exit with 3 if the log is damaged.

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
from loratory.cli.output import write_error, write_problem

USAGE, TIMEOUT, INTERRUPTED = 2, 3, 130

TOP = {
    "up": ("up:up", "Start Loratory on this machine."),
    "demo": ("demo:demo", "From drawn (or your) images to a LoRA in one go."),
    "train": ("train:train", "Train a LoRA on a data set."),
    "tag": ("train:tag", "Tag the images of a data set with a model."),
    "events": ("events:events", "Print the event log."),
    "restore": ("backup:restore", "Restore a damaged or deleted event log."),
    "doctor": ("doctor:doctor", "Check this installation and say what to fix."),
}
GROUPS = {
    "datasets": (
        "Data sets and their images.",
        {
            "create": ("datasets:create", "Create a data set."),
            "ls": ("datasets:ls", "List data sets."),
            "show": ("datasets:show", "Show one data set."),
            "import": ("datasets:import_", "Import a folder or files into a data set, with their captions."),
        },
    ),
    "images": ("Images.", {"show": ("images:show", "Show one image, now or in the past.")}),
    "history": (
        "What happened, when, and by whom.",
        {
            "job": ("history:job", "History of a job."),
            "image": ("history:image", "History of an image."),
            "dataset": ("history:dataset", "History of a data set and its tagging runs."),
            "tag": ("history:tag", "History of a tag in a data set."),
        },
    ),
    "jobs": (
        "Training jobs.",
        {
            "ls": ("jobs:ls", "List jobs, newest first."),
            "show": ("jobs:show", "Show one job."),
            "watch": ("jobs:watch", "Follow a job to its end."),
            "wait": ("jobs:wait", "Wait until jobs have ended."),
            "cancel": ("jobs:cancel", "Cancel a job."),
        },
    ),
    "erase": (
        "Permanently erase bytes, file names and captions, everywhere.",
        {
            "image": ("erase:image", "Erase images."),
            "dataset": ("erase:dataset", "Erase data sets with all their images."),
        },
    ),
    "backup": (
        "Backups of a data folder.",
        {
            "create": ("backup:create", "Create or update a backup, while Loratory runs or not."),
            "verify": ("backup:verify", "Verify every hash and file of a backup."),
            "ls": ("backup:ls", "List the registered backups."),
            "forget": ("backup:forget", "Unregister a backup that was deleted."),
            "restore": ("backup:restore_backup", "Create a data folder from a backup."),
        },
    ),
    "audit": (
        "Prove that history was not changed.",
        {
            "head": ("audit:head", "Print the signed head of the log, to be stored elsewhere."),
            "verify": ("audit:verify", "Verify all hashes and compare the log with its archive."),
            "replay": ("history:replay", "Rebuild every read model from the log and compare."),
        },
    ),
    "loras": ("Finished LoRAs.", {"get": ("jobs:get", "Download the files of a finished job.")}),
}


def build() -> App:
    app = App(
        name="loratory",
        help="Curate and tag image data sets, and train LoRAs on them.",
        version=lambda: version("loratory"),
        suppress_keyboard_interrupt=False,
    )
    _add(app, TOP)
    for name, (description, commands) in GROUPS.items():
        group = App(name=name, help=description)
        _add(group, commands)
        app.command(group)
    return app


def _add(app: App, commands: Mapping[str, tuple[str, str]]) -> None:
    for name, (target, description) in commands.items():
        app.command(f"loratory.cli.{target}", name=name, help=description)


def run(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """The exit code. Errors are one sentence on stderr, with `--json` a problem document; never a traceback."""
    as_json = "--json" in arguments
    try:
        command, bound, unparsed = build().parse_args(list(arguments), exit_on_error=False, print_error=False)
        # The environment enters here and is passed to the commands that need it.
        injected = {"environ": environ} if "environ" in unparsed else {}
        outcome = command(*bound.args, **bound.kwargs, **injected)
        if inspect.iscoroutine(outcome):
            outcome = _run_cancellable(outcome)
    except (CycloptsError, LoratoryError) as error:
        _report(error, as_json=as_json)
        return exit_code(error)
    except (KeyboardInterrupt, asyncio.CancelledError):
        return INTERRUPTED
    except BrokenPipeError:  # `loratory events | head`
        sys.stderr.close()
        return INTERRUPTED
    except OSError as error:
        text = f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"
        _report(LoratoryError(text), as_json=as_json)
        return 1
    return outcome if isinstance(outcome, int) else 0


def exit_code(error: Exception) -> int:
    match error:
        case CycloptsError() | SetupError() | Invalid():
            return USAGE
        case LoratoryError(code="timeout"):
            return TIMEOUT
        case LoratoryError(code="interrupted"):
            return INTERRUPTED
        case _:
            return 1


def _report(error: Exception, *, as_json: bool) -> None:
    if as_json:
        title = str(error.extra.pop("title", "")) if isinstance(error, LoratoryError) else ""
        write_problem(error, title or (type(error).__doc__ or "").strip().partition("\n")[0])
    else:
        write_error(_sentence(error))


def _sentence(error: Exception) -> str:
    """The message of an error in one line, with those of all invalid fields."""
    text = " ".join(str(error).split())
    fields = error.extra.get("errors") if isinstance(error, LoratoryError) else None
    if isinstance(fields, list | tuple):
        messages = [str(field.get("message", "")) for field in fields if isinstance(field, dict)]
        text = "; ".join([text, *(message for message in messages if message not in text)])
    return text


def _run_cancellable(work: Coroutine[Any, Any, object]) -> object:
    """Run a command; SIGTERM and Ctrl-C cancel it once, so that it can clean up."""

    async def run_it() -> object:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a running coroutine belongs to a task
        received: list[signal.Signals] = []

        def stop(number: signal.Signals) -> None:
            if not received:  # a second signal must not interrupt the cleanup
                task.cancel()
            received.append(number)

        if sys.platform != "win32":
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, stop, number)
        return await work

    return asyncio.run(run_it())
