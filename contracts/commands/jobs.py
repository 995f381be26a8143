"""Commands on jobs."""

from typing import Annotated, Literal

from msgspec import Meta

from contracts.commands.base import Command, CommandResult, Description, Name, Trigger
from contracts.definitions import union_in
from contracts.ids import JobId
from contracts.recipe import Recipe
from contracts.subjects import Priority, Status


class JobResult(CommandResult, frozen=True, tag="job", tag_field="type"):
    """`name` of the job and `version` of the data set where the job was created; none if it is yet to be frozen."""

    status: Status
    name: str | None = None
    version: int | None = None


class CreateJob(Command[JobResult], frozen=True):
    """Create a training job from a data set (frozen now, or an earlier version) and a recipe.

    It is accepted at once. Without `version` the data set is frozen afterwards, as it is then; see `job.version_set`.
    The recipe is the preset's (or `recipe`, or the default) with `changes` on top, given as dotted paths.
    `trigger`: none = that of the version, or else of the data set; empty = no trigger.
    """

    dataset: str
    version: int | None = None
    preset: str | None = None
    recipe: Recipe | None = None
    changes: dict[str, object] = {}
    name: Annotated[str, Meta(max_length=100)] = ""
    trigger: Trigger | None = None
    mode: Literal["single", "batch", "variations", "quick-start"] = "single"
    priority: Priority = "normal"
    description: Description = ""
    labels: Annotated[tuple[Name, ...], Meta(max_length=32)] = ()
    start: bool = False


class EditJob(Command[JobResult], frozen=True):
    """Change a job's name, description, labels or priority. The status cannot be edited."""

    job: JobId
    name: Name | None = None
    description: Description | None = None
    labels: Annotated[tuple[Name, ...], Meta(max_length=32)] | None = None
    priority: Priority | None = None


class StartJob(Command[JobResult], frozen=True):
    job: JobId


class CancelJob(Command[JobResult], frozen=True):
    job: JobId
    reason: Description = ""


class RemoveJob(Command[JobResult], frozen=True):
    job: JobId


JobCommand = union_in(__name__, Command)
