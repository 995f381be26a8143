"""Commands on tagging runs."""

from contracts.commands.base import Command, CommandResult, Description, Name
from contracts.definitions import union_in
from contracts.filters import AllImages, Selection
from contracts.ids import RunId
from contracts.subjects import Priority, Status


class TaggingRunResult(CommandResult, frozen=True, tag="tagging", tag_field="type"):
    """`name` of the data set where a run was requested."""

    status: Status
    name: str | None = None


class RequestTagging(Command[TaggingRunResult], frozen=True):
    """Run a tagger model over selected images of a data set, or only those that no run of this model has covered."""

    dataset: str
    model: Name
    selection: Selection = AllImages()
    only_new: bool = False
    priority: Priority = "normal"


class CancelTagging(Command[TaggingRunResult], frozen=True):
    run: RunId
    reason: Description = ""


TaggingCommand = union_in(__name__, Command)
