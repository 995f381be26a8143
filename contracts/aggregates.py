"""The kinds of aggregates, each written down once. Pure.

Subjects, decoding, permissions, the routing of commands and the documents of all messages follow from these records. A
new kind is a module with its events, one with its commands, and a line in `KINDS`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, TypeVar, Union, get_args

import msgspec

from contracts.commands.base import Command, CommandMetadata, CommandResult, result_type_of
from contracts.commands.datasets import DatasetCommand
from contracts.commands.jobs import JobCommand
from contracts.commands.presets import PresetCommand
from contracts.commands.tagging import TaggingCommand
from contracts.errors import SetupError
from contracts.events.base import Event
from contracts.events.datasets import DatasetEvent
from contracts.events.jobs import JOB_WORK, JobEvent
from contracts.events.log import LogEvent
from contracts.events.presets import PresetEvent
from contracts.events.service_keys import ServiceKeyEvent, SigningService
from contracts.events.tagging import TAGGING_WORK, TaggingEvent
from contracts.events.work import WorkKind, may_append

ServiceName = Literal["catalog", "gateway", "tagger", "trainer"]
SignerName = Literal["catalog", "tagger", "trainer", "root"]
"""Who may sign commits: the services that append, each with keys of its own, and the workshop's root key."""


@dataclass(frozen=True)
class AggregateKind:
    """One kind of aggregate; the history of one is the subject `evt.<name>.<id>`.

    `events` and `commands` are tagged unions. The `owner` handles its commands and appends; `writers` append as well.
    `work`: it is work that those writers fetch from the queue. `signer`: who signs what its owner appends.
    """

    name: str
    events: Any
    commands: Any = None
    owner: ServiceName = "catalog"
    writers: tuple[SigningService, ...] = ()
    work: WorkKind | None = None
    signer: SignerName = "catalog"

    def may_append(self, signer: SignerName, event: type[Event]) -> bool:
        """Whether commits of this signer may contain this event."""
        if self.work is not None:
            return may_append(event, as_worker=signer in self.writers) and signer in (self.signer, *self.writers)
        return signer == self.signer

    @property
    def event_types(self) -> tuple[type[Event], ...]:
        return get_args(self.events) or (self.events,)

    @property
    def command_types(self) -> tuple[type[Command[Any]], ...]:
        return get_args(self.commands) or (() if self.commands is None else (self.commands,))


KINDS = (
    AggregateKind("log", LogEvent, signer="root"),
    AggregateKind("service-key", ServiceKeyEvent, signer="root"),
    AggregateKind("dataset", DatasetEvent, DatasetCommand),
    AggregateKind("preset", PresetEvent, PresetCommand),
    AggregateKind("job", JobEvent, JobCommand, writers=("trainer",), work=JOB_WORK),
    AggregateKind("tagging", TaggingEvent, TaggingCommand, writers=("tagger",), work=TAGGING_WORK),
)


@dataclass(frozen=True)
class Registry:
    """All kinds, by what they are looked up with. SetupError: two kinds share a name, an event or a command."""

    kinds: tuple[AggregateKind, ...]
    by_name: dict[str, AggregateKind] = field(init=False, default_factory=dict)
    by_command: dict[type, AggregateKind] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        events: dict[str, AggregateKind] = {}
        for kind in self.kinds:
            _add(self.by_name, kind.name, kind, f"the aggregate kind {kind.name!r}")
            for event in kind.event_types:
                tag = str(event.__struct_config__.tag)
                _add(events, tag, kind, f"the event {tag!r}")
            for command in kind.command_types:
                _add(self.by_command, command, kind, f"the command {command.__name__}")

    def kind_of(self, command: type[Command[Any]]) -> AggregateKind:
        """The kind a command belongs to. SetupError: to none."""
        try:
            return self.by_command[command]
        except KeyError as error:
            raise SetupError(
                f"no aggregate kind of contracts/aggregates.py has the command {command.__name__}"
            ) from error

    def work_kinds(self) -> Iterable[WorkKind]:
        return (kind.work for kind in self.kinds if kind.work is not None)

    def commands_of(self, owner: str) -> list[type[Command[Any]]]:
        return [command for kind in self.kinds if kind.owner == owner for command in kind.command_types]


T = TypeVar("T")


def _add(known: dict[T, AggregateKind], key: T, kind: AggregateKind, what: str) -> None:
    if key in known:
        raise SetupError(f"{what} is registered twice, by the kinds {known[key].name!r} and {kind.name!r}")
    known[key] = kind


REGISTRY = Registry(KINDS)
WORK_KINDS = {work.work_class: work for work in REGISTRY.work_kinds()}
"""The kinds of work by the class in which they are queued."""


def _union(types: Iterable[Any]) -> Any:
    return Union[tuple(dict.fromkeys(types))]  # noqa: UP007 - built from the records at run time


if TYPE_CHECKING:  # what is known of any event or result; at run time the unions, by which they are decoded
    AnyEvent: TypeAlias = Event
    AnyCommandResult: TypeAlias = CommandResult
else:
    AnyEvent = _union(event for kind in KINDS for event in kind.event_types)
    AnyCommandResult = _union(result_type_of(command) for command in REGISTRY.by_command)

C = TypeVar("C")


class CommandEnvelope(msgspec.Struct, Generic[C], frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is sent over the bus, to `cmd.<owner>.<kind>`."""

    metadata: CommandMetadata
    command: C
