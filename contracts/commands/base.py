"""What all commands share: metadata, results, and the types of their fields."""

from datetime import datetime
from typing import Annotated, Generic, TypeVar, get_args

import msgspec
from msgspec import Meta

from contracts.ids import CommandId

RESERVED_NAMES = frozenset({"health", "prepare", "categories", "generate-config"})
"""Path segments of the API: a data set or preset of such a name could not be addressed."""

Name = Annotated[str, Meta(min_length=1, max_length=100)]
Description = Annotated[str, Meta(max_length=2000)]
Tag = Annotated[str, Meta(min_length=1, max_length=200)]
Tags = Annotated[tuple[Tag, ...], Meta(max_length=1000)]
Text = Annotated[str, Meta(max_length=20_000)]
Trigger = Annotated[str, Meta(max_length=100)]
Probability = Annotated[float, Meta(ge=0, le=1)]
Repeats = Annotated[int, Meta(ge=1, le=10_000)]
"""How often an image is seen in an epoch."""


class CommandMetadata(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Who sent a command, when and why; stamped at the edge. `fingerprint` is the hash of route and body.

    `correlation_id` is the id of the request (`X-Request-ID`), which is also in log lines; empty: the command id.
    """

    command_id: CommandId
    actor: str
    at: datetime
    fingerprint: str = ""
    correlation_id: str = ""
    causation_id: str = ""
    traceparent: str | None = None


class CommandResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The result of a command; each command names its own kind of result.

    `id` is the object the command was about. A read with `min_seq` = `sequence` includes the change. `changed` is false
    if nothing had to be done. `shown` is false if the change is in the log for good, but reads without `min_seq` may
    not include it yet. Sequence and `shown` are not stored with the result (the sequence is the commit's own), but
    filled in again when the command is repeated.
    """

    id: str
    sequence: int = 0
    changed: bool = True
    shown: bool = True


R = TypeVar("R", bound=CommandResult)


class Command(
    msgspec.Struct,
    Generic[R],
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    tag=True,
    tag_field="type",
):
    """Base class of commands whose result is an R; their names are imperative."""


def result_type_of(command: type[Command[R]]) -> type[R]:
    """The type of a command's result: JobResult for `StartJob(Command[JobResult])`."""
    (result_type,) = get_args(command.__orig_bases__[0])  # type: ignore[attr-defined]  # every generic subclass has it
    return result_type  # type: ignore[no-any-return]
