"""The command tree and the exit codes: 0 ok, 1 failed, 2 usage or setup, 3 timeout, 130 interrupted.

Commands that follow work to its end: 0 completed, 1 failed, 2 cancelled, 3 timeout, 4 the server could not say.
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

USAGE, TIMEOUT, OUTCOME_UNKNOWN, INTERRUPTED = 2, 3, 4, 130

GROUPS = {
    "datasets": "Data sets and their images.",
    "images": "Images.",
    "history": "What happened, when, and by whom.",
    "jobs": "Training jobs.",
    "erase": "Permanently erase bytes, file names and captions, everywhere.",
    "backup": "Backups of a data folder.",
    "keys": "Keys of the services.",
    "audit": "Prove that history was not changed.",
    "loras": "Finished LoRAs.",
}
COMMANDS = {
    "up": ("up:up", "Start Loratory on this machine."),
    "demo": ("demo:demo", "From drawn (or your) images to a LoRA in one go."),
    "train": ("train:train", "Train a LoRA on a data set."),
    "tag": ("train:tag", "Tag the images of a data set with a model."),
    "models": ("train:models", "List the models that the connected taggers can load."),
    "events": ("history:events", "Print the event log."),
    "restore": ("restore:restore", "Restore what is damaged or lost in a data folder."),
    "accept-loss": ("restore:accept_loss", "Give up for good what is lost and in no backup."),
    "doctor": ("doctor:doctor", "Check this installation and say what to fix."),
    "datasets create": ("datasets:create", "Create a data set."),
    "datasets ls": ("datasets:ls", "List data sets."),
    "datasets show": ("datasets:show", "Show one data set."),
    "datasets import": ("datasets:import_", "Import a folder or files into a data set, with their captions."),
    "datasets export": ("datasets:export", "Export a data set or a version for other programs."),
    "datasets write-texts": ("texts:write_texts", "Write the texts of a data set beside the pictures of its folder."),
    "datasets freeze": ("datasets:freeze", "Freeze a version of a data set."),
    "datasets text-settings": ("datasets:text_settings", "Show or set how training texts are written."),
    "datasets versions": ("datasets:versions", "List the versions of a data set."),
    "datasets edit": ("datasets:edit", "Add and remove tags of many images at once."),
    "datasets repeats": ("datasets:repeats", "Set how often images are seen in an epoch."),
    "datasets read-texts": ("datasets:read_texts", "Read the texts that came with images another way."),
    "datasets diff": ("datasets:diff", "Show what changed between two versions of a data set."),
    "images ls": ("datasets:ls_images", "List the images of a data set, filtered and sorted."),
    "images show": ("datasets:show_image", "Show one image, now or in the past."),
    "history job": ("history:job", "History of a job."),
    "history image": ("history:image", "History of an image."),
    "history dataset": ("history:dataset", "History of a data set and its tagging runs."),
    "history tag": ("history:tag", "History of a tag in a data set."),
    "jobs ls": ("jobs:ls", "List jobs, newest first."),
    "jobs show": ("jobs:show", "Show one job."),
    "jobs watch": ("jobs:watch", "Follow a job to its end."),
    "jobs wait": ("jobs:wait", "Wait until jobs have ended."),
    "jobs cancel": ("jobs:cancel", "Cancel a job."),
    "erase image": ("erase:image", "Erase images."),
    "erase dataset": ("erase:dataset", "Erase data sets with all their images."),
    "backup create": ("backup:create", "Create or update a backup, while Loratory runs or not."),
    "backup verify": ("backup:verify", "Verify every hash and file of a backup."),
    "backup ls": ("backup:ls", "List the registered backups."),
    "backup forget": ("backup:forget", "Unregister a backup that was deleted."),
    "backup restore": ("backup:restore_backup", "Create a data folder from a backup."),
    "keys rotate": ("keys:rotate", "Give the bus or a service new keys, while Loratory runs or not."),
    "audit head": ("audit:head", "Print the signed head of the log, to be stored elsewhere."),
    "audit verify": ("audit:verify", "Verify all hashes and compare the log with its archive."),
    "audit foreign": ("audit:foreign", "List messages of the log that nobody known appended."),
    "audit replay": ("audit:replay", "Rebuild every read model from the log and compare."),
    "loras get": ("jobs:get", "Download the files of a finished job."),
}


def build() -> App:
    app = App(
        name="loratory",
        help="Curate and tag image data sets, and train LoRAs on them.",
        version=lambda: version("loratory"),
        suppress_keyboard_interrupt=False,
    )
    for group, description in GROUPS.items():
        app.command(App(name=group, help=description))
    for words, (target, description) in COMMANDS.items():
        group, _, name = words.rpartition(" ")
        (app[group] if group else app).command(f"loratory.cli.{target}", name=name, help=description)
    return app


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
        case LoratoryError(code="outcome-unknown"):
            return OUTCOME_UNKNOWN
        case _:
            return 1


def _report(error: Exception, *, as_json: bool) -> None:
    if as_json:
        title = str(error.extra.pop("title", "")) if isinstance(error, LoratoryError) else ""
        write_problem(error, title or (type(error).__doc__ or "").strip().partition("\n")[0])
    else:
        write_error(_sentence(error))


def _sentence(error: Exception) -> str:
    """The message of an error in one line, with those of all invalid fields, and the id to look for in the logs."""
    text = " ".join(str(error).split())
    request_id = error.extra.get("request_id") if isinstance(error, LoratoryError) else None
    fields = error.extra.get("errors") if isinstance(error, LoratoryError) else None
    if isinstance(fields, list | tuple):
        messages = [str(field.get("message", "")) for field in fields if isinstance(field, dict)]
        text = "; ".join([text, *(message for message in messages if message not in text)])
    return f"{text} (request {request_id})" if request_id else text


def _run_cancellable(work: Coroutine[Any, Any, object]) -> object:
    """Run a command; SIGTERM and Ctrl-C cancel it once, so that it can clean up."""

    async def run_it() -> object:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a running coroutine belongs to a task

        def stop() -> None:
            if not task.cancelling():  # a second signal must not interrupt the cleanup
                task.cancel()

        if sys.platform != "win32":
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, stop)
        return await work

    return asyncio.run(run_it())
