"""`loratory train`, `loratory tag` and `loratory models`."""

import asyncio
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from contracts.errors import LoratoryError, SetupError
from loratory.cli.jobs import EXIT_CODES, WatchInterrupted, follow
from loratory.cli.options import DEFAULT_SERVER, Flag, NameOrId, Server, Text, parse_recipe_overrides
from loratory.cli.output import write_error, write_json, write_line, write_table
from loratory.follow import ProgressWriter, WorkerWait, follow_tagging
from loratory.http import is_local
from loratory.responses import TrainingOptions


async def train(  # noqa: PLR0913 - each is an option
    dataset: str,
    /,
    *,
    base: Path | None = None,
    preset: str | None = None,
    trigger: str | None = None,
    name: str = "",
    steps: int | None = None,
    set_: Annotated[list[str] | None, Parameter(name="--set", negative=())] = None,
    detach: Annotated[bool, Flag] = False,
    server: Server = DEFAULT_SERVER,
) -> int:
    """Train a LoRA on the current state of a data set and follow it to its end.

    Ctrl-C stops following; the job continues, and `loratory jobs watch` follows it again.

    :param dataset: Name or id of a data set on the server.
    :param base: Folder of the base model, a diffusers pipeline; without it the preset's.
    :param preset: The recipe to start from.
    :param trigger: Trigger word of the trained concept; that of the data set if not given, "" for none.
    :param name: Name of the job and of the LoRA.
    :param steps: Number of training steps.
    :param set_: A field of the recipe and its value, such as optimizer.lr=1e-4; may be repeated.
    :param detach: Print the job's id and do not wait.
    """
    overrides = _recipe_overrides(base, steps, set_ or [], local=is_local(server.url))
    options = TrainingOptions(changes=overrides, trigger=trigger, name=name)
    if preset:
        options["preset"] = preset
    async with server.client() as client:
        job = await client.train(dataset, **options)
        if detach:
            write_json(job) if server.json else write_line(job.id)
            return 0
        return await follow(client, job.id, as_json=server.json)


def _recipe_overrides(base: Path | None, steps: int | None, settings: list[str], *, local: bool) -> dict[str, object]:
    overrides: dict[str, object] = {}
    if base is not None:
        overrides["base"] = {"type": "folder", "path": str(_base_path(base, local=local))}
    if steps is not None:
        overrides["length"] = {"type": "steps", "count": steps}
    return overrides | parse_recipe_overrides(settings)


def _base_path(base: Path, *, local: bool) -> Path:
    """The path for the trainer. A folder on another machine can only be checked there."""
    path = base.expanduser()
    if path.is_dir():
        if not (path / "model_index.json").is_file():
            raise SetupError(f"{base} is not a diffusers pipeline folder: it has no model_index.json")
        return path.resolve()
    if local and base.is_absolute():
        raise SetupError(f"there is no folder {base}")
    return base


async def models(*, server: Server = DEFAULT_SERVER) -> None:
    """List the models that the connected taggers can load, and what they are for."""
    async with server.client() as client:
        found = await client.tagging_models()
    rows = ((one.name, "yes" if one.is_default else "", one.description) for one in found)
    write_json(found) if server.json else write_table(("Name", "Default", "Description"), rows)


async def tag(  # noqa: PLR0913 - the options of a command
    dataset: NameOrId,
    /,
    *,
    model: str | None = None,
    only_new: bool = False,
    filter: Text = None,
    detach: bool = False,
    server: Server = DEFAULT_SERVER,
) -> int:
    """Tag the images of a data set with a model and wait for it.

    :param model: The tagging model, one of 'loratory models'; without it the one that was installed, if it is one.
    :param only_new: Only images that this model has not processed yet.
    :param filter: Only those that this selects, such as 'untagged -reviewed'.
    :param detach: Print the run's id and do not wait.
    """
    writer = ProgressWriter(sys.stderr)
    async with server.client() as client:
        run = await client.tag(dataset, model, only_new=only_new, filter=filter)
        if detach:
            write_json(run) if server.json else write_line(run.id)
            return 0
        try:
            run = await follow_tagging(client, run.id, WorkerWait(None, writer.line), writer)
        except asyncio.CancelledError as error:
            raise WatchInterrupted(f"stopped waiting; the tagging run {run.id} continues") from error
    if server.json:
        write_json(run)
    if run.status == "failed":
        raise LoratoryError(f"the tagging run failed: {run.error}")
    if run.status == "cancelled":
        if not server.json:
            write_error("the tagging run was cancelled")
        return EXIT_CODES["cancelled"]
    if not server.json:
        writer.line(f"{run.done} of {run.total} images tagged by {run.model}")
    return 0
