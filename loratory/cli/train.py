"""`loratory train`, `loratory tag`."""

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from contracts.errors import LoratoryError, SetupError
from loratory.answers import Training
from loratory.cli.common import DEFAULT, Server, changes_of, complain, say, say_json
from loratory.cli.jobs import follow
from loratory.following import Lines, Patience, until_tagged
from loratory.http import here


async def train(  # noqa: PLR0913 - each is an option
    dataset: str,
    /,
    *,
    base: Path | None = None,
    preset: str | None = None,
    trigger: str = "",
    name: str = "",
    steps: int | None = None,
    set_: Annotated[list[str] | None, Parameter(name="--set", negative=())] = None,
    detach: Annotated[bool, Parameter(negative=())] = False,
    server: Server = DEFAULT,
) -> int:
    """Train a LoRA on a data set as it is now, and follow it to its end.

    Parameters
    ----------
    dataset:
        Name or id of a data set on the server.
    base:
        Folder of the base model, a diffusers pipeline; without it the preset's.
    preset:
        The recipe to start from.
    trigger:
        The word that will call what is learned.
    name:
        What the job, and the LoRA, are called.
    steps:
        Train for so many steps.
    set_:
        A field of the recipe and its value, such as optimizer.lr=1e-4; may be repeated.
    detach:
        Print the job's id and do not wait.
    """
    asked = Training(changes=_changes(base, steps, set_ or [], local=here(server.url)), trigger=trigger, name=name)
    if preset:
        asked["preset"] = preset
    async with server.client() as client:
        job = await client.train(dataset, **asked)
        if detach:
            say_json(job) if server.json else say(job.id)
            return 0
        return await follow(client, job.id, as_json=server.json)


def _changes(base: Path | None, steps: int | None, settings: list[str], *, local: bool) -> dict[str, object]:
    changes: dict[str, object] = {}
    if base is not None:
        changes["base"] = {"type": "folder", "path": str(_base(base, local=local))}
    if steps is not None:
        changes["length"] = {"type": "steps", "count": steps}
    return changes | changes_of(settings)


def _base(base: Path, *, local: bool) -> Path:
    """As the trainer will find it. A folder on another machine can only be judged there."""
    found = base.expanduser()
    if found.is_dir():
        if not (found / "model_index.json").is_file():
            raise SetupError(f"{base} is no diffusers pipeline folder: it has no model_index.json")
        return found.resolve()
    if local and base.is_absolute():
        raise SetupError(f"there is no folder {base}")
    return base


async def tag(
    dataset: str, /, *, model: str = "demo", only_new: bool = False, detach: bool = False, server: Server = DEFAULT
) -> int:
    """Have a model tag the pictures of a data set, and wait for it.

    Parameters
    ----------
    dataset:
        Name or id.
    model:
        The model that looks at them.
    only_new:
        Only pictures that no run of it has seen.
    detach:
        Print the run's id and do not wait.
    """
    lines = Lines(sys.stderr)
    async with server.client() as client:
        run = await client.tag(dataset, model, only_new=only_new)
        if detach:
            say_json(run) if server.json else say(run.id)
            return 0
        run = await until_tagged(client, run.id, Patience(None, lines.say), lines)
    if server.json:
        say_json(run)
    if run.status == "failed":
        raise LoratoryError(f"the tagging run failed: {run.error}")
    if run.status == "cancelled":
        complain("the tagging run was cancelled")
        return 4
    lines.say(f"{run.done} of {run.total} pictures tagged by {run.model}")
    return 0
